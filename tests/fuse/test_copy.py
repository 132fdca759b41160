"""The background copy: holes, live writers, abort and resume; what both files read meanwhile."""

import os
import random
import shutil
import subprocess
import threading
import time

import pytest
from devices import allocated, opened, pattern
from harness import CHUNK

GIB = 1 << 30


def same(a, b):
    """Are two files equal?"""
    return subprocess.run(["cmp", a, b], check=False).returncode == 0


@pytest.fixture
def big(disk_place):
    """A volume of 256 MiB, so that its copy can be met under way."""

    def make(name="big", size=256 << 20):
        path = disk_place / name
        path.write_bytes(pattern(size))
        return path

    return make


# -- holes ------------------------------------------------------------------------------------


def sparse(path, size, *extents):
    """A file of holes but for some extents of data."""
    with path.open("wb") as file:
        file.truncate(size)
        for at, length in extents:
            file.seek(at)
            file.write(os.urandom(length))
    return path


def test_copy_of_a_sparse_master_leaves_the_holes_out(service, disk_place):
    extents = [(0, 5000), (777 << 20, 100_000), ((2 << 30) - 4096, 4096)]
    master = sparse(disk_place / "m", 2 * GIB, *extents)
    shadow = disk_place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert allocated(shadow) < 1 << 20
    service.stop()
    with master.open("rb") as a, shadow.open("rb") as b:
        for at, length in [*extents, (GIB, 1 << 20)]:
            a.seek(at)
            b.seek(at)
            assert a.read(length) == b.read(length)


def test_dirty_shadow_reads_zeros_where_the_master_has_holes(service, disk_place):
    size = 64 << 20
    master = sparse(disk_place / "m", size, (CHUNK * 5 + 100, 40_000), (size - 70_000, 70_000))
    shadow = disk_place / "s"
    shadow.write_bytes(os.urandom(size))
    service.enable("ind", master, shadow)
    assert same(service.path(master), service.path(shadow))
    service.wait(shadow)
    assert same(service.path(master), service.path(shadow))
    service.stop()
    assert same(master, shadow)
    assert allocated(shadow) >= size - (1 << 20)  # its space was reserved and stays so


def test_hole_in_the_shadow_becomes_zeros_of_the_master(service, disk_place):
    size = 16 << 20
    master = disk_place / "m"
    master.write_bytes(bytes(size))
    shadow = disk_place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 3 << 20, os.urandom(5 << 20))
    service.flip("m", shadow, full=True)
    assert service.read(master) == bytes(size)
    service.wait(shadow)
    service.stop()
    assert master.read_bytes() == bytes(size)


def test_huge_sparse_master_is_copied_in_moments(service, disk_place):
    size = 200 * GIB
    master = sparse(disk_place / "m", size, (0, 4096), (123 * GIB + 5, 50_000), (size - 1, 1))
    shadow = disk_place / "s"
    began = time.monotonic()
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert time.monotonic() - began < 60
    assert allocated(shadow) < 1 << 20
    service.write(master, 77 * GIB, b"far inside")
    service.write(shadow, 150 * GIB, b"on the other side")
    assert service.status(shadow).shadow_bits == 2
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.status(shadow).copied_chunks == 2
    with opened(service.path(shadow)) as fd, opened(master) as raw:
        assert os.pread(fd, 10, 77 * GIB) == b"far inside"
        assert os.pread(fd, 17, 150 * GIB) == bytes(17)
        assert os.pread(fd, 10, size - 1) == os.pread(raw, 10, size - 1) != b"\0"
    assert service.stop() == 0


# -- both files read as the result ------------------------------------------------------------


class Writer(threading.Thread):
    """Writes to a file of the mount until told to stop; `truth` is what it must hold then."""

    def __init__(self, file, truth, seed):
        super().__init__()
        self.file, self.truth, self.dice = file, bytearray(truth), random.Random(seed)
        self.enough = threading.Event()
        self.failure = None

    def run(self):
        try:
            with opened(self.file) as fd:
                while not self.enough.is_set():
                    self.turn(fd)
        except Exception as error:
            self.failure = error

    def turn(self, fd):
        dice = self.dice
        at = dice.randrange(len(self.truth) - 70_000)
        length = dice.choice([512, 4096, 66_000])
        if dice.random() < 0.5:
            data = dice.randbytes(length)
            assert os.pwrite(fd, data, at) == length
            self.truth[at : at + length] = data
        else:
            assert os.pread(fd, length, at) == self.truth[at : at + length], f"read at {at}"

    def finish(self):
        self.enough.set()
        self.join(30)
        assert self.failure is None, self.failure
        return bytes(self.truth)


def writers(service, *pairs):
    """Writers on several files, started."""
    found = [Writer(service.path(path), truth, n) for n, (path, truth) in enumerate(pairs)]
    for writer in found:
        writer.start()
    return found


@pytest.mark.sampled(2)
@pytest.mark.parametrize("direction", ["s", "m"])
@pytest.mark.parametrize("full", [False, True], ids=["update", "copy"])
def test_copy_beside_live_writers_reads_as_the_result(service, big, disk_place, direction, full):
    master, shadow = big(size=96 << 20), disk_place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    before = writers(service, (master, master.read_bytes()), (shadow, master.read_bytes()))
    before[0].join(0.5)
    truths = [writer.finish() for writer in before]
    service.flip(direction, shadow, full=full)
    truth = truths[0] if direction == "s" else truths[1]
    both = writers(service, (master, truth), (shadow, truth))
    service.wait(shadow)
    live = [writer.finish() for writer in both]
    assert service.read(master) == live[0]
    assert service.read(shadow) == live[1]
    service.restart()
    assert service.read(master) == live[0]
    assert service.read(shadow) == live[1]
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == live[0]
    service.stop()
    assert same(master, shadow)


def test_first_copy_beside_live_writers_keeps_the_point_in_time(service, big, disk_place):
    master, shadow = big(), disk_place / "s"
    start = master.read_bytes()
    service.enable("ind", master, shadow)
    assert service.status(shadow).copying
    both = writers(service, (master, start), (shadow, start))
    service.wait(shadow)
    live = [writer.finish() for writer in both]
    assert service.read(master) == live[0]
    assert service.read(shadow) == live[1]


def test_update_during_the_first_copy_shows_the_newer_point_in_time(service, big, disk_place):
    master, shadow = big(), disk_place / "s"
    service.enable("ind", master, shadow)
    service.write(master, 100 << 20, b"between the two")
    service.flip("s", shadow)
    assert service.status(shadow).pit == 2
    want = service.read(master)
    service.write(master, 200 << 20, b"too late for both")
    assert service.read(shadow) == want
    service.wait(shadow)
    assert service.read(shadow) == want
    assert service.status(shadow).shadow_bits == 1


# -- abort and resume -------------------------------------------------------------------------


def test_aborted_copy_reads_right_and_resumes_with_what_is_left(service, big, disk_place):
    master, shadow = big(), disk_place / "s"
    service.enable("ind", master, shadow)
    service.abort(shadow)
    status = service.status(shadow)
    assert (status.progress, status.copying) == ("to_shadow", False)
    assert 0 < status.copy_bits < status.chunks
    pit = master.read_bytes()
    both = writers(service, (master, pit), (shadow, pit))
    both[0].join(0.3)
    live = [writer.finish() for writer in both]
    assert [service.read(v) for v in (master, shadow)] == live
    left = service.status(shadow)
    service.flip("s", shadow)
    assert service.read(shadow) == live[0]
    service.wait(shadow)
    assert service.read(shadow) == live[0]
    assert service.status(shadow).copied_chunks <= left.copy_bits + left.shadow_bits


def test_aborted_restore_reads_right_and_goes_on_to_the_same_result(service, big, disk_place):
    master, shadow = big(), disk_place / "s"
    pit = master.read_bytes()
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 0, os.urandom(1 << 20))
    service.flip("m", shadow, full=True)
    service.abort(shadow)
    status = service.status(shadow)
    assert (status.progress, status.copying) == ("to_master", False)
    both = writers(service, (master, pit), (shadow, pit))
    both[0].join(0.3)
    live = [writer.finish() for writer in both]
    assert [service.read(v) for v in (master, shadow)] == live
    service.flip("m", shadow)
    assert service.status(shadow).pit == status.pit
    service.wait(shadow)
    assert [service.read(v) for v in (master, shadow)] == live


def test_disabled_aborted_copy_is_wiped_at_the_beginning(service, big, disk_place):
    master, shadow = big(), disk_place / "s"
    service.enable("ind", master, shadow)
    service.abort(shadow)
    done = service.run("iiadm", "-d", shadow)
    assert done.returncode == 0
    assert "wiped" in done.stderr
    assert shadow.read_bytes()[:65536] == bytes(65536)


# -- siblings ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_restore_of_one_shadow_leaves_the_others_point_in_time(service, big, disk_place, kind):
    master = big(size=32 << 20)
    first, second, third = (disk_place / n for n in ("first", "second", "third"))
    service.enable("ind", master, first)
    service.wait(first)
    old = master.read_bytes()
    service.write(master, 5 << 20, os.urandom(3 << 20))
    service.enable(kind, master, second)
    service.wait(second)
    middle = service.read(master)
    service.write(master, 7 << 20, os.urandom(6 << 20))
    service.enable("dep", master, third)
    new = service.read(master)
    service.flip("m", first)
    live = writers(service, (master, old))
    service.wait(first)
    want = live[0].finish()
    assert service.read(first) == old
    assert service.read(second) == middle
    assert service.read(third) == new
    assert service.read(master) == want
    service.restart()
    assert [service.read(v) for v in (first, second, third)] == [old, middle, new]
    service.flip("m", third)
    service.wait(third)
    assert service.read(master) == service.read(third) == new
    assert [service.read(v) for v in (first, second)] == [old, middle]


def test_copy_to_a_larger_shadow_leaves_its_end_alone(service, big, disk_place):
    master, shadow = big(size=(1 << 20) + 77), disk_place / "s"
    shadow.write_bytes(b"\xee" * (2 << 20))
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.path(shadow).stat().st_size == (1 << 20) + 77
    service.stop()
    assert shadow.read_bytes() == master.read_bytes() + b"\xee" * ((1 << 20) - 77)


def test_disk_full_on_the_shadow_stops_the_copy_not_the_master(service, volume, place):
    """The shadow's file system is full: it goes offline with the reason; programs go on."""
    small = place / "fs" / "small"
    small.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], check=True)
    try:
        master, shadow = volume("m", 4 << 20), small / "s"
        service.enable("ind", master, shadow, place / "b")
        done = service.run("iiadm", "-w", shadow)
        assert done.returncode == 1
        status = service.status(shadow)
        assert status.offline == ("shadow",)
        assert "no room on the file system" in status.offline_reason
        service.write(master, 2 << 20, b"goes on")
        assert service.read(master)[2 << 20 :][:7] == b"goes on"
        assert service.stop() == 0
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)
    shutil.rmtree(small)
