"""`iibitmap repair`: makes a new bitmap volume from a damaged one. The old one is only read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec

from iifuse import errors
from iifuse.core.believe import OFFLINE, Meaning, meaning, replace_lost_bits
from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap, Packed, count_ones
from iifuse.core.header import Header
from iifuse.core.sector import Region
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.files import create_file
from iifuse.store.headerlog import HeaderLog
from iifuse.store.names import remove_file
from iifuse.store.volume import Volume
from iifuse.units import format_size

from .iibitmap_dump import roles
from .iibitmap_read import BLOCK_SECTORS, BitmapReading, opened

REASON = "sectors of its bitmap were damaged"


class Repaired(msgspec.Struct, frozen=True):
    """What differs between the new bitmap and the old one."""

    bitmap: str
    new: str
    damaged_sectors: int
    different_chunks: int
    """Chunks that count as different only because their bits were lost."""
    offline: tuple[str, ...]
    """Volumes that the new header says are offline."""


def repair(found: BitmapReading, new: str) -> Repaired:
    """Write the new bitmap volume, durably.

    Raises BadVolume, StorageError, Refused; then no new file is left.
    """
    _check_repairable(found)
    _check_room(found, new)
    with _made(new, found.need_bytes) as volume:
        mending = _Mending(found, BitmapFile(volume))
        mending.all()
        header = _header(found.header, mending.meanings)
        HeaderLog(header, mending.target).repair(header)
    offline = tuple(roles(header.offline))
    return Repaired(found.volume.path, new, mending.damaged, mending.different, offline)


def _check_room(found: BitmapReading, new: str) -> None:
    """Raise BadVolume if the file exists, or if there is no room: a bad header may ask for much."""
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
    """Make a new file, and remove it again after an error."""
    create_file(path, size_bytes, sparse=False)
    try:
        with opened(path) as volume:
            yield volume
    except BaseException as error:
        remove_file(path)
        if isinstance(error, OSError):
            raise errors.StorageError(path, f"cannot be written ({error.strerror})") from error
        raise


class _Mending:
    """Writes the bits of the new bitmap volume, and counts those that replace lost ones."""

    def __init__(self, found: BitmapReading, target: BitmapFile) -> None:
        self.found, self.target = found, target
        self.damaged = self.different = 0
        self.meanings: set[Meaning] = set()

    def all(self) -> None:
        """Write every sector. Raises OSError."""
        for first in range(0, self.found.sectors, BLOCK_SECTORS):
            self._block(first, min(BLOCK_SECTORS, self.found.sectors - first))

    def _block(self, first: int, count: int) -> None:
        inside = _inside(self.found, first, count)
        shadow, bad_shadow = self.found.piece(Region.SHADOW, first, count)
        copy, bad_copy = self.found.piece(Region.COPY, first, count)
        self.damaged += len(bad_shadow) + len(bad_copy)
        shadow, copy = shadow & inside, copy & inside
        before = count_ones(shadow) + count_ones(copy)
        damage = [n - first for n in bad_shadow], [n - first for n in bad_copy]
        self.meanings |= replace_lost_bits(self.found.header, shadow, copy, inside, damage)
        self.different += count_ones(shadow) + count_ones(copy) - before
        for region, rows in ((Region.SHADOW, shadow), (Region.COPY, copy)):
            extent = self.target.encode(self.found.header, region, rows, first)
            self.target.write_sectors([extent])


def _inside(found: BitmapReading, first: int, count: int) -> Packed:
    """Bits with a 1 for each chunk that exists: shape (count, 508), dtype uint8."""
    bits = Bitmap(min(count * SECTOR_CHUNKS, found.chunks - first * SECTOR_CHUNKS))
    bits.fill()
    return bits.packed


def _check_repairable(found: BitmapReading) -> None:
    """Raise Refused for a dependent set in a restore: its lost bits cannot be replaced."""
    if meaning(found.header, both=True) is not Meaning.MASTER_LOST:
        return
    if any(found.damaged(region) for region in Region):
        raise errors.Refused(
            found.volume.path,
            "bits of a dependent set are damaged in the middle of a restore: nobody knows which "
            "chunks are right on which volume",
            "get the master from a backup",
        )


def _header(header: Header, meanings: set[Meaning]) -> Header:
    """The header of the new bitmap, with the volumes offline that `-R` has to bring back.

    Its sequence number stays the same; a commit adds one. By that number the service recognises an
    older header.
    """
    header = replace(header, sequence=max(0, header.sequence - 1))
    offline = header.offline
    for means in meanings & OFFLINE.keys():
        offline |= OFFLINE[means]
    if offline == header.offline:
        return header
    return replace(
        header,
        offline=offline,
        offline_reason=REASON,
        copying=False,
    )
