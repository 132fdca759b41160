"""The times of the files on the mount follow their content; backup programs go by them."""

import os
import subprocess
import time
from itertools import pairwise

import pytest
from devices import Mapping, eventually, opened
from filetimes import moved, recorded, times, wait_quiet
from harness import CHUNK

OPTIONS = ["stop_wait=2", "in_place", "durability=process", "writeback_cache"]
LONG_AGO = 1_500_000_000_000_000_000


@pytest.fixture
def pair(service, volume, place):
    """Master and shadow of a dependent set, and its bitmap volume."""
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    service.enable("dep", master, shadow)
    return master, shadow, place / "v.shadow.bmp"


# -- what moves them --------------------------------------------------------------------------


@pytest.mark.finding("K2.1")
@pytest.mark.parametrize("option", OPTIONS)
def test_times_move_with_every_write_before_it_is_answered(new_service, volume, place, option):
    service = new_service("timed", option)
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    in_place = option == "in_place"
    for file in (service.path(master), service.path(shadow)):
        shown = [times(file)]
        with opened(file) as fd:
            for number in range(4):
                time.sleep(0.02)  # with writeback_cache the kernel's clock, which ticks
                os.pwrite(fd, b"%d" % number, number * CHUNK)
                shown.append(times(fd))
                assert times(file) == times(fd)
        assert all(moved(*two) for two in pairwise(shown)), shown
        assert not in_place or times(master) == times(service.path(master))


@pytest.mark.finding("K2.4")
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_times_move_with_a_point_in_time_although_they_were_looked_at_just_before(
    service, volume, place, kind
):
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    service.enable(kind, master, shadow)
    service.wait(shadow)
    for direction, target, source in (("s", shadow, master), ("m", master, shadow)) * 3:
        service.write(source, CHUNK, os.urandom(8))
        before = times(service.path(target))
        service.flip(direction, shadow)
        assert moved(before, times(service.path(target)))
        service.wait(shadow)


@pytest.mark.parametrize("option", ["stop_wait=2", "writeback_cache"])
def test_times_move_with_a_store_through_a_mapping(new_service, volume, place, option):
    service = new_service("timed", option)
    path = volume("v", 8 * CHUNK)
    assert service.run("svadm", "-e", path).returncode == 0
    with opened(service.path(path)) as fd, Mapping(fd, 8 * CHUNK) as memory:
        before = times(fd)
        time.sleep(0.02)
        memory.store(CHUNK, b"stored")
        memory.sync()
        os.fsync(fd)
        assert moved(before, times(fd))


def test_times_move_with_a_point_in_time_under_writeback_cache(new_service, volume, place):
    service = new_service("timed", "writeback_cache")
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    service.enable("dep", master, shadow)
    for _ in range(3):
        service.write(master, CHUNK, os.urandom(8))
        before = times(service.path(shadow))
        service.flip("s", shadow)
        after = times(service.path(shadow))
        assert after[0] > before[0]
        assert after[1] >= before[1]


def test_times_under_writeback_cache_outlast_a_restart(new_service, volume, place):
    """What the kernel has shown, not when its writes have arrived."""
    service = new_service("timed", "writeback_cache")
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    alone = volume("alone")
    assert service.run("svadm", "-e", alone).returncode == 0
    for end in (os.fsync, lambda fd: None):
        shown = {}
        for file in map(service.path, (master, shadow, alone)):
            with opened(file) as fd:
                os.pwrite(fd, os.urandom(8), CHUNK)
                time.sleep(0.05)  # what is written arrives later
                end(fd)
            shown[file] = times(file)
        service.restart()
        assert {file: times(file) for file in shown} == shown


def test_times_stay_with_a_point_in_time_that_changes_nothing(service, pair):
    master, shadow, _ = pair
    service.write(master, 0, b"x")
    service.flip("s", shadow)
    before = times(service.path(master)), times(service.path(shadow))
    service.flip("s", shadow)
    service.flip("m", shadow)
    assert (times(service.path(master)), times(service.path(shadow))) == before


def test_times_that_a_program_sets_are_shown_and_the_change_time_moves(service, pair):
    for volume in pair[:2]:
        file = service.path(volume)
        for asked in (LONG_AGO, LONG_AGO + 1, LONG_AGO, time.time_ns() + 10**13, LONG_AGO):
            before = times(file)
            os.utime(file, ns=(asked, asked))
            assert times(file)[0] == asked
            assert times(file)[1] > before[1]
        service.write(volume, 0, b"later")
        assert times(file)[0] > LONG_AGO


def test_cached_pages_stay_when_times_move(service, volume):
    path = volume("v", 64 * CHUNK)
    assert service.run("svadm", "-e", path).returncode == 0
    file = service.path(path)
    file.read_bytes()
    with opened(file) as fd, Mapping(fd, 64 * CHUNK) as memory:
        every = memory.resident()
        for number in range(3):
            os.pwrite(fd, b"new", number)
            os.fsync(fd)
            before = times(file)
            assert os.pread(fd, 3, number) == b"new"
            assert times(file) == before
            assert memory.resident() == every


# -- over the end of the service --------------------------------------------------------------


def both(service, pair):
    return [times(service.path(volume)) for volume in pair[:2]]


@pytest.mark.finding("K2.3")
def test_times_are_the_same_after_a_restart(service, pair, volume):
    alone = volume("alone")
    assert service.run("svadm", "-e", alone).returncode == 0
    service.write(pair[0], 0, b"x")
    service.flip("s", pair[1])
    service.write(alone, 0, b"x")
    os.utime(service.path(alone), ns=(LONG_AGO, LONG_AGO))
    shown = [*both(service, pair), times(service.path(alone))]
    service.restart()
    assert [*both(service, pair), times(service.path(alone))] == shown


def test_times_move_when_a_volume_was_written_past_the_service(service, pair, volume):
    alone = volume("alone")
    assert service.run("svadm", "-e", alone).returncode == 0
    shown = [*both(service, pair), times(service.path(alone))]
    service.stop()
    for path in (pair[0], alone):
        with path.open("r+b") as file:
            file.write(b"behind its back")
    service.start()
    assert moved(shown[0], times(service.path(pair[0])))
    assert moved(shown[2], times(service.path(alone)))


def test_times_after_a_kill_are_those_of_a_quiet_file_and_later_ones_of_another(
    service, pair, volume
):
    alone, still = volume("alone"), volume("still")
    assert service.run("svadm", "-e", alone, still).returncode == 0
    service.write(pair[1], 0, b"written, and quiet again")
    service.write(still, 0, b"written, and quiet again")
    wait_quiet(pair[2])
    eventually(lambda: not ceiling(service, still), "it is quiet")
    service.write(pair[0], 0, b"written and not")
    service.write(alone, 0, b"written and not")
    shown = [times(service.path(v)) for v in (*pair[:2], alone, still)]
    service.kill()
    service.start()
    found = [times(service.path(v)) for v in (*pair[:2], alone, still)]
    assert found[1] == shown[1]
    assert found[3] == shown[3]
    assert moved(shown[0], found[0])
    assert moved(shown[2], found[2])
    service.kill()
    service.start()
    assert [times(service.path(v)) for v in (*pair[:2], alone, still)] == found


def ceiling(service, path):
    db = subprocess.run(
        ["sqlite3", "-readonly", "-cmd", ".timeout 30000", service.state / "state.db",
         f"SELECT ceiling_ns FROM volumes WHERE path = '{path}'"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(db.stdout)


def test_times_are_recorded_in_every_set_of_the_master(service, pair, place):
    """Any one of them may be disabled or lost later."""
    second = place / "second"
    service.enable("ind", pair[0], second)
    bitmaps = pair[2], place / "second.bmp"
    wait_quiet(*bitmaps)
    assert len({recorded(bitmap)[0] for bitmap in bitmaps}) == 1
    service.write(pair[0], 0, b"x")
    assert all(recorded(bitmap)[0].ceiling_ns for bitmap in bitmaps)
    shown = times(service.path(pair[0]))
    service.disable(pair[1])
    service.kill()
    service.start()
    assert moved(shown, times(service.path(pair[0])))
