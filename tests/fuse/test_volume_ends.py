"""Volumes of every size, and writes at their very end: exact, and never past it (F31)."""

import errno
import os

import pytest
from devices import opened, refuses
from harness import CHUNK

TIB = 1 << 40
HUGE = 3 * TIB + 12_345
"""More than 2^32 sectors of 512 bytes."""


def everything(service, master, shadow):
    """Each verb that copies, with a write to the last byte of either side before it."""
    size = master.stat().st_size
    for number, direction in enumerate(("s", "s", "m", "s")):
        service.write(master, size - 1, bytes([number + 1]))
        service.write(shadow, 0, bytes([100 + number]))
        with opened(service.path(master)) as fd:
            assert os.pwrite(fd, bytes([50 + number]) * 3, size - 1) == 1, "across the end"
            assert os.pwrite(fd, b"", 0) == os.pwrite(fd, b"", size) == 0, "nothing at all"
            refuses(errno.ENOSPC, os.pwrite, fd, b"x", size)
        source = shadow if direction == "m" else master
        truth = service.read(source)
        service.flip(direction, shadow)
        service.wait(shadow)
        assert service.read(master) == service.read(shadow) == truth
        assert {service.path(p).stat().st_size for p in (master, shadow)} == {size}


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_volume_of_any_size_goes_through_every_verb(service, volume, place, kind):
    """F31: one byte, less and more than a sector or a chunk, a last chunk of one byte."""
    for size in (1, 511, 513, CHUNK - 1, CHUNK + 1, 3 * CHUNK + 777):
        master, shadow = volume(f"m{size}", size), place / f"s{size}"
        service.enable(kind, master, shadow)
        service.wait(shadow)
        everything(service, master, shadow)
        assert (master.stat().st_size, shadow.stat().st_size) == (size, size)
        bits = service.status(shadow)
        assert bits.chunks == -(-size // CHUNK)
        assert max(bits.shadow_bits, bits.copy_bits) <= bits.chunks


def test_write_of_nothing_marks_nothing(service, volume, place):
    """F31: a write of no bytes is no write, wherever it points to."""
    master, shadow = volume("m", 2 * CHUNK + 5), place / "s"
    service.enable("dep", master, shadow)
    with opened(service.path(master)) as fd:
        for at in (0, CHUNK, 2 * CHUNK + 4, 2 * CHUNK + 5, 10 * CHUNK):
            assert os.pwrite(fd, b"", at) == 0
            assert os.pwritev(fd, [b"", b""], at) == 0
    assert service.status(shadow).shadow_bits == 0


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_volume_of_three_tebibytes_is_exact_at_every_border(service, disk_place, kind):
    """F31: offsets past 2^31 sectors, 2^32 sectors and 2^41 bytes; the holes stay holes."""
    master, shadow = disk_place / "m", disk_place / "s"
    places = [0, (1 << 31) - 2, (1 << 32) - 3, TIB - 1, 2 * TIB - 2, 2 * TIB + 5, HUGE - 6]
    with master.open("wb") as file:
        file.truncate(HUGE)
        for number, at in enumerate(places):
            os.pwrite(file.fileno(), bytes([number + 1]) * 6, at)
    service.enable(kind, master, shadow)
    service.wait(shadow)
    for number, at in enumerate(places):
        service.write(master, at + 1, bytes([200 + number]) * 4)
    for path, first in ((master, 200), (shadow, 1)):
        with opened(service.path(path), os.O_RDONLY) as fd:
            assert os.lseek(fd, 0, os.SEEK_END) == HUGE
            for number, at in enumerate(places):
                found = os.pread(fd, 6, at)
                middle = bytes([first + number]) * 4
                assert found == bytes([number + 1]) + middle + bytes([number + 1]), (path, at)
            assert os.pread(fd, 100, HUGE) == b""
    assert len(places) <= service.status(shadow).shadow_bits <= 2 * len(places)
    service.flip("s", shadow)
    service.wait(shadow)
    with opened(service.path(shadow), os.O_RDONLY) as fd:
        for number, at in enumerate(places):
            assert os.pread(fd, 4, at + 1) == bytes([200 + number]) * 4
    assert shadow.stat().st_blocks * 512 < 1 << 26, "the holes were filled"
    assert service.stop() == 0
