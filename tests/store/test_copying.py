"""Copies ask as little as they can, and begin to write early without promising anything."""

import errno
import os

import pytest

from iifuse.store import linux
from iifuse.store.copying import SHORT_BYTES, Copying
from iifuse.store.files import create_file
from iifuse.store.volume import open_volume

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def make(disk_place):
    """Open files of SIZE bytes that have data in the MiB that are named."""
    opened = []

    def opener(name: str, *data: int):
        path = disk_place / name
        create_file(str(path), SIZE)
        with path.open("r+b") as file:
            for at in data:
                file.seek(at * MIB)
                file.write(bytes([64 + at]) * MIB)
        opened.append(open_volume(str(path)))
        return opened[-1]

    yield opener
    for volume in opened:
        volume.close()


@pytest.fixture
def looks(monkeypatch):
    """The whence of each lseek."""
    real, found = os.lseek, []

    def lseek(fd: int, offset: int, whence: int) -> int:
        found.append(whence)
        return real(fd, offset, whence)

    monkeypatch.setattr(os, "lseek", lseek)
    return found


def test_copies_in_one_extent_of_data_look_for_its_end_once(make, looks):
    copying = Copying(make("s", 2, 3, 4), make("t"))
    length = 2 * SHORT_BYTES
    for at in range(2 * MIB, 5 * MIB, length):
        assert copying.extent(at, length) == length
    assert looks == [os.SEEK_DATA, os.SEEK_HOLE]
    assert copying.hole_stop(3 * MIB, SIZE) == 3 * MIB
    assert len(looks) == 2


def test_short_copies_ask_for_no_hole_and_bring_its_zeros(make, looks):
    source, target = make("s", 2), make("t", 1, 2)
    for at, data in ((2 * MIB, SHORT_BYTES), (MIB, 0)):
        assert Copying(source, target).extent(at, SHORT_BYTES) == data
        assert target.read(at, SHORT_BYTES) == source.read(at, SHORT_BYTES)
    whole = MIB - SHORT_BYTES
    assert target.read(MIB + SHORT_BYTES, whole) == b"A" * whole, "nothing else is touched"
    assert len(looks) <= 2, "to see what has to be made zeros"


def test_copies_that_have_left_the_data_look_again(make):
    source, target = make("s", 1, 2, 5), make("t", 0, 3, 4, 5)
    copying = Copying(source, target)
    extents = [(at, MIB) for at in range(0, SIZE, MIB)]
    assert [copying.extent(*extent) for extent in extents] == [0, MIB, MIB, 0, 0, MIB, 0, 0]
    assert target.read(0, SIZE) == source.read(0, SIZE)


@pytest.mark.parametrize(
    ("offset", "stop"), [(0, 1), (1, 1), (2, 2), (3, 3), (4, 5), (5, 5), (6, 8), (8, 8)]
)
def test_common_hole_ends_where_one_of_both_has_data(make, offset, stop):
    copying = Copying(make("s", 1, 2, 5), make("t", 3))
    assert copying.hole_stop(offset * MIB, SIZE) == stop * MIB


# -- early writing --------------------------------------------------------------------------------


def test_early_writing_loses_nothing_and_is_no_sync(make):
    volume = make("v")
    volume.write(0, b"x" * MIB)
    volume.start_writeback(0, MIB)
    assert not volume.is_synced
    volume.sync()
    assert volume.read(0, MIB) == b"x" * MIB


def failing(code: int):
    def fail(fd: int, offset: int, length: int) -> None:
        raise OSError(code, "planted")

    return fail


def test_failed_early_writing_is_the_failure_of_every_later_sync(make, monkeypatch):
    """Invariant 9: the kernel may have told it here and not tell it again."""
    volume = make("v")
    monkeypatch.setattr(linux, "start_writeback", failing(errno.EIO))
    volume.start_writeback(0, MIB)
    for _ in range(2):
        with pytest.raises(OSError, match="earlier sync failed") as raised:
            volume.sync()
        assert (raised.value.errno, raised.value.filename) == (errno.EIO, volume.path)
    assert not volume.is_synced


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESPIPE])
def test_file_system_without_early_writing_is_synced_all_the_same(make, monkeypatch, code):
    volume = make("v")
    monkeypatch.setattr(linux, "start_writeback", failing(code))
    volume.start_writeback(0, MIB)
    volume.sync()
    assert volume.is_synced
