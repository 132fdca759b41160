"""`iibitmap repair`: a new bitmap volume out of a damaged one. The old one is only read."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import msgspec
import numpy as np
import numpy.typing as npt

from iifuse import errors
from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap, Packed
from iifuse.core.header import Header
from iifuse.core.sector import Region
from iifuse.core.state import Kind, Progress, Role
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.names import remove_file
from iifuse.store.volume import Volume, create_file
from iifuse.units import format_size

from .iibitmap_dump import roles
from .iibitmap_read import BLOCK_SECTORS, BitmapReading, opened

Bits = npt.NDArray[np.uint8]
"""shape (508,), dtype uint8: the bits of one sector."""

REASON = "sectors of its bitmap were damaged"


class Repaired(msgspec.Struct, frozen=True):
    """What the new bitmap says that the old one did not."""

    bitmap: str
    new: str
    damaged_sectors: int
    different_chunks: int
    """Bits that are set only because nobody knows: copied in vain, at the worst."""
    offline: tuple[str, ...]
    """Volumes that the new header says are offline."""


def repair(found: BitmapReading, new: str) -> Repaired:
    """Write the new bitmap volume, durably. Raises BadVolume, StorageError, and leaves nothing."""
    _check_repairable(found)
    _check_room(found, new)
    with _made(new, found.need_bytes) as volume:
        mending = _Mending(found, BitmapFile(volume))
        mending.all()
        header = _header(found.header, offline=bool(mending.lost))
        mending.target.write_header(header)
    offline = tuple(roles(header.offline))
    return Repaired(found.volume.path, new, mending.damaged, mending.different, offline)


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
        remove_file(path)
        if isinstance(error, OSError):
            raise errors.StorageError(path, f"cannot be written ({error.strerror})") from error
        raise


class _Mending:
    """Writes the bits of the new bitmap volume, and counts what it could not read.

    Outside of copies, damage in either bitmap makes the shadow bits of its chunks: a point in time
    that was cut short may have moved them from one to the other. While an independent set copies,
    no chunk has both bits: what the good bitmap does not claim may have been in the damaged one,
    and to set it does no harm. Where that does not help, the shadow is lost.
    """

    def __init__(self, found: BitmapReading, target: BitmapFile) -> None:
        self.found, self.target = found, target
        self.damaged = self.different = self.lost = 0

    def all(self) -> None:
        """Every sector. Raises OSError."""
        for first in range(0, self.found.sectors, BLOCK_SECTORS):
            self._block(first, min(BLOCK_SECTORS, self.found.sectors - first))

    def _block(self, first: int, count: int) -> None:
        inside = _inside(self.found, first, count)
        shadow, bad_shadow = self.found.piece(Region.SHADOW, first, count)
        copy, bad_copy = self.found.piece(Region.COPY, first, count)
        self.damaged += len(bad_shadow) + len(bad_copy)
        shadow, copy = shadow & inside, copy & inside
        for number in sorted({*bad_shadow, *bad_copy}):
            row = number - first
            if not self.found.exact:
                self._set(shadow[row], inside[row])
            elif self.found.header.kind is Kind.DEPENDENT:
                self._lose(copy[row], inside[row])
            elif number not in bad_copy:
                self._set(shadow[row], inside[row] & ~copy[row])
            elif number not in bad_shadow:
                self._set(copy[row], inside[row] & ~shadow[row])
            else:
                self._lose(copy[row], inside[row])
        for region, rows in ((Region.SHADOW, shadow), (Region.COPY, copy)):
            extent = self.target.encode(self.found.header, region, rows, first)
            self.target.write_sectors([extent])

    def _lose(self, copy: Bits, inside: Bits) -> None:
        """A restore of an independent set brings these chunks anew: its shadow is whole."""
        self.lost += 1
        if self.found.header.progress is Progress.TO_MASTER:
            self._set(copy, inside)

    def _set(self, row: Bits, ones: Bits) -> None:
        self.different += int(np.bitwise_count(ones & ~row).sum(dtype=np.int64))
        row |= ones


def _inside(found: BitmapReading, first: int, count: int) -> Packed:
    """Ones for the chunks that there are; shape (count, 508), dtype uint8."""
    bits = Bitmap(min(count * SECTOR_CHUNKS, found.chunks - first * SECTOR_CHUNKS))
    bits.fill()
    return bits.packed


def _check_repairable(found: BitmapReading) -> None:
    """In a dependent set that restores, a lost bit leaves both volumes without their truth."""
    header = found.header
    if header.kind is Kind.INDEPENDENT or header.progress is not Progress.TO_MASTER:
        return
    if any(found.damaged(region) for region in Region):
        raise errors.Refused(
            found.volume.path,
            "bits of a dependent set are damaged in the middle of a restore: nobody knows which "
            "chunks are right on which volume",
            "get the master from a backup",
        )


def _header(header: Header, *, offline: bool) -> Header:
    """After a loss `-R` begins anew, or goes on with a restore.

    Its number stays (a commit adds one): by it the service knows an older header when it sees one.
    """
    header = replace(header, sequence=max(0, header.sequence - 1))
    if not offline:
        return header
    role = Role.BITMAP if header.progress is Progress.TO_MASTER else Role.SHADOW
    return replace(
        header,
        offline=header.offline | role,
        offline_reason=REASON,
        copying=False,
    )
