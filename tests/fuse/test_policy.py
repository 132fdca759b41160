"""What a shadow that is full, fails or hangs means for the master, as the administrator chose."""

import contextlib
import errno
import os
import subprocess
import threading

import pytest
from devices import eventually
from filesystems import freeze, thaw
from harness import CHUNK

CHUNKS = 64


@pytest.fixture
def small(place):
    """A file system in memory for shadows; `small(mib)` mounts it."""
    with contextlib.ExitStack() as stack:

        def make(mib):
            at = place / "small"
            at.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "small", at], check=True)
            stack.callback(subprocess.run, ["umount", "-l", at], check=False)
            return at

        yield make


@pytest.fixture
def frozen(disk_place):
    """A file system for shadows that can be frozen: writes to it hang until it is thawed."""
    image, at = disk_place / "image", disk_place / "slow"
    at.mkdir()
    with open(image, "wb") as file:
        file.truncate(64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, at], check=True)
    try:
        yield at
    finally:
        subprocess.run(["fsfreeze", "-u", at], check=False, capture_output=True)
        subprocess.run(["umount", "-l", at], check=True)


def enabled(service, kind, master, shadow, bitmap, *options):
    done = service.run("iiadm", *options, "-e", kind, master, shadow, bitmap)
    assert done.returncode == 0, done.stderr


def write_all(service, master, first=0, count=CHUNKS):
    for chunk in range(first, first + count):
        service.write(master, chunk * CHUNK, b"new")


# -- break ------------------------------------------------------------------------------------


def test_break_write_fails_the_write_and_keeps_the_shadow_good(service, volume, place, small):
    """F7, F12: a full file system under a sparse shadow."""
    master, at = volume("m", CHUNKS * CHUNK), small(1)
    then = master.read_bytes()
    enabled(service, "dep", master, at / "s", place / "b", "-o", "break=write")
    with pytest.raises(OSError) as failed:
        write_all(service, master)
    assert failed.value.errno == errno.ENOSPC
    assert service.status(at / "s").offline == ()
    assert service.read(at / "s") == then
    subprocess.run(["mount", "-o", "remount,size=16m", at], check=True)
    write_all(service, master)
    assert service.read(at / "s") == then
    assert service.read(master)[:3] == b"new"
    service.restart()
    assert service.status(at / "s").break_write
    assert service.read(at / "s") == then


def test_break_write_stops_a_copy_that_finds_no_space(service, volume, place, small):
    master, at = volume("m", CHUNKS * CHUNK), small(1)
    enabled(service, "ind", master, at / "s", place / "b", "-obreak=write")
    eventually(lambda: not service.status(at / "s").copying, "the copy stops")
    assert service.status(at / "s").offline == ()
    assert service.status(at / "s").progress == "to_shadow"
    assert service.read(at / "s") == service.read(master)
    subprocess.run(["mount", "-o", "remount,size=16m", at], check=True)
    service.flip("s", at / "s")
    service.wait(at / "s")
    assert (at / "s").read_bytes() == master.read_bytes()


def test_break_shadow_is_what_a_set_has_at_first_and_can_be_chosen_again(
    service, volume, place, small
):
    """F7."""
    master, at = volume("m", CHUNKS * CHUNK), small(1)
    enabled(service, "dep", master, at / "s", place / "b", "-o", "break=write,limit=50")
    assert (service.status(at / "s").break_write, service.status(at / "s").limit_s) == (True, 50)
    assert "writes to the master fail" in service.run("iiadm", "-i", at / "s").stdout
    assert service.run("iiadm", "-o", "break=shadow,limit=none", at / "s").returncode == 0
    assert "writes to the master" not in service.run("iiadm", "-i", at / "s").stdout
    write_all(service, master)
    assert service.status(at / "s").offline == ("shadow",)
    assert "no room" in service.status(at / "s").offline_reason


# -- limit ------------------------------------------------------------------------------------


def test_slow_shadow_is_given_up_and_the_write_goes_on(service, volume, place, frozen):
    """F27, with a limit: nobody waits for a shadow that hangs for longer than was said."""
    master, shadow = volume("m", CHUNKS * CHUNK), frozen / "s"
    enabled(service, "dep", master, shadow, place / "b", "-o", "limit=1")
    freeze(frozen)
    write_all(service, master, count=3)
    assert service.status(shadow).offline == ("shadow",)
    assert "no answer within 1 s" in service.status(shadow).offline_reason
    for verb in ("-R", "-d"):
        refused = service.run("iiadm", "-n", verb, shadow)
        assert refused.returncode == 2
        assert "has not come back yet" in refused.stderr
    thaw(frozen)
    eventually(lambda: service.run("iiadm", "-R", shadow).returncode == 0, "-R works")
    then = service.read(master)
    write_all(service, master, 10, 20)
    assert service.read(shadow) == then


def test_slow_shadow_with_break_write_fails_writes_until_it_answers(service, volume, place, frozen):
    """Its late write must not come over what was allowed meanwhile, so nothing is."""
    master, shadow = volume("m", CHUNKS * CHUNK), frozen / "s"
    then = master.read_bytes()
    enabled(service, "dep", master, shadow, place / "b", "-o", "limit=1,break=write")
    freeze(frozen)
    for _ in range(2):
        with pytest.raises(OSError):
            service.write(master, 0, b"new")
    with pytest.raises(OSError):
        service.write(shadow, CHUNK, b"own")
    assert "has not come back" in service.run("iiadm", "-u", shadow).stderr
    thaw(frozen)

    def works():
        with contextlib.suppress(OSError):
            service.write(master, 0, b"new")
            return True

    eventually(works, "the shadow answers again")
    assert service.status(shadow).offline == ()
    assert service.read(shadow) == then


def test_copy_to_a_shadow_that_hangs_lets_go_of_its_chunks(service, volume, place, frozen):
    master, shadow = volume("m", CHUNKS * CHUNK), frozen / "s"
    enabled(service, "ind", master, shadow, place / "b", "-o", "limit=1")
    service.wait(shadow)
    write_all(service, master, count=20)
    freeze(frozen)
    service.flip("s", shadow)
    service.write(master, 0, b"newer")
    eventually(lambda: service.status(shadow).offline == ("shadow",), "given up")
    thaw(frozen)
    assert service.read(master)[:5] == b"newer"


def test_program_that_writes_to_a_hanging_shadow_holds_up_nobody(service, volume, place, frozen):
    """With a limit its writes are done in a thread, and its chunks are free again in time."""
    master, shadow = volume("m", CHUNKS * CHUNK), frozen / "s"
    other = volume("other", CHUNKS * CHUNK)
    assert service.run("svadm", "-e", other).returncode == 0
    enabled(service, "ind", master, shadow, place / "b", "-o", "limit=5")
    service.wait(shadow)
    service.write(shadow, 0, b"first")
    freeze(frozen)
    failures = []

    def write():
        try:
            service.write(shadow, 0, b"second")
        except OSError as error:
            failures.append(error)

    stuck = threading.Thread(target=write)
    stuck.start()
    assert service.read(other) == other.read_bytes()
    service.write(master, 0, b"master")
    stuck.join(30)
    assert failures
    assert service.status(shadow).offline == ("shadow",)
    thaw(frozen)


# -- space ------------------------------------------------------------------------------------


def test_reserve_allocates_the_whole_shadow_or_refuses(service, volume, place, small):
    """F12."""
    master, at = volume("m", CHUNKS * CHUNK), small(1)
    done = service.run("iiadm", "-o", "reserve", "-e", "dep", master, at / "s", place / "b")
    assert done.returncode == 2
    assert "there is no room for the whole shadow" in done.stderr
    assert not (at / "s").exists()
    assert not (place / "b").exists()
    subprocess.run(["mount", "-o", "remount,size=4m", at], check=True)
    enabled(service, "dep", master, at / "s", place / "b", "-o", "reserve")
    assert (at / "s").stat().st_blocks * 512 >= CHUNKS * CHUNK
    free = os.statvfs(at).f_bavail * os.statvfs(at).f_frsize
    (at / "filler").write_bytes(bytes(free))
    write_all(service, master)
    assert service.status(at / "s").offline == ()
    assert service.status(at / "s").space_percent is None


def test_reserve_that_is_refused_leaves_the_room_to_others(service, place, frozen):
    """F12: ext4 keeps what it has allocated when it finds too late that the rest is missing."""
    master, shadow = place / "m", frozen / "s"
    for path in (master, shadow):
        path.touch()
        os.truncate(path, 128 << 20)
    free = os.statvfs(frozen).f_bavail
    words = ("-o", "reserve", "-e", "dep", master, shadow, place / "b")
    done = service.run("iiadm", *words)
    assert done.returncode == 2
    assert "there is no room for the whole shadow" in done.stderr
    assert os.statvfs(frozen).f_bavail == free
    assert shadow.stat().st_blocks == 0


def test_sparse_shadow_on_a_file_system_that_fills_is_told_of(service, volume, place, small):
    master, at = volume("m", CHUNKS * CHUNK), small(4)
    enabled(service, "dep", master, at / "s", place / "b")
    (at / "filler").write_bytes(bytes(int(3.5 * (1 << 20))))
    eventually(lambda: (service.status(at / "s").space_percent or 0) >= 80, "seen")
    assert "87% full" in service.run("iiadm", "-i", at / "s").stdout
    assert "87% full and the shadow is sparse" in service.said()


# -- words ------------------------------------------------------------------------------------


@pytest.mark.sampled(3)
@pytest.mark.parametrize(
    "words",
    ["-o reserve S", "-o break=master S", "-o limit=0 S", "-o limit=-1 S", "-o limit=86401 S",
     "-o break=write -u S", "-o break=write"],
)  # fmt: skip
def test_wrong_words_after_o_are_refused(service, words):
    done = service.run("iiadm", *words.split())
    assert done.returncode == 1
    assert "usage" in done.stderr
