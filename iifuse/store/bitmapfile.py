"""A bitmap volume: two header slots and the sectors of two bitmaps (iifuse-bitmap(5))."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core import sector
from iifuse.core.bitmap import (
    SECTOR_BIT_BYTES,
    Bitmap,
    Packed,
    Rows,
    sectors_for,
)
from iifuse.core.header import Header
from iifuse.core.sector import SECTOR_BYTES, Numbers, Region
from iifuse.store.volume import Buffer, Volume
from iifuse.store.writtenrows import WrittenRows
from iifuse.units import ceil_div

_BLOCK_SECTORS: Final = 2048
_PAGE_SECTORS: Final = 4096 // SECTOR_BYTES


class BitmapFile:
    """The bitmap volume of one set. Every method blocks and raises OSError.

    A commit of a header writes the slot that does not hold the newest header. So the old header
    stays whole if the write is torn.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._slot = 1
        self._sequence = 0  # of the last header, even if its write failed: it may be on the disk
        self._rows: WrittenRows | None = None  # until the number of sectors is known

    def read_header(self) -> Header:
        """The newest valid header. Raises BadBitmap."""
        slots = [
            self.volume.read(at, max(0, min(fmt.SLOT_BYTES, self.volume.size_bytes - at)))
            for at in fmt.SLOT_OFFSETS
        ]
        header, self._slot = fmt.newest(self.volume.path, slots)
        self._sequence = header.sequence
        need = sector.bitmap_bytes(header.geometry.chunks)
        if self.volume.size_bytes < need:
            raise errors.BadBitmap(
                self.volume.path, f"is cut short ({self.volume.size_bytes} of {need} bytes)"
            )
        self._rows_of(header)
        return header

    def write_header(self, header: Header) -> Header:
        """Commit a header durably. Returns it with its new sequence number."""
        self.volume.sync()  # the bits that a header relies on must be durable before it
        self._sequence = max(self._sequence, header.sequence) + 1
        header = replace(header, sequence=self._sequence)
        slot = 1 - self._slot
        self.volume.write(fmt.SLOT_OFFSETS[slot], fmt.pack(header))
        self.volume.sync()
        self._slot = slot
        return header

    def write_anew(self, header: Header, extents: Iterable[tuple[int, Buffer]]) -> Header:
        """After a failed sync: write an offline header, then all bits. Returns that header.

        The header comes first, because one whose write failed may be on the disk and rely on other
        bits. This relies on nothing that the failed sync may have lost. For all other callers the
        volume stays failed (invariant 9).
        """
        self._sequence = max(self._sequence, header.sequence) + 1
        header = replace(header, sequence=self._sequence)
        slot = 1 - self._slot
        self.volume.write(fmt.SLOT_OFFSETS[slot], fmt.pack(header))
        self.volume.sync_anew()
        self._slot = slot
        self.write_sectors(extents)
        self.volume.sync_anew()
        return header

    def erase_headers(self) -> None:
        """Overwrite both header slots, so that the volume belongs to no set."""
        for at in fmt.SLOT_OFFSETS:
            self.volume.write(at, bytes(fmt.SLOT_BYTES))
        self.volume.sync()
        self._rows = None  # that set may have had another number of sectors

    def read_bits(self, header: Header, region: Region) -> tuple[Bitmap, list[int]]:
        """Read a whole bitmap: (the bitmap, the numbers of damaged sectors, whose bits are 0)."""
        chunks = header.geometry.chunks
        packed = np.empty((sectors_for(chunks), SECTOR_BIT_BYTES), np.uint8)
        bad: list[int] = []
        for first in range(0, len(packed), _BLOCK_SECTORS):
            count = min(_BLOCK_SECTORS, len(packed) - first)
            at = sector.region_offset(region, chunks) + first * SECTOR_BYTES
            blob = self.volume.read(at, count * SECTOR_BYTES)
            packed[first : first + count], damaged = sector.decode(
                header.uuid.bytes, region, first, blob
            )
            bad += damaged
        return Bitmap.from_disk(chunks, packed), bad

    def believe(self, header: Header, region: Region, bits: Bitmap) -> None:
        """Remember that the bits which were read are durable: zeros need not be written again.

        This must not be called after a kill. Then the page cache may show bits that have never
        reached the disk.
        """
        self._rows_of(header).learn(_first(header, region), bits.rows_set())

    def encode(self, header: Header, region: Region, bits: Packed, first: int) -> tuple[int, bytes]:
        """The sectors for rows of bits, as (offset in bytes, bytes). This writes nothing."""
        at = sector.region_offset(region, header.geometry.chunks) + first * SECTOR_BYTES
        return at, sector.encode(header.uuid.bytes, region, first, bits)

    def write_sectors(self, extents: Iterable[tuple[int, Buffer]]) -> None:
        """Write encoded sectors. They are durable after the next sync of the volume."""
        for at, blob in extents:
            write = partial(self.volume.write, at, blob)
            if self._rows is None:
                write()
            else:
                first = (at - sector.HEADER_REGION_BYTES) // SECTOR_BYTES
                self._rows.write(first, blob, write)

    def encode_change(
        self, header: Header, region: Region, bits: Bitmap
    ) -> Iterator[tuple[int, Buffer]]:
        """The extents that make a region hold `bits`, for `write_sectors`.

        Zeros are left out where zeros were written last. The extents are whole pages of the page
        cache, because a page that is written in part may have to be read first.
        """
        first = _first(header, region)
        needed = self._rows_of(header).not_zero(first, len(bits.packed)) | bits.rows_set()
        rows = np.flatnonzero(_whole_pages(needed, first))
        begin = sector.region_offset(region, header.geometry.chunks)
        for at in range(0, len(rows), _BLOCK_SECTORS):
            block = rows[at : at + _BLOCK_SECTORS]
            blob = sector.encode_rows(
                header.uuid.bytes, region, block, bits.packed[block]
            ).data.cast("B")
            for start, stop in _stretches(block):
                part = blob[start * SECTOR_BYTES : stop * SECTOR_BYTES]
                yield begin + int(block[start]) * SECTOR_BYTES, part

    def _rows_of(self, header: Header) -> WrittenRows:
        if self._rows is None:
            self._rows = WrittenRows(len(Region) * sectors_for(header.geometry.chunks))
        return self._rows

    def encode_all(
        self, header: Header, region: Region, bits: Bitmap
    ) -> Iterator[tuple[int, bytes]]:
        """The extents of a whole bitmap, for `write_sectors`."""
        for first in range(0, len(bits.packed), _BLOCK_SECTORS):
            yield self.encode(header, region, bits.packed[first : first + _BLOCK_SECTORS], first)

    def write_region(self, header: Header, region: Region, bits: Bitmap) -> None:
        """Write a whole bitmap and make it durable."""
        self._rows_of(header)
        self.write_sectors(self.encode_all(header, region, bits))
        self.volume.sync()


def _first(header: Header, region: Region) -> int:
    """The number of a region's first sector, counted over both regions."""
    return 0 if region is Region.SHADOW else sectors_for(header.geometry.chunks)


def _whole_pages(needed: Rows, first: int) -> Rows:
    """Add all sectors of a page if one of them is needed. `first`: see `_first`."""
    before = (sector.HEADER_REGION_BYTES // SECTOR_BYTES + first) % _PAGE_SECTORS
    after = before + len(needed)
    padded = np.zeros(ceil_div(after, _PAGE_SECTORS) * _PAGE_SECTORS, np.bool_)
    padded[before:after] = needed
    pages = padded.reshape(-1, _PAGE_SECTORS).any(axis=1)
    return pages.repeat(_PAGE_SECTORS)[before:after]


def _stretches(rows: Numbers) -> Iterator[tuple[int, int]]:
    """The (first, stop) places in `rows` of the stretches whose numbers follow each other."""
    cuts = np.flatnonzero(np.diff(rows) != 1) + 1
    yield from pairwise([0, *cuts.tolist(), len(rows)])
