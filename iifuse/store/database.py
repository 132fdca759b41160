"""The SQLite file of the state directory: its format, and how a change becomes durable.

A change is durable when the method returns, even over a power loss. So SQLite keeps its journal
file (`journal_mode=PERSIST`). Then a change counts from the moment at which the first bytes of the
journal are zeroed and synced. In SQLite's usual mode a change counts from the removal of the
journal, and SQLite syncs that removal only with `synchronous=EXTRA`. Without it, the journal came
back after a power loss and undid the last change. EXTRA alone would be enough. But a journal that
stays also has its space already, so small changes can be made while the file system is full. The
two names in the directory are made once, and synced at each start.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final

from iifuse import errors
from iifuse.store.files import sync_directory
from iifuse.store.transitions import REMEDY

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
"""The format of version 2 (0.1.0). What came later is in `_ADDED` and in the tables below."""

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

_DISOWNED: Final = """
CREATE TABLE IF NOT EXISTS disowned (  -- the last group command that failed, and whose record
    id INTEGER PRIMARY KEY CHECK (id = 1),  -- may stand in the file of them all the same
    "transition" TEXT NOT NULL
)
"""

_NUMBER: Final = "INTEGER NOT NULL DEFAULT 0"
_NUMBERS: Final = {
    "sets": (
        "given_up",  # the point in time whose restore was given up
        "entering",  # its enable or import has begun, its header may not be there yet
        "master_inode", "master_birth_ns", "shadow_inode", "shadow_birth_ns",  # as in the header
        "bitmap_inode", "bitmap_birth_ns",
        "announced",  # how many verbs have been: SQLite writes nothing where nothing changes
    ),
    "former": ("given_up",),  # as in sets, if the shadow still holds the rest of it
    "volumes": (  # of one with no set: its times and what identifies it, as a header has them
        "mtime_ns", "ctime_ns", "ceiling_ns", "inode", "birth_ns", "size_bytes",
        "raw_mtime_ns", "raw_ctime_ns",
    ),
}  # fmt: skip
_ADDED: Final = {
    **{table: dict.fromkeys(columns, _NUMBER) for table, columns in _NUMBERS.items()},
    "history": {"pit_id": "TEXT", "bytes": "INTEGER", "seconds": "REAL", "why": "TEXT"},
}
"""Columns that version 3 has and version 2 had not, and their types."""

_CHECKED_PAGES: Final = 1 << 14
"""Pages of the largest database that is checked as a whole: 64 MiB. In a larger one the history is
not checked, since it decides nothing. An early version kept all of it, and to check that would
delay every start."""

_ROOM_PAGES: Final = 16
_PAGE_BYTES: Final = 4096
_JOURNAL_BYTES: Final = 1 << 18
_OLD_VERSION: Final = 2
_VERSION: Final = 3
WAY_OUT: Final = "move it away, and bring the sets back by iiadm --attach and their bitmap volumes"
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FAILURES: Final = (sqlite3.Error, UnicodeError)
"""UnicodeError too: an error may contain a damaged name of a table, which Python cannot decode."""


class Database:
    """STATE/state.db. Every method blocks, and each change is durable when its method returns."""

    def __init__(self, directory: str) -> None:
        path = self._path = os.path.join(directory, "state.db")
        self._lock = threading.RLock()
        """Held during a transaction. Threads share the connection, so without it a transaction
        could contain a change of another thread."""
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
            self._make_room_if_any()
            sync_directory(path)
        except (*_FAILURES, OSError) as error:
            raise errors.ServiceError(path, f"cannot be used ({error})", _remedy(error)) from error

    def _check(self) -> None:
        """Raise ServiceError for a damaged database: it may lack a set, or a doubt about one."""
        for part in self._parts_to_check():
            found = self._db.execute(f"PRAGMA integrity_check{part}").fetchall()
            if found != [("ok",)]:
                raise errors.ServiceError(self._path, f"is damaged ({found[0][0]})", WAY_OUT)

    def _parts_to_check(self) -> list[str]:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if pages - free <= _CHECKED_PAGES:
            return [""]
        names = self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return [f"({name})" for (name,) in names if name != "history"]

    def _migrate(self, found: int) -> None:
        """Make the tables of this version. If they are there already, nothing is written."""
        if not found:
            for statement in _SCHEMA.split(";\n"):
                self._db.execute(statement)
        self._db.execute(_FORMER)
        self._db.execute(_IMPORTS)
        self._db.execute(_DISOWNED)
        for table, columns in _ADDED.items():
            there = {row[1] for row in self._db.execute(f"PRAGMA table_info({table})")}
            for column, kind in columns.items():
                if column not in there:
                    self._db.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind}")
        if found != _VERSION:
            self._db.execute(f"PRAGMA user_version={_VERSION}")

    def _make_room_if_any(self) -> None:
        with suppress(errors.StorageError, OSError):  # then some changes may be refused later
            self._make_room()

    def _make_room(self) -> None:
        """Allocate space for later changes, so that they can be made while the file system is full.

        They need free pages in the database, and space in the journal. Raises StorageError,
        OSError.
        """
        if self._free_pages() < _ROOM_PAGES // 2:
            for statement in (
                "DROP TABLE IF EXISTS room",
                f"CREATE TABLE room AS SELECT zeroblob({_ROOM_PAGES * _PAGE_BYTES}) AS pages",
                "DROP TABLE room",  # in a second step, because the pages have to be written first
            ):
                self._run(statement)
        journal = os.open(f"{self._path}-journal", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(journal, "rb+") as file:
            if os.fstat(file.fileno()).st_size < _JOURNAL_BYTES:
                os.posix_fallocate(file.fileno(), 0, _JOURNAL_BYTES)
                os.fsync(file.fileno())

    def _free_pages(self) -> int:
        ((found,),) = self._rows("PRAGMA freelist_count")
        return int(found)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Make several statements one transaction: all of them count or none."""
        with self._lock:
            self._run("BEGIN")
            try:
                yield
                self._run("COMMIT")
            except BaseException:
                self._db.rollback()
                raise

    def _rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows that a SELECT finds. Raises StorageError."""
        try:
            return self._db.execute(query, values).fetchall()
        except _FAILURES as error:
            raise errors.StorageError(self._path, str(error), _remedy(error)) from error

    def _run(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Execute one statement as a transaction. Raises StorageError."""
        try:
            with self._lock:
                return self._db.execute(statement, values)
        except _FAILURES as error:
            raise errors.StorageError(self._path, str(error), _remedy(error)) from error

    def close(self) -> None:
        """Close the database."""
        self._db.close()


def _make_private(path: str) -> None:
    """Make the file, readable for its owner only. SQLite gives the journal the same mode."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    os.chmod(path, 0o600)


def _remedy(error: Exception) -> str:
    """What to do about a failure of SQLite."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    damaged = isinstance(error, UnicodeError) or code in _DAMAGED
    return WAY_OUT if damaged else REMEDY
