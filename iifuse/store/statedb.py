"""What the service manages: sets and their paths, groups, pass-through volumes, a history.

What a set *is* stands in the header of its bitmap volume; a lost database loses no data.

A change is durable when it returns, over a power loss too. So SQLite keeps its journal as a file
(`journal_mode=PERSIST`): a change counts from the synced write on that zeroes the journal's first
bytes. With the usual mode it counts from the removal of the journal, which SQLite does not sync
into the directory below `synchronous=EXTRA`: after a power loss the journal was back, and the last
change undone. EXTRA alone would do; a journal that stays also has its space already, so that
changes that fit can be made while the file system is full. The two names in the directory are made
once, and synced at each start.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from iifuse import errors
from iifuse.core.header import Header
from iifuse.core.state import Custody, Kind, Progress
from iifuse.store.volume import sync_directory
from iifuse.store.volumerows import VolumeRows

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS sets (
    shadow TEXT PRIMARY KEY,
    uuid TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,  -- this and the next three as in the header,
    kind INTEGER NOT NULL,        -- for a start without the bitmap volume
    progress INTEGER NOT NULL DEFAULT 0,
    custody INTEGER NOT NULL DEFAULT 0,
    doubt TEXT,                 -- why the bitmap is not believed until -R
    session INTEGER NOT NULL,   -- as in the header, or
    previous INTEGER,           -- while a start changes it: the one before
    closing INTEGER NOT NULL DEFAULT 0,  -- a disable has begun
    sequence INTEGER NOT NULL DEFAULT 0,  -- of the header, or of one before it
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
"""As version 2 (0.1.0) has it; what came later stands in `_ADDED`, `_FORMER` and `_IMPORTS`."""

_FORMER: Final = """
CREATE TABLE IF NOT EXISTS former (  -- sets that were: of which master a shadow was the last time
    shadow TEXT PRIMARY KEY,
    master TEXT NOT NULL
)
"""

_IMPORTS: Final = """
CREATE TABLE IF NOT EXISTS imports (  -- of sets, as their tickets have named them
    uuid TEXT NOT NULL,
    export_number INTEGER NOT NULL,
    id TEXT NOT NULL,
    bitmap TEXT NOT NULL,
    PRIMARY KEY (uuid, id)
)
"""

_NUMBER: Final = "INTEGER NOT NULL DEFAULT 0"
_ADDED: Final = {
    "sets": ("given_up",),  # the point in time whose restore was given up
    "volumes": (  # of one with no set: its times and what identifies it, as a header has them
        "mtime_ns", "ctime_ns", "ceiling_ns", "inode", "birth_ns", "size_bytes",
        "raw_mtime_ns", "raw_ctime_ns",
    ),
}  # fmt: skip
"""Columns that version 3 has and version 2 had not."""

_OLD_VERSION: Final = 2
_VERSION: Final = 3
_WAY_OUT: Final = "move it away and bring the sets back with 'iiadm --attach'"
_REMEDY: Final = "make room in its directory, or make that writable again"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAILURES: Final = (sqlite3.Error, UnicodeError)
"""A damaged name of a table stands in the error, which Python then cannot decode."""


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
    session: int = 0
    previous: int | None = None
    closing: bool = False
    sequence: int = 0

    @classmethod
    def of(cls, header: Header, group: str | None = None) -> "SetRow":
        """The row of a new set."""
        master = None if header.custody is Custody.IMPORTED else header.master
        names = (header.shadow, header.uuid, master, header.bitmap, group)
        what = (header.size_bytes, header.kind, header.progress, header.custody)
        return cls(*names, *what, session=header.session, sequence=header.sequence)


class StateDB(VolumeRows):
    """STATE/state.db; every method blocks, and each change is durable when it returns."""

    def __init__(self, directory: str) -> None:
        path = self._path = os.path.join(directory, "state.db")
        self._lock = threading.RLock()
        """Threads share the connection: a transaction of one is not to take in another's change."""
        try:
            _make_private(path)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA synchronous=EXTRA")
            self._db.execute("PRAGMA journal_mode=PERSIST")  # before a journal is rolled back
            self._db.execute("PRAGMA temp_store=MEMORY")  # nothing depends on another directory
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _OLD_VERSION, _VERSION):
                raise errors.ServiceError(path, f"format version {found} is not known here")
            self._check()
            with self._changing():
                self._migrate(found)
            sync_directory(path)
        except (*_FAILURES, OSError) as error:
            raise errors.ServiceError(path, f"cannot be used ({error})", _remedy(error)) from error

    def _check(self) -> None:
        """A page that was lost or came from elsewhere may hide a set or its doubt."""
        found = self._db.execute("PRAGMA integrity_check").fetchall()
        if found != [("ok",)]:
            raise errors.ServiceError(
                self._path, f"is damaged ({found[0][0]})", _WAY_OUT
            )

    def _migrate(self, found: int) -> None:
        """The tables of this version, in a transaction; where they are so, nothing is written."""
        if not found:
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
        self._db.execute(_FORMER)
        self._db.execute(_IMPORTS)
        for table, columns in _ADDED.items():
            there = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            for column in columns:
                if column not in there:
                    self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {_NUMBER}")
        if found != _VERSION:
            self._db.execute(f"PRAGMA user_version={_VERSION}")

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One transaction of several statements: all of them or none."""
        with self._lock:
            self._run("BEGIN")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """What a SELECT finds. Raises StorageError."""
        try:
            return self._db.execute(query, values).fetchall()
        except _FAILURES as error:
            raise errors.StorageError(self._path, str(error), _remedy(error)) from error

    def _run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """One statement, one transaction. Raises StorageError."""
        try:
            with self._lock:
                return self._db.execute(statement, values)
        except _FAILURES as error:
            raise errors.StorageError(self._path, str(error), _remedy(error)) from error

    def sets(self) -> list[SetRow]:
        """All sets, in the order in which they were enabled."""
        rows = self._rows(
            'SELECT shadow, uuid, master, bitmap, "group", size_bytes, kind, progress, custody, '
            "doubt, session, previous, closing, sequence FROM sets ORDER BY rowid"
        )
        try:
            return [
                _checked(SetRow(s, UUID(u), m, b, g, size, Kind(k), Progress(p), Custody(c), *rest))
                for s, u, m, b, g, size, k, p, c, *rest in rows
            ]
        except (ValueError, TypeError, AttributeError) as error:
            raise errors.ServiceError(
                self._path, f"a row of its sets is damaged ({error})", _WAY_OUT
            ) from error

    def add_set(self, row: SetRow) -> None:
        """From the return on the set comes back at every start."""
        self._run(
            'INSERT INTO sets (shadow, uuid, master, bitmap, "group", size_bytes, kind, progress, '
            "custody, session, sequence, doubt) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                row.shadow, str(row.uuid), row.master, row.bitmap, row.group, row.size_bytes,
                row.kind, row.progress, row.custody, row.session, row.sequence, row.doubt,
            ),
        )

    def remember(self, header: Header) -> None:
        """What the header says now, should another one or none be there at the next start."""
        self._run(
            "UPDATE sets SET progress = ?, custody = ?, sequence = ? WHERE shadow = ?",
            (header.progress, header.custody, header.sequence, header.shadow),
        )

    def begin_session(self, session: int, previous: dict[str, int]) -> None:
        """The headers of these sets get a new session now, each from its previous one."""
        rows = [(session, before, shadow) for shadow, before in previous.items()]
        with self._changing():
            for row in rows:
                self._run("UPDATE sets SET session = ?, previous = ? WHERE shadow = ?", row)

    def end_session_change(self) -> None:
        """The headers have it: an older one is not taken any more."""
        self._run("UPDATE sets SET previous = NULL")

    def closing(self, shadow: str, yes: bool) -> None:
        """A disable begins, or (False) has not come about."""
        self._run("UPDATE sets SET closing = ? WHERE shadow = ?", (yes, shadow))

    def doubt(self, shadow: str, reason: str | None) -> None:
        """Believe a set's bitmap volume no more, should it come back; None: believe it again."""
        done = self._run("UPDATE sets SET doubt = ? WHERE shadow = ?", (reason, shadow))
        if done.rowcount != 1:
            raise errors.StorageError(self._path, f"does not know {shadow} any more")

    def give_up(self, shadow: str, pit: int) -> None:
        """The restore of this point in time will not be finished; 0: that is no longer so."""
        self._run("UPDATE sets SET given_up = ? WHERE shadow = ?", (pit, shadow))

    def given_up(self, shadow: str) -> int:
        """The point in time whose restore was given up last; 0: none."""
        rows = self._rows("SELECT given_up FROM sets WHERE shadow = ?", (shadow,))
        return int(rows[0][0]) if rows else 0

    def remove_set(self, shadow: str) -> None:
        """Forget a set, but for who was the master and who the shadow."""
        with self._changing():
            self._run("DELETE FROM former WHERE master = ?", (shadow,))
            self._run(
                "INSERT OR REPLACE INTO former SELECT shadow, master FROM sets "
                "WHERE shadow = ? AND master IS NOT NULL",
                (shadow,),
            )
            self._run(
                "DELETE FROM imports WHERE uuid IN (SELECT uuid FROM sets WHERE shadow = ?)",
                (shadow,),
            )
            self._run("DELETE FROM sets WHERE shadow = ?", (shadow,))

    def imports(self, uuid: UUID, export_number: int) -> dict[UUID, str]:
        """Import id -> its bitmap: what was once known of the imports of an export."""
        query = "SELECT id, bitmap FROM imports WHERE uuid = ? AND export_number = ? ORDER BY rowid"
        try:
            rows = self._rows(query, (str(uuid), export_number))
            return {UUID(key): str(bitmap) for key, bitmap in rows}
        except (ValueError, TypeError, AttributeError) as error:
            why = f"a row of its imports is damaged ({error})"
            raise errors.StorageError(self._path, why, _WAY_OUT) from error

    def add_imports(self, uuid: UUID, export_number: int, bitmaps: dict[UUID, str]) -> None:
        """Keep what is known of the imports of an export; that of earlier ones is over."""
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

    def former(self, path: str) -> list[tuple[str, str]]:
        """(master, shadow) of the sets that were and had a volume of this name."""
        query = "SELECT master, shadow FROM former WHERE shadow = ? OR master = ? ORDER BY shadow"
        return [(str(master), str(shadow)) for master, shadow in self._rows(query, (path, path))]

    def move_sets(self, shadows: list[str], group: str | None) -> None:
        """Put sets into a group, or (None) out of theirs: all of them or none."""
        marks = ", ".join("?" * len(shadows))
        self._run(
            f'UPDATE sets SET "group" = ? WHERE shadow IN ({marks})',  # noqa: S608 - only marks
            (group, *shadows),
        )

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
        rows = self._rows(
            "SELECT event, pit FROM history WHERE shadow = ? ORDER BY rowid", (shadow,)
        )
        return [(event, pit) for event, pit in rows]

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _make_private(path: str) -> None:
    """Only for its owner, before there is anything in it; the journal follows it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.chmod(path, 0o600)


def _remedy(error: Exception) -> str:
    """What to do about a failure of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damaged = isinstance(error, UnicodeError) or code in _DAMAGED
    return _WAY_OUT if damaged else _REMEDY


def _checked(row: SetRow) -> SetRow:
    """SQLite keeps any type in any column. Raises ValueError or TypeError."""
    for path in (row.shadow, row.bitmap, row.master or "/"):
        if not path.startswith("/") or "\0" in path:
            raise ValueError(f"{path!r} is no path")
    if not isinstance(row.size_bytes, int) or not 0 < row.size_bytes < 1 << 60:
        raise ValueError(f"a volume of {row.size_bytes} bytes")
    if not all(isinstance(text, str | None) for text in (row.group, row.doubt)):
        raise TypeError("a text that is none")
    numbers = (row.session, row.previous or 0, row.closing, row.sequence >> 30)
    if not all(isinstance(n, int) and 0 <= n < 1 << 32 for n in numbers):
        raise TypeError("a session or a number that is none")
    if (row.custody is Custody.IMPORTED) != (row.master is None):
        raise ValueError("a master that does not go with the custody")
    return row
