"""`iibitmap repair`: a new bitmap volume out of a damaged one. The old one is only read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec

from iifuse import errors
from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap, Packed
from iifuse.core.header import Header
from iifuse.core.sector import Region
from iifuse.core.state import Role
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import Volume, create_file
from iifuse.units import format_size

from .iibitmap_read import BLOCK_SECTORS, BitmapReading, opened

REASON = "sectors of its bitmap were damaged"


class Repaired(msgspec.Struct, frozen=True):
    """What the new bitmap says that the old one did not."""

    bitmap: str
    new: str
    damaged_sectors: int
    different_chunks: int
    """Chunks that count as different only because nobody knows."""
    shadow_offline: bool


def repair(found: BitmapReading, new: str) -> Repaired:
    """Write the new bitmap volume, durably. Raises BadVolume, StorageError, and leaves nothing."""
    _check_room(found, new)
    with _made(new, found.need_bytes) as volume:
        damaged, different = _write_bits(found, BitmapFile(volume))
        offline = bool(damaged) and found.exact
        try:
            # The new volume has no older header, so its numbers may begin anew.
            BitmapFile(volume).write_header(_header(found.header, offline=offline))
        except ValueError as error:
            why = f"has an impossible header ({error})"
            raise errors.BadBitmap(found.volume.path, why) from error
    return Repaired(found.volume.path, new, damaged, different, offline)


def _check_room(found: BitmapReading, new: str) -> None:
    """Nothing is replaced, and a header that asks for any size must not fill the disk first."""
    if os.path.lexists(new):
        raise errors.BadVolume(new, "exists already", "name a new file")
    folder = os.path.dirname(os.path.abspath(new))
    try:
        room = os.statvfs(folder)
    except OSError as error:
        raise errors.BadVolume(new, f"cannot be created ({error.strerror})") from error
    if room.f_bavail * room.f_frsize < found.need_bytes:
        raise errors.BadVolume(
            new, f"there is no room for its {format_size(found.need_bytes)}", "choose another place"
        )


@contextmanager
def _made(path: str, size_bytes: int) -> Iterator[Volume]:
    """A new file, gone again if it does not become a whole bitmap volume."""
    create_file(path, size_bytes, sparse=False)
    try:
        with opened(path) as volume:
            yield volume
    except BaseException as error:
        os.unlink(path)
        if isinstance(error, OSError):
            raise errors.StorageError(path, f"cannot be written ({error.strerror})") from error
        raise


def _write_bits(found: BitmapReading, target: BitmapFile) -> tuple[int, int]:
    """(damaged sectors, chunks that count as different for that).

    Damage in either bitmap makes the shadow bits of its chunks: a point in time that was cut short
    may have moved them from one to the other.
    """
    damaged = different = 0
    for first in range(0, found.sectors, BLOCK_SECTORS):
        count = min(BLOCK_SECTORS, found.sectors - first)
        shadow, bad_shadow = found.piece(Region.SHADOW, first, count)
        copy, bad_copy = found.piece(Region.COPY, first, count)
        bad = sorted({*bad_shadow, *bad_copy})
        damaged += len(bad_shadow) + len(bad_copy)
        if not found.exact:
            shadow[[number - first for number in bad]] = 0xFF
            different += sum(found.chunks_of((number, 1))[1] for number in bad)
        inside = _inside(found, first, count)
        for region, rows in ((Region.SHADOW, shadow & inside), (Region.COPY, copy & inside)):
            target.write_sectors([target.encode(found.header, region, rows, first)])
    return damaged, different


def _inside(found: BitmapReading, first: int, count: int) -> Packed:
    """Ones for the chunks that there are; shape (count, 508), dtype uint8."""
    bits = Bitmap(min(count * SECTOR_CHUNKS, found.chunks - first * SECTOR_CHUNKS))
    bits.fill()
    return bits.packed


def _header(header: Header, *, offline: bool) -> Header:
    if not offline:
        return replace(header, sequence=0)
    return replace(
        header,
        sequence=0,
        offline=header.offline | Role.SHADOW,
        offline_reason=REASON,
        copying=False,
    )
