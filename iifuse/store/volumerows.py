"""Volumes on the mount with no set (`svadm`), as the state database knows them."""

from collections.abc import Iterable

from iifuse.core.header import FileId, Stamp
from iifuse.core.times import TIME_NS_MAX, Times
from iifuse.store.database import Database


class VolumeRows(Database):
    """Their table; each method raises StorageError."""

    def volumes(self) -> list[str]:
        """Pass-through volumes."""
        return [str(row[0]) for row in self._rows("SELECT path FROM volumes ORDER BY path")]

    def times(self, path: str) -> tuple[Times, Stamp, FileId]:
        """(times, what its file looked like then, which file it was) of a pass-through volume."""
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
        """Keep the times of a pass-through volume; of another one nothing is kept.

        `stamp`, `file`: only of a quiet one, which nobody changes through us.
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
        """A volume has a set from now on, whose header keeps them."""
        self._run(
            "UPDATE volumes SET mtime_ns = 0, ctime_ns = 0, ceiling_ns = 0 "
            "WHERE path = ? AND ctime_ns != 0",
            (path,),
        )

    def add_volumes(self, paths: Iterable[str]) -> None:
        """Keep volumes on the mount, all of them or none."""
        with self._changing():
            for path in paths:
                self._run("INSERT OR IGNORE INTO volumes (path) VALUES (?)", (path,))

    def remove_volumes(self, paths: Iterable[str]) -> None:
        """Forget them, all or none."""
        with self._changing():
            for path in paths:
                self._run("DELETE FROM volumes WHERE path = ?", (path,))
