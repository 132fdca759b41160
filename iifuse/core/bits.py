"""The bits of one set in memory, and what its bitmap volume is known to hold.

A third bitmap, `ready`, stands beside the shadow and the copy bitmap. It costs 4 KiB of memory for
each GiB of a volume. One test of it answers "may this chunk be written?" in every state of a set.
Without it the fast path of a write would have to look at both other bits, at the state, and at what
is durable. It also holds the regions that are marked ahead, which are called *hot*.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap, Packed, count_ones, runs_of
from iifuse.core.sector import Region
from iifuse.core.state import SetState
from iifuse.units import Run

REGION_CHUNKS: Final = 128
"""Chunks of a region, which are marked ahead together: 4 MiB of the volume."""

HOT_REGIONS_MAX: Final = 64
"""The most regions that are marked ahead at a time. So after a crash at most 256 MiB count as
changed although they are not."""


class Bits:
    """The shadow bitmap, the copy bitmap, and `ready`: chunks that may be written at once.

    This class keeps invariant 1. A chunk is ready while its shadow bit is durably 1 and its copy
    bit is durably 0. In every state of a set that means: nobody needs what the chunk holds, on
    either volume (iifuse-bitmap(5)). The disk holds `shadow | ready` and `copy`. In an idle
    independent set whole regions are ready before their first write (invariant 7). Only there may
    the disk hold more shadow bits than memory.
    """

    __slots__ = ("_hot", "copy", "ready", "shadow")

    def __init__(self, shadow: Bitmap, copy: Bitmap, ready: Bitmap | None = None) -> None:
        """Adopt bitmaps whose content is durable.

        `ready` is the shadow bits without the copy bits. A caller that has it already passes it on,
        because to compute it takes a while.
        """
        self.shadow, self.copy = shadow, copy
        self.ready = _ready(shadow, copy) if ready is None else ready
        self._hot: OrderedDict[int, None] = OrderedDict()

    @classmethod
    def blank(cls, chunks: int) -> "Bits":
        """Bits that are all zero."""
        return cls(Bitmap(chunks), Bitmap(chunks))

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return self.shadow.chunks

    def counts(self, first: int, count: int) -> tuple[int, int, int]:
        """Count the bits of `count` sectors from `first` on.

        Returns (shadow bits, copy bits, chunks with either of them).
        """
        rows = slice(first, first + count)
        shadow, copy = self.shadow.packed[rows], self.copy.packed[rows]
        return count_ones(shadow), count_ones(copy), count_ones(shadow | copy)

    def note_if_ready(self, first: int, count: int) -> bool:
        """May the run be written at once? If so, this notes the write in memory (invariant 7).

        This is the fast path of every write. If the answer is no, the plan of the first touch notes
        those chunks of the run that are ready (touch.Note).
        """
        if not self.ready.all(first, count):
            return False
        if self._hot and not self.shadow.all(first, count):
            self.shadow.set(first, count)
        return True

    def mark(self, runs: Sequence[Run], ahead: Sequence[int]) -> list[Run]:
        """Begin to mark chunks and to mark whole regions ahead.

        Returns the runs whose shadow bits change on disk. The caller writes what the disk has to
        hold (`disk_rows`), syncs it, and then calls `settle`. Until then the bits in memory stay as
        they are. What the new bits say, for example that a chunk was preserved, may not be true
        yet. And if the write fails, nothing has to be undone.
        """
        if not ahead:
            return list(runs)
        return [*runs, *map(self.region, ahead), *self._heat(ahead)]

    def settle(self, runs: Sequence[Run], ahead: Sequence[int]) -> None:
        """Let the bits in memory follow marks that are durable now.

        The shadow bits become 1, the copy bits 0, and the chunks are ready.
        """
        for first, count in runs:
            self.shadow.set(first, count)
            self.copy.clear(first, count)
            self.ready.set(first, count)
        for number in ahead:
            if number in self._hot:
                self.ready.set(*self.region(number))

    def region(self, number: int) -> Run:
        """The chunks of a region, cut at the end of the volume."""
        first = number * REGION_CHUNKS
        return first, min(REGION_CHUNKS, self.chunks - first)

    def _heat(self, ahead: Sequence[int]) -> list[Run]:
        """Make regions hot. Returns the regions that had to cool, which may be some of `ahead`."""
        for number in ahead:
            self._hot[number] = None
        cooled = []
        while len(self._hot) > HOT_REGIONS_MAX:
            cooled.append(self._cool(self._hot.popitem(last=False)[0]))
        return cooled

    def _cool(self, number: int) -> Run:
        first, count = self.region(number)
        exact = self.shadow.word(first, count) & self.ready.word(first, count)
        self.ready.clear(first, count)
        self.ready.set_runs(runs_of(exact, first))  # without the bits whose marks failed
        return first, count

    def cool_all(self) -> None:
        """Cool all regions, so that the bits which are written next are exact (invariant 7)."""
        while self._hot:
            self._cool(self._hot.popitem()[0])

    def disk_rows(
        self,
        region: Region,
        first: int,
        count: int,
        ahead: Sequence[int],
        marks: Iterable[Run] = (),
    ) -> Packed:
        """What `count` sectors from `first` on have to hold: shape (count, 508), dtype uint8.

        `marks` are the runs that are marked now, and `ahead` the regions that are marked ahead with
        them. On disk their shadow bits are 1 and their copy bits 0 from now on.
        """
        window = Bitmap(count * SECTOR_CHUNKS, self._rows(region, first, count))
        change = window.clear if region is Region.COPY else window.set
        for run in marks:
            change(*_within(run, first, window.chunks))
        if region is Region.SHADOW:
            for number in ahead:
                if number in self._hot:
                    window.set(*_within(self.region(number), first, window.chunks))
        return window.packed

    def _rows(self, region: Region, first: int, count: int) -> Packed:
        rows = slice(first, first + count)
        if region is Region.COPY:
            return self.copy.packed[rows].copy()
        if not self._hot:  # then `ready` has no bit that `shadow` has not
            return self.shadow.packed[rows].copy()
        return self.shadow.packed[rows] | self.ready.packed[rows]


def _within(run: Run, sector: int, chunks: int) -> Run:
    """The part of a run that lies in the window of `chunks` chunks from `sector` on.

    The result counts from the start of the window. It is (0, 0) if the run lies outside.
    """
    start = run[0] - sector * SECTOR_CHUNKS
    low, high = max(start, 0), min(start + run[1], chunks)
    return (low, high - low) if low < high else (0, 0)


def _ready(shadow: Bitmap, copy: Bitmap) -> Bitmap:
    packed = np.bitwise_not(copy.packed)
    np.bitwise_and(packed, shadow.packed, out=packed)
    return Bitmap(shadow.chunks, packed)


def regions_of(state: SetState, runs: Sequence[Run]) -> list[int]:
    """The regions to mark ahead together with `runs`. There are none where bits must be exact."""
    if not state.bits_are_hints:
        return []
    found: dict[int, None] = {}
    for first, count in runs:
        for number in range(first // REGION_CHUNKS, (first + count - 1) // REGION_CHUNKS + 1):
            found[number] = None
    return list(found)
