"""The history grows to no end, and damage in it is nobody's affair."""

import sqlite3
from contextlib import closing
from uuid import UUID

import pytest

from iifuse import errors
from iifuse.core.event import Event, timestamp
from iifuse.store import database, historyrows
from iifuse.store.historyrows import DAYS_MAX, ROWS_MAX, ROWS_MIN, STEP_ROWS
from iifuse.store.statedb import StateDB

DAY_S = 86_400
NOW_S = 1_800_000_000
BEFORE = timestamp(NOW_S - DAYS_MAX * DAY_S)
WHOLE = Event(timestamp(NOW_S), "/s1", "copied", 7, UUID(int=3), 1.5, 77, 77 << 15, 0.25, "why")


@pytest.fixture
def db(place):
    opened = StateDB(str(place))
    yield opened
    opened.close()


def change(place, statement):
    """What somebody else does to the database."""
    with closing(sqlite3.connect(place / "state.db", isolation_level=None)) as other:
        other.execute(statement)


def numbers(db):
    return [number for number, _ in db.events(None, 0, ROWS_MAX * 2)]


def add(db, count, time_s=NOW_S):
    db.record([Event(timestamp(time_s), "/s1", f"event {n}") for n in range(count)])


def prune_all(db):
    steps = 0
    while db.prune(BEFORE):
        steps += 1
    return steps


def test_history_gives_back_what_it_was_told_in_its_order(db):
    service = Event(timestamp(NOW_S), "", "service started")
    other = Event(timestamp(NOW_S), "/s2", "disable")
    db.record([service, WHOLE])
    db.record([other])
    assert db.events(None, 0, 9) == [(1, service), (2, WHOLE), (3, other)]
    assert db.events(["/s1", "/s3"], 0, 9) == [(2, WHOLE)]
    assert db.events(None, 1, 1) == [(2, WHOLE)]
    assert db.events(["/s1"], 2, 9) == []


def test_history_of_0_1_0_is_read_as_far_as_it_goes(place):
    with closing(sqlite3.connect(place / "state.db", isolation_level=None)) as old:
        old.executescript(database._SCHEMA)
        old.execute("PRAGMA user_version=2")
        old.execute(
            "INSERT INTO history VALUES ('2025-01-01T00:00:00.000Z', '/s1', '-e', 1, 0.5, NULL)"
        )
    with closing(StateDB(str(place))) as db:
        event = Event("2025-01-01T00:00:00.000Z", "/s1", "-e", 1, held_ms=0.5)
        assert db.events(None, 0, 9) == [(1, event)]
        db.record([WHOLE])
        assert db.events(None, 1, 9) == [(2, WHOLE)]


def test_damaged_line_of_the_history_is_shown_without_what_is_damaged(db, place):
    db.record([WHOLE])
    values = "pit = 'x', pit_id = 'y', held_ms = 'z', bytes = x'00', why = 5"
    change(place, f"UPDATE history SET {values}")
    ((_, event),) = db.events(None, 0, 9)
    assert (event.pit, event.pit_id, event.held_ms, event.bytes) == (None,) * 4
    assert (event.what, event.why) == ("copied", "5")


@pytest.mark.finding("K11.2")
def test_history_beyond_its_number_loses_the_oldest_a_few_at_a_time(db, monkeypatch):
    monkeypatch.setattr(historyrows, "ROWS_MAX", 2000)
    add(db, 2450)
    assert prune_all(db) == 3
    assert numbers(db) == list(range(451, 2451))
    add(db, 1)
    assert prune_all(db) == 1
    assert numbers(db) == list(range(452, 2452))


@pytest.mark.finding("K11.2")
def test_history_beyond_its_age_is_forgotten_but_for_the_newest(db, place):
    add(db, 300, NOW_S - (DAYS_MAX + 1) * DAY_S)
    add(db, 300, NOW_S - (DAYS_MAX - 1) * DAY_S)
    assert prune_all(db) == 0, "there are few"
    add(db, ROWS_MIN)
    assert prune_all(db) == 2
    assert numbers(db) == list(range(301, 601 + ROWS_MIN))
    change(place, "UPDATE history SET time = '1970'")
    prune_all(db)
    assert len(numbers(db)) == ROWS_MIN


def test_pruned_history_is_written_to_no_more(db, place):
    add(db, 10)
    before = (place / "state.db").read_bytes()
    assert prune_all(db) == 0
    assert (place / "state.db").read_bytes() == before


def test_step_of_pruning_fits_into_the_journal_that_is_there(db, place, monkeypatch):
    """So that it goes well on a full file system."""
    monkeypatch.setattr(historyrows, "ROWS_MAX", 10)
    monkeypatch.setattr(historyrows, "ROWS_MIN", 0)
    db.record([Event(BEFORE, "/s" * 100, "x" * 200, why="y" * 300) for _ in range(STEP_ROWS + 10)])
    journal = place / "state.db-journal"
    there = journal.stat().st_size
    assert db.prune(BEFORE)
    assert journal.stat().st_size == there


@pytest.mark.finding("K11.2")
def test_large_history_is_not_looked_through_at_a_start_and_damage_elsewhere_is_found(
    place, monkeypatch
):
    monkeypatch.setattr(database, "_CHECKED_PAGES", 50)
    with closing(StateDB(str(place))) as db:
        add(db, 20_000)
        statements = []
        db._db.set_trace_callback(statements.append)
        db._check()
    assert len(statements) > 5
    assert not any("history" in text for text in statements if "integrity_check" in text)
    with closing(sqlite3.connect(place / "state.db", isolation_level=None)) as other:
        (root,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'sets'").fetchone()
    with (place / "state.db").open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(bytes(4096))
    with pytest.raises(errors.ServiceError, match=r"damaged|malformed"):
        StateDB(str(place))
