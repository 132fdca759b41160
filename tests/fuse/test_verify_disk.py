"""K13: iiverify reads what stands on the disk, whatever the page cache holds."""

import errno
import os
import pty
import re
import subprocess
import threading

import filesystems
import pytest
from harness import BIN, CHUNK

from iifuse.store.uncached import Uncached
from iifuse.store.volume import open_volume

CHUNKS = 300
SPOILED = (0, 7, 8, CHUNKS - 1)


@pytest.fixture
def on_a_device(volume, attach):
    """A volume on a loop device, and how to damage one of its chunks below it."""

    def make(name):
        backing = volume(name, CHUNKS * CHUNK)
        return attach(backing), lambda chunk: _damage(backing, chunk * CHUNK + 5)

    return make


@pytest.fixture
def on_a_file_system(volume, attach, mounted):
    """A volume as a file of ext4, and how to damage one of its chunks below the file system."""

    def make(name):
        disk = volume(f"{name}.disk", 64 << 20)
        device = attach(disk)
        filesystems.make("ext4", device)
        path = mounted(device, name) / name
        path.write_bytes(os.urandom(CHUNKS * CHUNK - 1000))
        subprocess.run(["sync", "-f", path], check=True)
        return path, lambda chunk: _damage(disk, _place(path, chunk) + 5)

    return make


def _place(path, chunk):
    """Where on its disk a chunk of a file stands."""
    said = subprocess.run(
        ["filefrag", "-v", "-b1024", path], capture_output=True, text=True, check=True
    )
    block = chunk * CHUNK // 1024
    for first, last, start in re.findall(r"\d+: +(\d+)\.\. +(\d+): +(\d+)\.\.", said.stdout):
        if int(first) <= block <= int(last):
            return (int(start) + block - int(first)) * 1024
    raise AssertionError(said.stdout)


def _damage(path, offset):
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))


@pytest.mark.finding("K13.1")
@pytest.mark.parametrize("side", ["master", "shadow"])
@pytest.mark.parametrize("kind", ["on_a_device", "on_a_file_system"])
def test_damage_below_a_warm_cache_is_found_and_healed(service, volume, place, request, kind, side):
    make = request.getfixturevalue(kind)
    master, damage_master = make("m")
    shadow, damage_shadow = make("s")
    service.enable("ind", master, shadow, place / "b")
    service.wait(shadow)
    size = service.status(shadow).size_bytes
    kept = [service.read(master), service.read(shadow)]
    for chunk in SPOILED:
        (damage_master if side == "master" else damage_shadow)(chunk)
    assert [service.read(master), service.read(shadow)] == kept, "the cache is not warm"
    done = service.run("iiverify", "--mark", shadow)
    extents = [(0, CHUNK), (7 * CHUNK, 2 * CHUNK), ((CHUNKS - 1) * CHUNK, size % CHUNK or CHUNK)]
    assert done.stdout.splitlines() == [f"{shadow}: {at} {length}" for at, length in extents]
    assert done.returncode == 1
    service.flip("s" if side == "shadow" else "m", shadow)
    service.wait(shadow)
    assert service.run("iiverify", shadow).returncode == 0
    service.stop()  # or what the volumes stand on cannot be unmounted


def test_what_is_still_to_be_written_is_no_damage(service, volume, disk_place):
    """Both sides are dirty in the page cache: what is on the disk alone would differ."""
    master = disk_place / "m"
    master.write_bytes(os.urandom(CHUNKS * CHUNK + 7))
    shadow = disk_place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    for at in range(0, CHUNKS * CHUNK, 3 * CHUNK):
        service.write(master, at, b"not synced")
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.run("iiverify", shadow).returncode == 0


def not_direct(plain):
    """Opens as a file system does that has no O_DIRECT."""

    def opened(path, flags, *words, **options):
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return plain(path, flags, *words, **options)

    return opened


@pytest.mark.parametrize("size", [1, 4095, 4096, CHUNK + 1, 3 * CHUNK])
def test_file_system_without_direct_io_drops_its_pages_first(disk_place, size, monkeypatch):
    path = disk_place / "v"
    path.write_bytes(data := os.urandom(size))
    volume = open_volume(str(path))
    monkeypatch.setattr(os, "open", not_direct(os.open))
    dropped, plain = [], os.preadv

    def preadv(fd, buffers, offset, flags=0):
        """Nothing is in the page cache."""
        if flags:
            raise BlockingIOError(errno.EAGAIN, "not at once")
        return plain(fd, buffers, offset)

    monkeypatch.setattr(os, "posix_fadvise", lambda *words: dropped.append(words[3]))
    monkeypatch.setattr(os, "preadv", preadv)
    with Uncached(volume) as reader:
        assert bytes(reader.read(0, size)) == data
    assert dropped == [os.POSIX_FADV_RANDOM, os.POSIX_FADV_DONTNEED]
    volume.close()


def test_descriptor_that_cannot_be_had_anew_is_not_closed_twice(disk_place, monkeypatch):
    """Its number may be another file's by then."""
    path = disk_place / "v"
    path.write_bytes(bytes(4096))
    volume = open_volume(str(path))
    plain, opened = os.open, []

    def in_any_way(path, flags, *words, **options):
        opened.append(plain(path, flags & ~os.O_DIRECT, *words, **options))
        return opened[-1]

    def unaligned(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    def no_more(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", in_any_way)
    with pytest.raises(OSError, match="Too many") as raised, Uncached(volume) as reader:
        monkeypatch.setattr(os, "preadv", unaligned)
        monkeypatch.setattr(os, "open", no_more)
        try:
            reader.read(0, 4096)
        finally:
            monkeypatch.undo()
            others = plain(os.devnull, os.O_RDONLY)
            assert others == opened[-1]
    os.fstat(others)
    os.close(others)
    assert raised.value.filename == str(path)
    volume.close()


def test_pages_that_stay_in_the_cache_are_not_taken_for_the_disk(disk_place, monkeypatch):
    """As those are that a program has mapped and locked."""
    path = disk_place / "v"
    path.write_bytes(os.urandom(4096))
    volume = open_volume(str(path))
    monkeypatch.setattr(os, "open", not_direct(os.open))
    with Uncached(volume) as reader:
        reader.read(0, 4096)
        volume.read(0, 4096)
        monkeypatch.setattr(os, "posix_fadvise", lambda *_: None)
        with pytest.raises(OSError, match="does not let go"):
            reader.read(0, 4096)
    volume.close()


@pytest.mark.finding("K13.3")
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("dependent", "is a dependent set"),
        ("exported", "is exported"),
        ("aborted", "its copy stands aborted"),
        ("late", "waiting for the shadow"),
        ("offline", "has its shadow offline"),
    ],
)
def test_refusal_says_which_condition_a_set_fails(new_service, volume, place, state, words):
    service = new_service()
    master, shadow = volume("m", 64 << 20), place / "s"
    service.enable("dep" if state == "dependent" else "ind", master, shadow)
    if state == "aborted":
        service.abort(shadow)
    service.wait(shadow) if state != "aborted" else None
    if state == "exported":
        assert service.run("iiadm", "-E", shadow).returncode == 0
    if state in ("late", "offline"):
        service.stop()
        shadow.unlink() if state == "late" else os.truncate(shadow, 1 << 20)
        service.start()
    done = service.run("iiverify", shadow)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.finding("K13.2")
def test_set_that_is_disabled_meanwhile_is_said_to_be(service, volume, place):
    """Not 'coroutine raised StopIteration'."""
    master, shadow = volume("m", 64 << 20), place / "s"
    for _ in range(5):
        service.enable("ind", master, shadow)
        service.wait(shadow)
        said = []

        def verify(said=said):
            done = service.run("iiverify", "--rate", "40M/s", shadow)
            said.append((done.returncode, done.stderr))

        verifier = threading.Thread(target=verify)
        verifier.start()
        service.disable(shadow)
        verifier.join()
        ((code, words),) = said
        assert code == 2
        assert "no such set" in words or "was disabled" in words
    assert "defect" not in service.said()


@pytest.mark.finding("K13.4")
@pytest.mark.parametrize("differing", [0, 1])
def test_bar_ends_at_the_whole_volume(service, volume, place, differing):
    """Also where there is nothing to compare, since all chunks count as different."""
    master, shadow = volume("m"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    if differing:
        service.write(master, 0, os.urandom(master.stat().st_size))
    ours, theirs = pty.openpty()
    command = [BIN / "iiverify", "--socket", service.socket, shadow]
    done = subprocess.run(command, stderr=theirs, stdout=subprocess.PIPE, check=False)
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert done.returncode == 0
    assert re.findall(r"(\d+)%", shown)[-1] == "100"
