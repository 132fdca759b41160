"""The volumes that are on the mount without a set (`svadm`), in the state database."""

from collections.abc import Iterable

from iifuse.core.header import FileId, Stamp
from iifuse.core.times import TIME_NS_MAX, Times
from iifuse.store.database import Database


class VolumeRows(Database):
    """The table of pass-through volumes. Each method raises StorageError."""

    def volumes(self) -> list[str]:
        """The paths of the pass-through volumes."""
        return [str(row[0]) for row in self._rows("SELECT path FROM volumes ORDER BY path")]

    def times(self, path: str) -> tuple[Times, Stamp, FileId]:
        """What is recorded of a pass-through volume: (times, stamp, file); all 0: unknown."""
        rows = self._rows(
            "SELECT mtime_ns, ctime_ns, ceiling_ns, size_bytes, raw_mtime_ns, raw_ctime_ns, "
            "inode, birth_ns "
            "FROM volumes WHERE path = ?",
            (path,),
        )
        if not rows or not all(isinstance(n, int) for n in rows[0]):
            return Times(), Stamp(), FileId()
        if any(abs(n) > TIME_NS_MAX for n in rows[0][:6]):
            return Times(), Stamp(), FileId()
        return Times(*rows[0][:3]), Stamp(*rows[0][3:6]), FileId(*rows[0][6:])

    def keep_times(self, path: str, times: Times, stamp: Stamp, file: FileId) -> None:
        """Record the times of a pass-through volume. For another path this does nothing.

        `stamp` and `file` are known only while the volume is quiet.
        """
        self._run(
            "UPDATE volumes SET mtime_ns = ?, ctime_ns = ?, ceiling_ns = ?, size_bytes = ?, "
            "raw_mtime_ns = ?, raw_ctime_ns = ?, inode = ?, birth_ns = ? WHERE path = ?",
            (
                times.mtime_ns, times.ctime_ns, times.ceiling_ns, stamp.size_bytes,
                stamp.mtime_ns, stamp.ctime_ns, file.inode, file.birth_ns, path,
            ),
        )

    def forget_times(self, path: str) -> None:
        """Forget the times of a volume: it has a set from now on, whose header keeps them."""
        self._run(
            "UPDATE volumes SET mtime_ns = 0, ctime_ns = 0, ceiling_ns = 0 "
            "WHERE path = ? AND ctime_ns != 0",
            (path,),
        )

    def add_volumes(self, paths: Iterable[str]) -> None:
        """Add pass-through volumes, all of them or none."""
        with self._changing():
            for path in paths:
                self._run("INSERT OR IGNORE INTO volumes (path) VALUES (?)", (path,))

    def remove_volumes(self, paths: Iterable[str]) -> None:
        """Remove pass-through volumes, all of them or none."""
        with self._changing():
            for path in paths:
                self._run("DELETE FROM volumes WHERE path = ?", (path,))
