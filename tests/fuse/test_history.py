"""Whatever was done, and what has happened by itself, can be read afterwards."""

import json
import os
import re
import sqlite3
from contextlib import closing

import pytest
from devices import eventually
from harness import CHUNK

from iifuse.control import protocol
from iifuse.store.historyrows import ROWS_MAX

CHUNKS = 40
SIZE = CHUNKS * CHUNK


@pytest.fixture
def night(service, volume, place):
    """Everything that is done to a set, with one refusal; (master, shadow)."""
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 0, b"changed")
    service.write(master, 7 * CHUNK, b"changed")
    service.flip("s", shadow)
    service.wait(shadow)
    service.flip("m", shadow, full=True)
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    assert service.run("iiadm", "-E", shadow).returncode == 2
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0
    service.disable(shadow)
    return master, shadow


def events(service, *words):
    done = service.run("iiadm", "--history", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["history"]


@pytest.mark.finding("K11.3")
def test_history_of_a_set_that_is_no_more_tells_all_of_its_night(service, night):
    _, shadow = night
    found = events(service, shadow)
    assert [event["event"] for event in found] == [
        "enable, independent", "copied", "update of the shadow", "copied",
        "restore, full copy to the master", "copied", "export", "reset", "disable",
    ]  # fmt: skip
    assert [event["pit"] for event in found] == [1, 1, 2, 2, 3, 3, 3, 3, 3]
    assert {event["subject"] for event in found} == {str(shadow)}
    assert len({event["pit_id"] for event in found}) == 3
    times = [event["time"] for event in found]
    assert times == sorted(times)


def test_history_says_how_long_writes_were_held_and_what_was_copied(service, night):
    _, shadow = night
    found = events(service, shadow)
    held = [event for event in found if event["held_ms"] is not None]
    assert [event["pit"] for event in held] == [1, 2, 3]
    assert all(0 < event["held_ms"] < 10_000 for event in held)
    copies = [event for event in found if event["event"] == "copied"]
    assert [event["chunks"] for event in copies] == [CHUNKS, 2, CHUNKS]
    assert [event["bytes"] for event in copies] == [SIZE, 2 * CHUNK, SIZE]
    assert all(0 <= event["seconds"] < 60 for event in copies)


def test_history_has_the_reason_of_every_full_copy(service, night):
    _, shadow = night
    reasons = [e["why"] for e in events(service, shadow) if "everything" in (e["why"] or "")]
    assert reasons == [
        "everything is copied: the set is new", "everything is copied, as -c m asks for",
    ]  # fmt: skip


def test_history_without_names_tells_of_the_service_and_of_volumes(service, night, volume):
    master, shadow = night
    plain = volume("plain", SIZE)
    assert service.run("svadm", "-e", plain).returncode == 0
    assert service.run("svadm", "-d", plain).returncode == 0
    service.restart()
    found = [(e["subject"], e["event"], e["why"]) for e in events(service)]
    assert [subject for subject, *_ in found if subject == str(shadow)]
    assert (str(plain), "volume added", None) in found
    assert (str(plain), "volume released", None) in found
    own = [(event, why) for subject, event, why in found if subject is None]
    assert [event for event, _ in own] == ["service started", "service stopped", "service started"]
    assert all(re.fullmatch(r"version \S+, 0 sets", why) for _, why in own)
    assert {subject for subject, *_ in found} == {str(shadow), str(plain), None}
    assert service.run("iiadm", "--history", master).returncode == 2, "it has no lines of its own"


def test_history_is_told_to_people_in_lines(service, night):
    _, shadow = night
    lines = service.run("iiadm", "--history", shadow).stdout.splitlines()
    what = rf"{shadow}: copied \(point in time 2\); 2 chunks"
    pattern = rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d \S+ {what}"
    assert [line for line in lines if re.match(pattern, line)] == [lines[3]]


def test_history_tells_of_a_volume_that_is_late_and_of_one_that_is_lost(service, volume, place):
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("dep", master, shadow)
    service.stop()
    shadow.rename(place / "away")
    service.start()
    (place / "away").rename(shadow)

    def found():
        return {event["event"]: event["why"] for event in events(service, shadow)}

    eventually(lambda: "volume back" in found(), "the shadow")
    assert "is not there" in found()["volume missing"] or "No such" in found()["volume missing"]
    assert found()["volume back"] == "the shadow"
    service.stop()
    shadow.unlink()
    shadow.write_bytes(os.urandom(SIZE))
    service.start()
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0
    assert "shadow" in found()["offline"]
    assert found()["reset"] is None or "everything" not in found()["reset"], "nothing is copied"


def test_history_tells_of_a_copy_that_is_aborted_and_of_its_restore_that_goes_on(
    service, volume, place
):
    master, shadow = volume("m", 64 << 20), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.leave_restore_aborted(shadow)
    service.flip("m", shadow, full=True)
    service.wait(shadow)
    began, aborted, goes_on, copied = events(service, shadow)[-4:]
    assert began["event"] == "restore, full copy to the master"
    assert [aborted["event"], goes_on["event"]] == ["copy aborted", "restore goes on"]
    assert copied["event"] == "copied"
    assert began["pit"] == aborted["pit"] == goes_on["pit"] == copied["pit"]
    assert aborted["chunks"] < copied["chunks"] == (64 << 20) // CHUNK
    assert aborted["seconds"] is not None


def test_history_of_a_set_is_found_by_its_other_names(service, volume, place):
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("dep", master, shadow, group="night")
    for words in ((master,), (service.path(shadow),), (f"{shadow}.bmp",), ("-g", "night")):
        assert [event["event"] for event in events(service, *words)] == ["enable, dependent"]
    assert service.run("iiadm", "--history", place / "never").returncode == 2


def test_history_tells_what_a_comparison_has_found(service, volume, place):
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.client.notes(protocol.MarkChanged(str(shadow), ((3, 2), (9, 1))))
    service.client.notes(protocol.MarkChanged(str(shadow), ()))
    found = events(service, shadow)[-1]
    assert (found["event"], found["chunks"]) == ("marked as different", 3)
    assert len(events(service, shadow)) == 3


@pytest.mark.finding("K11.2")
def test_large_history_of_an_older_version_is_shortened_beside_the_service(service, place):
    service.stop()
    with closing(sqlite3.connect(service.state / "state.db", isolation_level=None)) as db:
        db.execute(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
            "INSERT INTO history (shadow, event, pit) SELECT '/old', 'copied', i FROM n",
            (ROWS_MAX + 900,),
        )
    service.start()
    assert service.client.status() == []

    def rows():
        with closing(sqlite3.connect(service.state / "state.db")) as db:
            return db.execute("SELECT count(*) FROM history").fetchone()[0]

    eventually(lambda: rows() <= ROWS_MAX, "the steps")
    request = protocol.History(protocol.Target(("/old",)))
    assert len(service.client.call(request, list[protocol.HistoryRow])) == 1000
