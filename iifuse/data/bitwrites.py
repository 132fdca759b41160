"""How the bits of a set are written to its bitmap volume.

The sectors are encoded on the event loop. A thread writes them, without a sync, while the bits in
memory may change again.
"""

from collections.abc import Callable, Sequence
from functools import partial
from uuid import UUID

from iifuse.core.bitmap import sector_runs
from iifuse.core.bits import Bits
from iifuse.core.change import WriteBitmap, exact_bits
from iifuse.core.sector import Region
from iifuse.core.touch import Sync
from iifuse.store.headerlog import HeaderLog
from iifuse.units import Run

Extent = tuple[int, bytes]
"""(offset in bytes on the bitmap volume, encoded sectors)."""

Write = Callable[[], None]
"""Writes sectors that were encoded before. Blocks; raises OSError."""


def mark(bits: Bits, log: HeaderLog, runs: Sequence[Run], ahead: Sequence[int]) -> Write:
    """Begin to mark chunks (Bits.mark). The result writes the marks."""
    extents = _sectors(
        bits, log, Region.SHADOW, bits.mark(runs, ahead), ahead=ahead, marks=runs
    )
    to_clear = [run for run in runs if bits.copy.any(*run)]
    if to_clear:
        extents += _sectors(bits, log, Region.COPY, to_clear, marks=to_clear)
    assert log.bitmap is not None
    return partial(log.bitmap.write_sectors, extents)


def clear(bits: Bits, log: HeaderLog, runs: Sequence[Run]) -> Write:
    """Set copy bits to 0 in memory. The result writes them. Raises MemoryError."""
    assert log.bitmap is not None
    bits.copy.clear_runs(runs)
    try:
        return partial(log.bitmap.write_sectors, _sectors(bits, log, Region.COPY, runs))
    except MemoryError:  # they will not be written, so memory must not change (invariant 1)
        bits.copy.set_runs(runs)
        raise


def _sectors(
    bits: Bits, log: HeaderLog, region: Region, runs: Sequence[Run], *,
    ahead: Sequence[int] = (), marks: Sequence[Run] = (),
) -> list[Extent]:  # fmt: skip
    """The sectors that hold the bits of some runs, as the disk has to hold them (disk_rows)."""
    assert log.bitmap is not None
    encode, rows = log.bitmap.encode, bits.disk_rows
    return [
        encode(log.header, region, rows(region, first, count, ahead, marks), first)
        for first, count in sector_runs(runs)
    ]


def everything(bits: Bits, log: HeaderLog) -> list[Extent]:
    """The sectors of both bitmaps as they are in memory."""
    assert log.bitmap is not None
    return [
        extent
        for region, bitmap in ((Region.SHADOW, bits.shadow), (Region.COPY, bits.copy))
        for extent in log.bitmap.encode_all(log.header, region, bitmap)
    ]


def write_exact(bits: Bits, log: HeaderLog, key: UUID) -> None:
    """Do the order `exact_bits` up to the sync; the caller commits the header after it.

    Blocks; raises OSError.
    """
    if log.bitmap is None:
        return
    for step in exact_bits(key):
        if isinstance(step, WriteBitmap):
            found = bits.shadow if step.region is Region.SHADOW else bits.copy
            log.bitmap.write_sectors(log.bitmap.encode_all(log.header, step.region, found))
        elif isinstance(step, Sync):
            log.bitmap.volume.sync()
