"""`iiadm --history`: one line an event, or JSON, of everything that the service knows."""

import json
import time

import msgspec
import pytest

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import HistoryRow, Target

PLAIN = HistoryRow(
    1, "2026-07-01T10:20:30.123Z", "/s", "disable", *[None] * 7
)  # fmt: skip


@pytest.fixture(autouse=True)
def zone(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def event(**fields):
    return msgspec.structs.replace(PLAIN, **fields)


LINES = {
    "/s: disable": PLAIN,
    "service started; version 1": event(subject=None, event="service started", why="version 1"),
    "/s: update of the shadow (point in time 7); writes were held for 0.25 ms": event(
        event="update of the shadow", pit=7, held_ms=0.25
    ),
    "/s: copied (point in time 7); 3 chunks (96 KiB) in 1.5 s": event(
        event="copied", pit=7, chunks=3, bytes=3 << 15, seconds=1.5
    ),
    "/s: join; 1 chunk (32 KiB); changed there": event(
        event="join", chunks=1, bytes=1 << 15, why="changed there"
    ),
    "/s\\x1b[2J: offline; why": event(subject="/s\x1b[2J", event="offline", why="why"),
}


def test_history_is_one_line_an_event_in_local_time(run, service):
    service.on(protocol.History, list(LINES.values()), [])
    ended = run("iiadm", "--history")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [f"2026-07-01 12:20:30 CEST {line}" for line in LINES]


def test_history_in_json_has_every_member(run, service):
    service.on(protocol.History, [PLAIN], [])
    (found,) = json.loads(run("iiadm", "--history", "/s", "--json").out)["history"]
    assert found == {**msgspec.to_builtins(PLAIN)}


def test_history_is_asked_for_until_there_is_no_more(run, service):
    rows = [event(number=number) for number in (3, 4, 9)]
    service.on(protocol.History, rows[:2], rows[2:], [])
    assert len(run("iiadm", "--history", "/s,/t").out.splitlines()) == 3
    target = Target(("/s", "/t"))
    asked = [protocol.History(target, after) for after in (0, 4, 9)]
    assert service.asked(protocol.History) == asked


@pytest.mark.parametrize(
    ("words", "target"),
    [((), Target()), (("-g", "G"), Target(group="G")), (("/s",), Target(("/s",)))],
)
def test_history_of_what_is_named(run, service, words, target):
    service.on(protocol.History, [])
    ended = run("iiadm", "--history", *words)
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert service.asked(protocol.History) == [protocol.History(target)]


@pytest.mark.parametrize(
    ("last", "shown"), [("1", ["c"]), ("2", ["b", "c"]), ("9", ["a", "b", "c"])]
)
def test_last_events_of_the_history_oldest_first(run, service, last, shown):
    rows = [event(number=number, event=name) for number, name in enumerate("abc", 1)]
    service.on(protocol.History, rows, [])
    lines = run("iiadm", "--history", "--last", last).out.splitlines()
    assert [line.split()[-1] for line in lines] == shown


def test_history_of_an_unknown_set_is_an_error(run, service):
    service.on(protocol.History, errors.NotFound("/s", "no such set"))
    assert run("iiadm", "--history", "/s").code == 2
