"""What the service manages comes back, in order, after any end."""

import os
import resource
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from uuid import UUID

import pytest

from iifuse import errors
from iifuse.core.event import Event
from iifuse.core.state import Custody, Kind, Progress
from iifuse.store.setrow import SetRow
from iifuse.store.statedb import StateDB

SIZE = 1 << 20
ONE = SetRow("/s1", UUID(int=1), "/m", "/b1", None, SIZE, Kind.INDEPENDENT)
TWO = SetRow("/s2", UUID(int=2), "/m", "/b2", "grp", SIZE, Kind.DEPENDENT)
LENT = SetRow(
    "/s3", UUID(int=3), None, "/b3", None, SIZE, Kind.INDEPENDENT, custody=Custody.IMPORTED
)


def event(subject, what, pit=None, **more):
    return Event("2026-01-02T03:04:05.678Z", subject, what, pit, **more)


@pytest.fixture
def db(place):
    opened = StateDB(str(place))
    yield opened
    opened.close()


def reopened(place) -> StateDB:
    return StateDB(str(place))


def test_state_sets_come_back_in_the_order_of_their_enabling(db, place):
    for row in (TWO, LENT, ONE):
        db.add_set(row)
    other = reopened(place)
    assert other.sets() == [TWO, LENT, ONE]
    other.close()
    db.remove_set("/s3")
    db.remove_set("/never/was")
    assert db.sets() == [TWO, ONE]


def test_state_knows_what_the_shadow_of_a_set_that_was_still_holds(db):
    db.add_set(ONE)
    db.give_up("/s1", 7)
    db.remove_set("/s1")
    assert db.rest_of("/s1") == 7
    db.add_set(replace(ONE, master="/other", entering=True))
    db.remove_set("/s1")  # an enable that was refused after all
    assert (db.rest_of("/s1"), db.former("/s1")) == (7, [("/m", "/s1")])
    db.add_set(ONE)
    db.remove_set("/s1")
    assert db.rest_of("/s1") == 0


def test_state_knows_the_last_group_command_that_failed(db, place):
    assert db.disowned() is None
    for key in (UUID(int=7), UUID(int=8)):
        db.disown(key)
        other = reopened(place)
        assert other.disowned() == key
        other.close()
    with closing(sqlite3.connect(place / "state.db", isolation_level=None)) as other:
        other.execute("UPDATE disowned SET \"transition\" = 'no name'")
    with pytest.raises(errors.ServiceError, match="name of a group command is damaged"):
        db.disowned()


def test_state_set_and_its_doubt_are_entered_together(db):
    """F15: a crash in between would let a start believe what the doubt is about."""
    statements: list[str] = []
    db._db.set_trace_callback(statements.append)
    db.add_set(replace(ONE, doubt="why"))
    assert len(statements) == 1
    assert db.sets()[0].doubt == "why"


def test_state_refuses_a_shadow_or_a_bitmap_twice(db):
    db.add_set(ONE)
    for row in (replace(TWO, shadow="/s1"), replace(TWO, bitmap="/b1")):
        with pytest.raises(errors.StorageError):
            db.add_set(row)
    assert db.sets() == [ONE]


def test_state_doubt_of_another_thread_is_no_part_of_a_session_change_that_fails(db, monkeypatch):
    """F13: it was durable when it returned; a rollback beside it takes nothing of it back."""
    db.add_set(ONE)
    db.add_set(TWO)
    threads: list[threading.Thread] = []
    run = db._run

    def run_and_interfere(statement, values=()):
        done = run(statement, values)
        if statement.startswith("UPDATE sets SET session") and not threads:
            threads.append(threading.Thread(target=db.doubt, args=("/s2", "why")))
            threads[0].start()
            threads[0].join(0.5)
        return done

    monkeypatch.setattr(db, "_run", run_and_interfere)
    with pytest.raises(errors.StorageError):
        db.begin_session(5, {"/s1": 1, "/s2": object()})
    threads[0].join()
    assert [row.doubt for row in db.sets()] == [None, "why"]
    assert [row.session for row in db.sets()] == [0, 0]


def test_state_moves_all_sets_or_none(db):
    for row in (ONE, TWO):
        db.add_set(row)
    db.move_sets(["/s1", "/s2"], "night")
    assert [row.group for row in db.sets()] == ["night", "night"]
    with pytest.raises(errors.StorageError):
        db.move_sets(["/s1", object()], "day")  # type: ignore[list-item]
    assert [row.group for row in db.sets()] == ["night", "night"]
    db.move_sets(["/s2"], None)
    assert [row.group for row in db.sets()] == ["night", None]


def test_state_change_is_durable_without_a_close(db, place):
    """As kill -9 leaves it: another connection reads the file as it is."""
    db.add_set(ONE)
    db.add_volumes(["/v"])
    with sqlite3.connect(f"file:{place}/state.db?mode=ro", uri=True) as other:
        assert other.execute("SELECT shadow FROM sets").fetchall() == [("/s1",)]
        assert other.execute("SELECT path FROM volumes").fetchall() == [("/v",)]


def test_state_volumes_are_kept_once(db):
    for path in ("/b", "/a", "/b"):
        db.add_volumes([path])
    assert db.volumes() == ["/a", "/b"]
    db.remove_volumes(["/a"])
    assert db.volumes() == ["/b"]


def test_state_history_tells_every_pit_in_order(db):
    db.record([event("/s1", "-e", 1, held_ms=0.5), event("/s2", "-e", 1)])
    db.record([event("/s1", "-u s", 2, held_ms=1.5)])
    db.record([event("/s1", "copied", 2, chunks=77)])
    assert db.history("/s1") == [("-e", 1), ("-u s", 2), ("copied", 2)]


def test_state_of_a_later_version_or_of_no_database_is_refused(place):
    os.makedirs(place / "later")
    with sqlite3.connect(place / "later" / "state.db") as other:
        other.execute("PRAGMA user_version=7")
    with pytest.raises(errors.ServiceError, match="version 7"):
        StateDB(str(place / "later"))
    os.makedirs(place / "junk")
    (place / "junk" / "state.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(errors.ServiceError, match="cannot be used"):
        StateDB(str(place / "junk"))


def test_state_database_and_its_journal_are_private(db, place):
    for name in ("state.db", "state.db-journal"):
        assert (place / name).stat().st_mode & 0o777 == 0o600


OF_0_1_0 = """
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
"""What version 0.1.0 made, word for word."""


def _old_state(place, version: int) -> None:
    with closing(sqlite3.connect(place / "state.db", isolation_level=None)) as old:
        old.executescript(OF_0_1_0)
        old.execute(f"PRAGMA user_version={version}")
        old.execute(
            "INSERT INTO sets (shadow, uuid, size_bytes, kind, progress, custody, doubt, session, "
            "sequence, master, bitmap) VALUES ('/s1', ?, ?, 1, 1, 0, 'why', 9, 77, '/m', '/b1')",
            (str(UUID(int=1)), SIZE),
        )
        old.execute("INSERT INTO volumes VALUES ('/v')")
        old.execute("INSERT INTO history (shadow, event, pit) VALUES ('/s1', '-e ind', 1)")


@pytest.mark.parametrize("version", [0, 2])
def test_state_of_0_1_0_comes_up_whole_and_is_refused_by_it_from_then_on(place, version):
    """Version 0: its very first start was cut short between the tables and the number."""
    _old_state(place, version)
    for _ in range(2):
        with closing(StateDB(str(place))) as db:
            doubted = replace(ONE, progress=Progress.TO_SHADOW, doubt="why", session=9, sequence=77)
            assert db.sets() == [doubted]
            assert db.volumes() == ["/v"]
            assert db.history("/s1") == [("-e ind", 1)]
        with closing(sqlite3.connect(place / "state.db")) as made:
            (number,) = made.execute("PRAGMA user_version").fetchone()
            assert number == 3, "0.1.0 says then: format version 3 is not known here"
            rows = made.execute("SELECT * FROM volumes").fetchall()
            assert rows == [("/v", *[0] * 8)], "a time or a number of 0 is unknown"


@contextmanager
def _files_up_to(size_bytes: int) -> Iterator[None]:
    """Nothing can be written after so many bytes of a file, as on a full file system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_state_of_0_1_0_stays_what_it_is_when_the_upgrade_finds_no_room(place):
    _old_state(place, 2)
    before = (place / "state.db").read_bytes()
    with _files_up_to(2048), pytest.raises(errors.IifuseError, match="; make room in"):
        StateDB(str(place))
    with closing(sqlite3.connect(place / "state.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
        assert len(db.execute("PRAGMA table_info(volumes)").fetchall()) == 1
    assert (place / "state.db").read_bytes() == before


def test_state_that_changes_nothing_writes_nothing(db, place):
    """A start on a full file system goes well."""
    before = (place / "state.db").read_bytes(), (place / "state.db-journal").read_bytes()
    reopened(place).close()
    assert before == (
        (place / "state.db").read_bytes(), (place / "state.db-journal").read_bytes()
    )  # fmt: skip


def test_state_announcement_is_written_although_it_says_what_is_known(db, place):
    """SQLite leaves out a change to what is there already, also where none can be made."""
    db.add_set(ONE)
    for coming in (None, (ONE.progress, ONE.custody)):
        with pytest.raises(errors.StorageError), _files_up_to(0):
            db.announce({"/s1": coming})
        db.announce({"/s1": coming})
    assert db.sets() == [ONE]


def test_state_announcement_is_of_all_sets_or_of_none(db):
    db.add_set(ONE)
    with pytest.raises(errors.StorageError, match="does not know /s9"):
        db.announce({"/s1": (Progress.TO_SHADOW, ONE.custody), "/s9": None})
    assert db.sets() == [ONE]
    db.announce({"/s1": (Progress.TO_MASTER, Custody.EXPORTED)})
    assert db.sets() == [replace(ONE, progress=Progress.TO_MASTER, custody=Custody.EXPORTED)]


def test_state_keeps_room_for_changes_and_lets_the_history_have_none_of_it(db, place):
    """K1: with no byte free, what decides over sets can still be noted."""
    db.add_set(ONE)
    most = max((place / name).stat().st_size for name in ("state.db", "state.db-journal"))
    with _files_up_to((place / "state.db").stat().st_size):
        with pytest.raises(errors.StorageError):
            for number in range(10_000):
                db.record([event("/s1", "an event of some length" * 10, number)])
        for number in range(50):
            db.announce({"/s1": (Progress.TO_SHADOW, ONE.custody)})
            db.doubt("/s1", "its bitmap failed " * number)
        db.add_set(TWO)
        db.remove_set("/s1")
    assert most <= 1 << 18
    assert db.sets() == [TWO]
