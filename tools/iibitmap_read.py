"""Reads a bitmap volume of a stopped service, even if it is damaged."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import UUID

import numpy as np

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core import sector
from iifuse.core.believe import bits_may_be_lost
from iifuse.core.bitmap import SECTOR_BIT_BYTES, SECTOR_CHUNKS, Bitmap, Packed, sectors_for
from iifuse.core.header import Header
from iifuse.core.sector import SECTOR_BYTES, Region
from iifuse.store.volume import Volume, open_volume
from iifuse.units import Run, stop_of

BLOCK_SECTORS: Final = 2048
_LEASE_S: Final = 2.0
"""For so many seconds a file may still count as open after it was closed."""


@dataclass(frozen=True)
class Block:
    """Some sectors of a bitmap, the first of which has the number `first`.

    `rows`: their bits, shape (sectors, 508), dtype uint8; damaged rows are zeros. `bad`: the
    damaged sectors, as runs. The last block has there the sectors beyond the end of the file,
    without rows.
    """

    first: int
    rows: Packed
    bad: tuple[Run, ...]


@dataclass(frozen=True)
class BitmapReading:
    """A bitmap volume with a valid header. `slots`: what is wrong with each slot; None: nothing."""

    volume: Volume
    header: Header
    slots: tuple[str | None, ...]

    @property
    def chunks(self) -> int:
        """The number of chunks of the set."""
        return self.header.geometry.chunks

    @property
    def need_bytes(self) -> int:
        """How many bytes the volume has to have."""
        return sector.bitmap_bytes(self.chunks)

    @property
    def sectors(self) -> int:
        """The number of sectors of one bitmap."""
        return sectors_for(self.chunks)

    def piece(self, region: Region, first: int, count: int) -> tuple[Packed, list[int]]:
        """Some sectors: (their bits, numbers of the damaged ones, which are zeros).

        The bits have the shape (count, 508) and the dtype uint8. Sectors beyond the end of the file
        count as damaged.
        """
        there = min(count, max(0, self._there(region) - first))
        start = sector.region_offset(region, self.chunks)
        blob, lost = self._read(start + first * SECTOR_BYTES, there)
        blob += bytes((count - there) * SECTOR_BYTES)
        rows, bad = sector.decode(self.header.uuid.bytes, region, first, blob)
        bad = sorted({*bad, *(first + number for number in lost)})
        return rows, bad

    def _there(self, region: Region) -> int:
        """How many sectors of a bitmap the file is long enough for."""
        left = max(0, self.volume.size_bytes - sector.region_offset(region, self.chunks))
        return min(self.sectors, left // SECTOR_BYTES)

    def blocks(self, region: Region) -> Iterator[Block]:
        """A whole bitmap, block by block, even if the file is too short."""
        there = self._there(region)
        for first in range(0, there, BLOCK_SECTORS):
            rows, bad = self.piece(region, first, min(BLOCK_SECTORS, there - first))
            yield Block(first, rows, tuple((number, 1) for number in bad))
        if there < self.sectors:
            nothing = np.zeros((0, SECTOR_BIT_BYTES), np.uint8)
            yield Block(there, nothing, ((there, self.sectors - there),))

    def _read(self, at: int, count: int) -> tuple[bytes, list[int]]:
        """Read sectors: (bytes, numbers of those that cannot be read, which are zeros)."""
        try:
            return self.volume.read(at, count * SECTOR_BYTES), []
        except OSError:
            parts = [self._one(at + number * SECTOR_BYTES) for number in range(count)]
        lost = [number for number, part in enumerate(parts) if part is None]
        return b"".join(part or bytes(SECTOR_BYTES) for part in parts), lost

    def _one(self, at: int) -> bytes | None:
        try:
            return self.volume.read(at, SECTOR_BYTES)
        except OSError:
            return None

    def runs(self, region: Region) -> Iterator[Run]:
        """The runs of set bits, ascending and merged. The bits of damaged sectors are 0."""
        return merged(run for block in self.blocks(region) for run in self._runs_in(block))

    def _runs_in(self, block: Block) -> Iterator[Run]:
        base = block.first * SECTOR_CHUNKS
        chunks = min(len(block.rows) * SECTOR_CHUNKS, self.chunks - base)
        if chunks > 0:
            for first, count in Bitmap(chunks, block.rows).runs():
                yield base + first, count

    def damaged(self, region: Region) -> list[Run]:
        """The runs of chunks whose sectors cannot be believed."""
        bad = (run for block in self.blocks(region) for run in block.bad)
        return [self.chunks_of(run) for run in merged(bad)]

    def chunks_of(self, sectors: Run) -> Run:
        """The chunks whose bits stand in a run of sectors."""
        first = sectors[0] * SECTOR_CHUNKS
        return first, min(sectors[1] * SECTOR_CHUNKS, self.chunks - first)

    def stray_bits(self, region: Region) -> bool:
        """Is a bit set past the last chunk?"""
        for block in self.blocks(region):
            inside = self.chunks - block.first * SECTOR_CHUNKS
            if 0 < inside < len(block.rows) * SECTOR_CHUNKS:
                bits = np.unpackbits(block.rows.reshape(-1), bitorder="little")
                return bool(bits[inside:].any())
        return False

    @property
    def distrusted(self) -> bool:
        """May a power loss have come before the bits were durable (durability=process)?"""
        return bits_may_be_lost(self.header, UUID(boot_id()))


def merged(runs: Iterator[Run]) -> Iterator[Run]:
    """The runs, with those joined that touch each other. They must be ascending."""
    held: Run | None = None
    for run in runs:
        if held is not None and stop_of(held) == run[0]:
            held = held[0], held[1] + run[1]
            continue
        if held is not None:
            yield held
        held = run
    if held is not None:
        yield held


def boot_id() -> str:
    """The boot id: 32 hexadecimal digits, which differ after each start of the machine."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip().replace("-", "")


@contextmanager
def opened(path: str) -> Iterator[Volume]:
    """Open and lock a volume that no service uses. Raises BadVolume, InUse, Busy."""
    deadline = time.monotonic() + _LEASE_S
    while True:
        try:
            volume = open_volume(path)
            break
        except errors.InUse as error:
            raise errors.InUse(path, "is in use by a service", "stop that service first") from error
        except errors.Busy:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    try:
        yield volume
    finally:
        volume.close()


@contextmanager
def reading(path: str) -> Iterator[BitmapReading]:
    """Open, lock and read a bitmap volume. Raises BadBitmap when it has no valid header."""
    with opened(path) as volume:
        yield read(volume)


def read(volume: Volume) -> BitmapReading:
    """The header that counts, and what is wrong with the slots. Raises BadBitmap."""
    slots = [_slot(volume, at) for at in fmt.SLOT_OFFSETS]
    header, _ = fmt.newest(volume.path, slots)
    return BitmapReading(volume, header, tuple(_wrong(volume.path, slot) for slot in slots))


def _slot(volume: Volume, at: int) -> bytes:
    try:
        return volume.read(at, max(0, min(fmt.SLOT_BYTES, volume.size_bytes - at)))
    except OSError as error:
        return f"cannot be read ({error.strerror})".encode()


def _wrong(path: str, slot: bytes) -> str | None:
    if not any(slot):
        return None  # was never written
    try:
        fmt.unpack(path, slot)
    except errors.BadBitmap as error:
        return error.why
    return None


def size_of(path: str) -> int:
    """The size in bytes of a file or block device, which may be in use. Raises BadVolume."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.lseek(fd, 0, os.SEEK_END)
        finally:
            os.close(fd)
    except OSError as error:
        raise errors.BadVolume(path, f"has no size ({error.strerror})") from error
