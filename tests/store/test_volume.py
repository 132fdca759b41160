"""A volume is opened once, reads whole, keeps its holes and never believes a second sync."""

import ctypes
import errno
import fcntl
import os
import resource

import pytest
from descriptors import open_below

from iifuse import errors
from iifuse.store import linux
from iifuse.store import volume as store
from iifuse.store.copying import Copying
from iifuse.store.files import create_file, write_file
from iifuse.store.identity import identify
from iifuse.store.volume import open_volume

MIB = 1 << 20


@pytest.fixture
def make(disk_place):
    """Open files of some bytes; all are closed at the end."""
    opened = []

    def opener(name: str, data: bytes = b"x" * MIB, **options):
        path = disk_place / name
        if not path.exists():
            path.write_bytes(data)
        volume = open_volume(str(path), **options)
        opened.append(volume)
        return volume

    yield opener
    for volume in opened:
        volume.close()


def has_leases(path) -> bool:
    """Does the file system grant leases? Some network ones do not."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


# -- data -----------------------------------------------------------------------------------------


def test_volume_that_became_shorter_answers_eio_and_names_itself(make):
    volume = make("v")
    os.truncate(volume.path, MIB // 2)
    assert volume.read(0, MIB // 2) == b"x" * (MIB // 2)
    with pytest.raises(OSError) as caught:
        volume.read(MIB // 2 - 10, 20)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, volume.path)


def test_volume_write_that_takes_part_of_the_bytes_is_finished(make, monkeypatch):
    volume = make("v")
    real, sizes = os.pwrite, []

    def stingy(fd, data, offset):
        sizes.append(len(data))
        return real(fd, memoryview(data)[:1000], offset)

    monkeypatch.setattr(os, "pwrite", stingy)
    assert volume.write(7, b"abc" * 1000) == 3000
    assert len(sizes) == 3
    monkeypatch.undo()
    assert volume.read(7, 3000) == b"abc" * 1000


def test_volume_write_error_names_the_volume(make):
    volume = make("v")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB // 2, hard))
    try:
        with pytest.raises(OSError) as caught:
            volume.write(MIB // 2, b"y")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.filename == volume.path


def test_volume_cached_read_is_the_same_or_none(make):
    volume = make("v", os.urandom(MIB))
    whole = volume.read(0, MIB)
    assert volume.read_cached(100, 5000) in (None, whole[100:5100])
    volume.sync()
    volume.drop_cache()
    assert volume.read_cached(0, MIB) in (None, whole)


def test_volume_in_memory_is_always_cached(place):
    path = place / "v"
    path.write_bytes(b"m" * 100)
    volume = open_volume(str(path))
    try:
        assert volume.read_cached(10, 20) == b"m" * 20
    finally:
        volume.close()


# -- syncs ----------------------------------------------------------------------------------------


def test_volume_sync_that_failed_fails_for_ever(make, monkeypatch):
    """Linux forgets the error with the dirty pages: a second fdatasync would succeed and lie."""
    volume = make("v")
    volume.write(0, b"new")

    def broken(fd):
        raise OSError(errno.EIO, "lost")

    monkeypatch.setattr(os, "fdatasync", broken)
    with pytest.raises(OSError, match="lost"):
        volume.sync()
    monkeypatch.undo()
    for _ in range(2):
        with pytest.raises(OSError, match="earlier sync failed"):
            volume.sync()
    volume.write(0, b"more")
    with pytest.raises(OSError, match="earlier sync failed"):
        volume.sync()
    assert not volume.is_synced


def test_volume_sync_is_done_once_for_what_was_written_before(make, monkeypatch):
    volume, syncs = make("v"), []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    assert not volume.is_synced, "an earlier process may have left something"
    volume.sync()
    volume.sync()
    assert (len(syncs), volume.is_synced) == (1, True)
    volume.write(0, b"x")
    assert not volume.is_synced
    volume.sync()
    assert len(syncs) == 2


def test_volume_write_during_a_sync_needs_another_one(make, monkeypatch):
    volume = make("v")
    monkeypatch.setattr(os, "fdatasync", lambda fd: volume.write(0, b"late"))
    volume.sync()
    assert not volume.is_synced


# -- holes ----------------------------------------------------------------------------------------


def extents_of(volume) -> list[tuple[int, int]]:
    found, at = [], 0
    while at < volume.size_bytes:
        start, end = volume.data_from(at, volume.size_bytes)
        if start < end:
            found.append((start, end))
        at = end
    return found


@pytest.fixture
def sparse(disk_place):
    """8 MiB, data in the MiB 2 and 5 only, and a size that is no round number."""
    path = disk_place / "sparse"
    with path.open("wb") as file:
        file.truncate(8 * MIB - 777)
        for at in (2, 5):
            file.seek(at * MIB)
            file.write(bytes([64 + at]) * MIB)
    volume = open_volume(str(path))
    yield volume
    volume.close()


def test_volume_knows_its_holes(sparse):
    assert extents_of(sparse) == [(2 * MIB, 3 * MIB), (5 * MIB, 6 * MIB)]
    assert sparse.data_from(0, MIB) == (MIB, MIB)
    assert sparse.data_from(2 * MIB + 5, 2 * MIB + 9) == (2 * MIB + 5, 2 * MIB + 9)


def test_copy_leaves_zeros_where_the_source_has_holes(sparse, make):
    target = make("t", b"old" * (3 * MIB))
    copied = Copying(sparse, target).extent(0, sparse.size_bytes)
    assert copied == 2 * MIB
    assert target.read(0, sparse.size_bytes) == sparse.read(0, sparse.size_bytes)
    rest = target.size_bytes - sparse.size_bytes
    assert target.read(sparse.size_bytes, rest) == (b"old" * (3 * MIB))[sparse.size_bytes :]


def test_copy_into_a_sparse_target_keeps_it_sparse(sparse, disk_place):
    path = disk_place / "t"
    create_file(str(path), sparse.size_bytes)
    target = open_volume(str(path))
    try:
        Copying(sparse, target).extent(0, sparse.size_bytes)
        assert target.read(0, sparse.size_bytes) == sparse.read(0, sparse.size_bytes)
        assert os.stat(path).st_blocks * 512 < 3 * MIB
    finally:
        target.close()


def test_copy_of_a_piece_touches_nothing_else(sparse, make):
    target = make("t", b"o" * (8 * MIB))
    start, length = 3 * MIB - 1000, 2 * MIB + 2000
    Copying(sparse, target).extent(start, length)
    assert target.read(start, length) == sparse.read(start, length)
    assert target.read(0, start) == b"o" * start
    rest = 8 * MIB - start - length
    assert target.read(start + length, rest) == b"o" * rest


def test_zero_writes_zeros_where_the_file_system_cannot_punch(make, monkeypatch):
    volume = make("v", b"x" * (3 * MIB))
    monkeypatch.setattr(store.linux, "zero_range", lambda *arguments: False)
    volume.zero(1000, 2 * MIB)
    assert volume.read(0, 3 * MIB) == b"x" * 1000 + bytes(2 * MIB) + b"x" * (MIB - 1000)
    assert not volume.is_synced


# -- opening --------------------------------------------------------------------------------------


def test_open_volume_is_refused_while_another_service_has_it(make):
    volume = make("v")
    for exclusive in (True, False):
        with pytest.raises(errors.InUse, match="another service"):
            open_volume(volume.path, exclusive=exclusive)
    other = os.open(volume.path, os.O_RDONLY)
    os.close(other)  # a classic lock would be lost here
    with pytest.raises(errors.InUse):
        open_volume(volume.path)
    volume.close()
    open_volume(volume.path).close()


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR])
def test_open_volume_is_refused_while_somebody_has_the_file_open(disk_place, flags):
    path = disk_place / "v"
    path.write_bytes(b"x" * 512)
    if not has_leases(path):
        pytest.skip("this file system grants no leases")
    fd = os.open(path, flags)
    try:
        with pytest.raises(errors.Busy, match="open"):
            open_volume(str(path))
        open_volume(str(path), exclusive=False).close()
    finally:
        os.close(fd)
    open_volume(str(path)).close()


def test_open_volume_refuses_what_is_none(disk_place):
    (disk_place / "empty").touch()
    os.mkfifo(disk_place / "pipe")
    for name, why in (
        ("empty", "size 0"),
        ("pipe", "neither"),
        (".", "neither"),
        ("missing", "No such"),
    ):
        with pytest.raises(errors.BadVolume, match=why) as caught:
            open_volume(str(disk_place / name))
        assert caught.value.subject == str(disk_place / name)


def test_open_volume_follows_links_and_knows_the_volume_by_any_name(disk_place, make):
    volume = make("v")
    os.symlink(volume.path, disk_place / "link")
    os.link(volume.path, disk_place / "hard")
    names = [volume.path, str(disk_place / "link"), str(disk_place / "hard")]
    assert {identify(name) for name in names} == {volume.identity}
    volume.close()
    linked = open_volume(names[1])
    assert linked.path == names[1], "a name is kept as it was typed"
    linked.close()


def test_open_volume_leaks_no_descriptor_when_it_refuses(make, disk_place):
    volume = make("v")
    before = open_below(disk_place)
    for _ in range(5):
        with pytest.raises(errors.InUse):
            open_volume(volume.path)
    assert open_below(disk_place) == before
    assert len(before) == 1


def test_volume_may_be_closed_twice(make):
    volume = make("v")
    volume.close()
    volume.close()


# -- making ---------------------------------------------------------------------------------------


@pytest.fixture(params=["unnamed", "renamed", "linked"])
def creates(request, monkeypatch):
    """File systems with unnamed files, those without, and those without an exclusive rename too."""
    real_open, real_link = os.open, os.link

    def open_named(path, flags, *args, **kwargs):
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, "no unnamed files here", path)
        return real_open(path, flags, *args, **kwargs)

    def refuse(*args, **kwargs):
        ctypes.set_errno(errno.EINVAL)
        return -1

    def link(source, *args, **kwargs):
        if request.param == "renamed":
            raise OSError(errno.EPERM, "no links here", source)
        return real_link(source, *args, **kwargs)

    if request.param != "unnamed":
        monkeypatch.setattr(os, "open", open_named)
        monkeypatch.setattr(os, "link", link)
    if request.param == "linked":
        monkeypatch.setattr(linux._libc, "renameat2", refuse)


@pytest.mark.usefixtures("creates")
def test_create_file_is_sparse_or_written_in_full(disk_place):
    create_file(str(disk_place / "sparse"), 4 * MIB)
    create_file(str(disk_place / "full"), 4 * MIB + 5, sparse=False)
    found = [os.stat(disk_place / name) for name in ("sparse", "full")]
    assert [f.st_size for f in found] == [4 * MIB, 4 * MIB + 5]
    assert found[0].st_blocks == 0
    assert found[1].st_blocks * 512 >= 4 * MIB
    assert found[0].st_mode & 0o777 == 0o600
    assert sorted(os.listdir(disk_place)) == ["full", "sparse"]


@pytest.mark.usefixtures("creates")
def test_create_file_never_replaces_and_leaves_nothing_behind(disk_place):
    (disk_place / "there").write_bytes(b"precious")
    with pytest.raises(errors.BadVolume):
        create_file(str(disk_place / "there"), 100)
    assert (disk_place / "there").read_bytes() == b"precious"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MIB, hard))
    try:
        with pytest.raises(errors.BadVolume, match="created"):
            create_file(str(disk_place / "full"), 4 * MIB, sparse=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(disk_place) == ["there"]


@pytest.mark.usefixtures("creates")
def test_create_file_leaves_a_neighbour_alone_whatever_its_name(disk_place):
    neighbours = {f"v{end}": os.urandom(100) for end in (".new", ".tmp", "~", ".part")}
    for name, data in neighbours.items():
        (disk_place / name).write_bytes(data)
    create_file(str(disk_place / "v"), 4096, sparse=False)
    assert {n: (disk_place / n).read_bytes() for n in neighbours} == neighbours


def test_write_file_replaces_the_whole_or_nothing(disk_place, monkeypatch):
    path = disk_place / "ticket"
    write_file(str(path), b"old")

    def broken(fd):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="full"):
        write_file(str(path), b"new and longer")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    write_file(str(path), b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("link", [os.link, os.symlink])
def test_write_file_never_writes_through_a_name_that_somebody_left(disk_place, link):
    (disk_place / "precious").write_bytes(b"precious")
    link(disk_place / "precious", disk_place / "ticket.new")
    write_file(str(disk_place / "ticket"), b"new")
    assert (disk_place / "ticket").read_bytes() == b"new"
    assert (disk_place / "precious").read_bytes() == b"precious"
    assert sorted(os.listdir(disk_place)) == ["precious", "ticket"]
