"""What the service manages: sets and their paths, groups, pass-through volumes, a history.

What a set *is* stands in the header of its bitmap volume; a lost database loses no data.
"""

import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from iifuse import errors
from iifuse.core.header import Header
from iifuse.core.state import Custody, Kind, Progress

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sets (
    shadow TEXT PRIMARY KEY,
    uuid TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,  -- this and the next three as in the header,
    kind INTEGER NOT NULL,        -- for a start without the bitmap volume
    progress INTEGER NOT NULL DEFAULT 0,
    custody INTEGER NOT NULL DEFAULT 0,
    doubt TEXT,                 -- why the bitmap is not believed until -R
    master TEXT,                -- absent: an imported shadow
    bitmap TEXT NOT NULL UNIQUE,
    "group" TEXT
);
CREATE TABLE IF NOT EXISTS volumes (path TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS history (
    time TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    shadow TEXT NOT NULL,
    event TEXT NOT NULL,
    pit INTEGER,
    held_ms REAL,               -- how long writes were held
    chunks INTEGER              -- copied, at the end of a copy
);
"""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class SetRow:
    """A set that comes back at start."""

    shadow: str
    uuid: UUID
    master: str | None
    bitmap: str
    group: str | None
    size_bytes: int
    kind: Kind
    progress: Progress = Progress.IDLE
    custody: Custody = Custody.LOCAL
    doubt: str | None = None

    @classmethod
    def of(cls, header: Header, group: str | None = None) -> "SetRow":
        """The row of a new set."""
        master = None if header.custody is Custody.IMPORTED else header.master
        names = (header.shadow, header.uuid, master, header.bitmap, group)
        return cls(*names, header.size_bytes, header.kind, header.progress, header.custody)


class StateDB:
    """STATE/state.db; every method blocks, and each change is durable when it returns."""

    def __init__(self, directory: str) -> None:
        path = self._path = os.path.join(directory, "state.db")
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=FULL")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _VERSION):
                raise errors.ServiceError(path, f"format version {found} is not known here")
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version={_VERSION}")
        except sqlite3.Error as error:
            raise errors.ServiceError(path, f"cannot be used ({error})") from error
        os.chmod(path, 0o600)

    def _run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """One statement, one transaction. Raises StorageError."""
        try:
            return self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise errors.StorageError(self._path, str(error), "see to its file system") from error

    def sets(self) -> list[SetRow]:
        """All sets, in the order in which they were enabled."""
        rows = self._run(
            'SELECT shadow, uuid, master, bitmap, "group", size_bytes, kind, progress, custody, '
            "doubt FROM sets ORDER BY rowid"
        )
        return [
            SetRow(s, UUID(u), m, b, g, size, Kind(k), Progress(p), Custody(c), doubt)
            for s, u, m, b, g, size, k, p, c, doubt in rows
        ]

    def add_set(self, row: SetRow) -> None:
        """From the return on the set comes back at every start."""
        self._run(
            'INSERT INTO sets (shadow, uuid, master, bitmap, "group", size_bytes, kind, progress, '
            "custody) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.shadow, str(row.uuid), row.master, row.bitmap, row.group, row.size_bytes,
                row.kind, row.progress, row.custody,
            ),
        )

    def remember(self, shadow: str, progress: Progress, custody: Custody) -> None:
        """What the header says now, should the bitmap volume be missing at the next start."""
        self._run(
            "UPDATE sets SET progress = ?, custody = ? WHERE shadow = ?",
            (progress, custody, shadow),
        )

    def doubt(self, shadow: str, reason: str | None) -> None:
        """Believe a set's bitmap volume no more, should it come back; None: believe it again."""
        self._run("UPDATE sets SET doubt = ? WHERE shadow = ?", (reason, shadow))

    def remove_set(self, shadow: str) -> None:
        """Forget a set."""
        self._run("DELETE FROM sets WHERE shadow = ?", (shadow,))

    def move_sets(self, shadows: list[str], group: str | None) -> None:
        """Put sets into a group, or (None) out of theirs: all of them or none."""
        marks = ", ".join("?" * len(shadows))
        self._run(
            f'UPDATE sets SET "group" = ? WHERE shadow IN ({marks})',  # noqa: S608 - only marks
            (group, *shadows),
        )

    def volumes(self) -> list[str]:
        """Pass-through volumes."""
        return [row[0] for row in self._run("SELECT path FROM volumes ORDER BY path")]

    def add_volume(self, path: str) -> None:
        """Keep a volume on the mount."""
        self._run("INSERT OR IGNORE INTO volumes VALUES (?)", (path,))

    def remove_volume(self, path: str) -> None:
        """Forget it."""
        self._run("DELETE FROM volumes WHERE path = ?", (path,))

    def record(
        self,
        shadow: str,
        event: str,
        pit: int | None = None,
        held_ms: float | None = None,
        chunks: int | None = None,
    ) -> None:
        """Add a line to the history."""
        self._run(
            "INSERT INTO history (shadow, event, pit, held_ms, chunks) VALUES (?, ?, ?, ?, ?)",
            (shadow, event, pit, held_ms, chunks),
        )

    def history(self, shadow: str) -> list[tuple[str, int | None]]:
        """(event, PIT number) of a set, oldest first."""
        rows = self._run(
            "SELECT event, pit FROM history WHERE shadow = ? ORDER BY rowid", (shadow,)
        )
        return [(event, pit) for event, pit in rows]

    def close(self) -> None:
        """Close the database."""
        self._db.close()
