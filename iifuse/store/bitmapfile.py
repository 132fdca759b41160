"""A bitmap volume: two header slots and the sectors of two bitmaps (iifuse-bitmap(5))."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

import numpy as np

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core import sector
from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap, Packed, sectors_for
from iifuse.core.header import Header
from iifuse.core.sector import SECTOR_BYTES, Region
from iifuse.store.volume import Volume
from iifuse.units import Run

_BLOCK_SECTORS: Final = 2048


class BitmapFile:
    """The bitmap volume of one set; every method blocks and raises OSError.

    A header commit writes the slot that does not hold the newest header, so that a torn write
    leaves the old header whole.
    """

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self._slot = 1
        self._sequence = 0  # also of a header whose write failed: it may stand on the disk

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
        return header

    def write_header(self, header: Header) -> Header:
        """Commit a header durably; what was written, with its new sequence number."""
        self.volume.sync()  # a header must never be durable before the bits that it speaks of
        self._sequence = max(self._sequence, header.sequence) + 1
        header = replace(header, sequence=self._sequence)
        slot = 1 - self._slot
        self.volume.write(fmt.SLOT_OFFSETS[slot], fmt.pack(header))
        self.volume.sync()
        self._slot = slot
        return header

    def write_anew(self, header: Header, extents: Iterable[tuple[int, bytes]]) -> Header:
        """After a failed sync: an offline header, then all bits; the header that was written.

        The header first, because the one that failed may stand on the disk and speak of other
        bits. Nothing that was lost is relied on; for everybody else the volume stays failed.
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
        """Forget whatever set this volume belonged to."""
        for at in fmt.SLOT_OFFSETS:
            self.volume.write(at, bytes(fmt.SLOT_BYTES))
        self.volume.sync()

    def read_bits(self, header: Header, region: Region) -> tuple[Bitmap, list[Run]]:
        """(the bitmap, runs of chunks whose sector is damaged; their bits read as 0)."""
        chunks = header.geometry.chunks
        blocks: list[Packed] = []
        bad: list[int] = []
        for first in range(0, sectors_for(chunks), _BLOCK_SECTORS):
            count = min(_BLOCK_SECTORS, sectors_for(chunks) - first)
            at = sector.region_offset(region, chunks) + first * SECTOR_BYTES
            blob = self.volume.read(at, count * SECTOR_BYTES)
            bits, damaged = sector.decode(header.uuid.bytes, region, first, blob)
            blocks.append(bits)
            bad += damaged
        return Bitmap.from_disk(chunks, np.concatenate(blocks)), _chunks_of(bad, chunks)

    def encode(self, header: Header, region: Region, bits: Packed, first: int) -> tuple[int, bytes]:
        """(offset in bytes, sectors) for rows of bits; pure, so it can run before the write."""
        at = sector.region_offset(region, header.geometry.chunks) + first * SECTOR_BYTES
        return at, sector.encode(header.uuid.bytes, region, first, bits)

    def write_sectors(self, extents: Iterable[tuple[int, bytes]]) -> None:
        """Write encoded sectors; not durable before the volume's next sync."""
        for at, blob in extents:
            self.volume.write(at, blob)

    def encode_all(
        self, header: Header, region: Region, bits: Bitmap
    ) -> Iterator[tuple[int, bytes]]:
        """The extents of a whole bitmap, for `write_sectors`."""
        for first in range(0, len(bits.packed), _BLOCK_SECTORS):
            yield self.encode(header, region, bits.packed[first : first + _BLOCK_SECTORS], first)

    def write_region(self, header: Header, region: Region, bits: Bitmap) -> None:
        """Write a whole bitmap and make it durable."""
        self.write_sectors(self.encode_all(header, region, bits))
        self.volume.sync()


def _chunks_of(sectors: list[int], chunks: int) -> list[Run]:
    return [(s * SECTOR_CHUNKS, min(SECTOR_CHUNKS, chunks - s * SECTOR_CHUNKS)) for s in sectors]
