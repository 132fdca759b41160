"""What the service manages: sets and their paths, groups, pass-through volumes, and a history.

The state of a set is in the header of its bitmap volume. So no data is lost with the database.
"""

from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

from iifuse import errors
from iifuse.core.header import FileId, Header
from iifuse.core.state import Custody, Progress
from iifuse.store.database import WAY_OUT
from iifuse.store.historyrows import HistoryRows
from iifuse.store.setrow import SetRow, checked, row_of

FORMER_MAX: Final = 10_000
"""How many disabled sets are remembered with their masters and shadows; the latest count."""


class StateDB(HistoryRows):
    """The content of STATE/state.db. Every method blocks and raises StorageError."""

    def sets(self) -> list[SetRow]:
        """All sets, in the order in which they were enabled. Raises ServiceError for a bad row."""
        rows = self._rows(
            'SELECT shadow, uuid, master, bitmap, "group", size_bytes, kind, progress, custody, '
            "doubt, session, previous, closing, sequence, entering, "
            "master_inode, master_birth_ns, shadow_inode, shadow_birth_ns, "
            "bitmap_inode, bitmap_birth_ns FROM sets ORDER BY rowid"
        )
        try:
            return [checked(row_of(*row)) for row in rows]
        except (ValueError, TypeError, AttributeError) as error:
            raise errors.ServiceError(
                self._path, f"a row of its sets is damaged ({error})", WAY_OUT
            ) from error

    def add_set(self, row: SetRow) -> None:
        """Add a set. When this returns, the set comes back at every start."""
        self._run(
            'INSERT INTO sets (shadow, uuid, master, bitmap, "group", size_bytes, kind, progress, '
            "custody, session, sequence, doubt, entering, "
            "master_inode, master_birth_ns, shadow_inode, shadow_birth_ns, "
            "bitmap_inode, bitmap_birth_ns) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.shadow, str(row.uuid), row.master, row.bitmap, row.group, row.size_bytes,
                row.kind, row.progress, row.custody, row.session, row.sequence, row.doubt,
                row.entering, *row.files,
            ),
        )

    def announce(self, coming: Mapping[str, tuple[Progress, Custody] | None]) -> None:
        """Note what the headers of these sets are about to say, by shadow; None: no change.

        This always writes something, for all sets or for none. So when it returns, the caller knows
        that the database takes changes.
        """
        with self._changing():
            for shadow, what in coming.items():
                self._change_set(
                    shadow,
                    "progress = coalesce(?, progress), custody = coalesce(?, custody), "
                    "announced = announced + 1",
                    what or (None, None),
                )

    def _change_set(self, shadow: str, change: str, values: Sequence[object]) -> None:
        done = self._run(f"UPDATE sets SET {change} WHERE shadow = ?", (*values, shadow))  # noqa: S608
        if done.rowcount != 1:
            raise errors.StorageError(self._path, f"does not know {shadow} any more", WAY_OUT)

    def remember(self, header: Header) -> None:
        """Note what the header says now, in case the next start finds another header or none."""
        self._run(
            "UPDATE sets SET progress = ?, custody = ?, sequence = ?, entering = 0, "
            "master_inode = ?, master_birth_ns = ?, shadow_inode = ?, shadow_birth_ns = ? "
            "WHERE shadow = ? AND uuid = ?",
            (
                header.progress, header.custody, header.sequence, *SetRow.of(header).files[:4],
                header.shadow, str(header.uuid),
            ),
        )

    def use_bitmap(self, shadow: str, file: FileId) -> None:
        """Note which file is the bitmap volume of a set from now on."""
        self._run(
            "UPDATE sets SET bitmap_inode = ?, bitmap_birth_ns = ? WHERE shadow = ?",
            (file.inode, file.birth_ns, shadow),
        )

    def begin_session(self, session: int, previous: dict[str, int]) -> None:
        """Note that the headers of these sets get a new session. `previous`: the old ones."""
        rows = [(session, before, shadow) for shadow, before in previous.items()]
        with self._changing():
            for row in rows:
                self._run("UPDATE sets SET session = ?, previous = ? WHERE shadow = ?", row)

    def end_session_change(self, shadows: list[str]) -> None:
        """Note that the headers have the new session. One with the old session counts no more."""
        marks = ", ".join("?" * len(shadows))
        self._run(
            f"UPDATE sets SET previous = NULL WHERE shadow IN ({marks})",  # noqa: S608 - only marks
            shadows,
        )

    def closing(self, shadow: str, yes: bool) -> None:
        """Note that a disable of a set has begun, or (False) that it does not take place."""
        self._change_set(shadow, "closing = ?", (yes,))

    def doubt(self, shadow: str, reason: str | None) -> None:
        """Note that a set's bitmap volume must not be believed, and why; None: it may be again."""
        self._change_set(shadow, "doubt = ?", (reason,))

    def give_up(self, shadow: str, pit: int) -> None:
        """Note the point in time whose restore was given up; 0: there is none any more."""
        self._run("UPDATE sets SET given_up = ? WHERE shadow = ?", (pit, shadow))

    def given_up(self, shadow: str) -> int:
        """The point in time whose restore was given up last; 0: none."""
        rows = self._rows("SELECT given_up FROM sets WHERE shadow = ?", (shadow,))
        return int(rows[0][0]) if rows else 0

    def rest_of(self, shadow: str) -> int:
        """The point in time of a disabled set that was given up half restored; 0: none.

        Its shadow still holds what was not restored.
        """
        rows = self._rows("SELECT given_up FROM former WHERE shadow = ?", (shadow,))
        return int(rows[0][0]) if rows else 0

    def remove_set(self, shadow: str) -> None:
        """Forget a set, except for which volume was the master and which the shadow.

        Nothing is kept of a set whose enable was not finished: the earlier row still counts then.
        """
        with self._changing():
            self._run("DELETE FROM former WHERE master = ?", (shadow,))
            self._run(
                "INSERT OR REPLACE INTO former (shadow, master, given_up) "
                "SELECT shadow, master, given_up FROM sets "
                "WHERE shadow = ? AND master IS NOT NULL AND NOT entering",
                (shadow,),
            )
            self._run(
                "DELETE FROM former WHERE rowid <= (SELECT max(rowid) FROM former) - ?",
                (FORMER_MAX,),
            )
            self._run(
                "DELETE FROM imports WHERE uuid IN (SELECT uuid FROM sets WHERE shadow = ?)",
                (shadow,),
            )
            self._run("DELETE FROM sets WHERE shadow = ?", (shadow,))

    def imports(self, uuid: UUID, export_number: int) -> dict[UUID, str]:
        """The known imports of an export: import id -> path of its bitmap."""
        query = "SELECT id, bitmap FROM imports WHERE uuid = ? AND export_number = ? ORDER BY rowid"
        try:
            rows = self._rows(query, (str(uuid), export_number))
            return {UUID(key): str(bitmap) for key, bitmap in rows}
        except (ValueError, TypeError, AttributeError) as error:
            why = f"a row of its imports is damaged ({error})"
            raise errors.StorageError(self._path, why, WAY_OUT) from error

    def add_imports(self, uuid: UUID, export_number: int, bitmaps: dict[UUID, str]) -> None:
        """Add known imports of an export, and forget those of earlier exports of the set."""
        with self._changing():
            self._run(
                "DELETE FROM imports WHERE uuid = ? AND export_number < ?",
                (str(uuid), export_number),
            )
            for key, bitmap in bitmaps.items():
                self._run(
                    "INSERT OR REPLACE INTO imports VALUES (?, ?, ?, ?)",
                    (str(uuid), export_number, str(key), bitmap),
                )

    def disown(self, transition: UUID) -> None:
        """Note that no set may follow this group command, even if its record is on the disk."""
        self._run("INSERT OR REPLACE INTO disowned VALUES (1, ?)", (str(transition),))

    def disowned(self) -> UUID | None:
        """The last group command that no set may follow; None: there is none."""
        rows = self._rows('SELECT "transition" FROM disowned')
        try:
            return UUID(rows[0][0]) if rows else None
        except (ValueError, TypeError, AttributeError) as error:
            why = f"the name of a group command is damaged ({error})"
            raise errors.ServiceError(self._path, why, WAY_OUT) from error

    def former(self, path: str) -> list[tuple[str, str]]:
        """The (master, shadow) pairs of disabled sets that had a volume of this path."""
        query = "SELECT master, shadow FROM former WHERE shadow = ? OR master = ? ORDER BY shadow"
        return [(str(master), str(shadow)) for master, shadow in self._rows(query, (path, path))]

    def move_sets(self, shadows: list[str], group: str | None) -> None:
        """Put sets into a group; None: take them out of theirs. All of them are changed or none."""
        marks = ", ".join("?" * len(shadows))
        self._run(
            f'UPDATE sets SET "group" = ? WHERE shadow IN ({marks})',  # noqa: S608 - only marks
            (group, *shadows),
        )
