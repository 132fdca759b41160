"""Bitmaps: one bit for each chunk, packed. A bitmap has 1/262144 of the size of its volume.

A request takes its bits as a Python integer from a byte buffer. A small numpy array would cost
about a microsecond for each operation, which is more than the whole test. Whole bitmaps are handled
with numpy.
"""

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from iifuse.units import Run, ceil_div, stop_of

SECTOR_CHUNKS: Final = 4064
"""Chunks whose bits stand in one 512-byte sector of a bitmap volume, in 508 bytes of it."""

SECTOR_BIT_BYTES: Final = SECTOR_CHUNKS // 8
"""Bytes of bits in one sector; the other 4 bytes are the checksum."""

_SEARCH_BYTES: Final = 64 * 1024
"""Bytes of a bitmap that are searched for a set bit at a time."""

GATHER_CHUNKS: Final = 1 << 14
"""Chunks among which scattered runs are looked for at a time: 512 MiB, in 50 microseconds."""

Packed = npt.NDArray[np.uint8]
"""shape (sectors, 508), dtype uint8, bit n of byte b of sector s is chunk 4064 s + 8 b + n."""

Words = npt.NDArray[np.uint32]
"""shape (sectors, 127), dtype uint32: the bytes of `Packed`."""

Rows = npt.NDArray[np.bool_]
"""shape (sectors,), dtype bool: one for each sector."""


def sectors_for(chunks: int) -> int:
    """Number of sectors that hold the bits of `chunks` chunks."""
    return ceil_div(chunks, SECTOR_CHUNKS)


def words_of(rows: Packed) -> Words:
    """The same rows as 32-bit words: numpy handles these several times as fast as bytes."""
    return np.ascontiguousarray(rows).view(np.uint32)


def rows_set(words: Words) -> Rows:
    """For each row: is a bit set in it?"""
    found: Rows = np.bitwise_or.reduce(words, axis=1) != 0
    return found


def count_ones(rows: Packed) -> int:
    """Number of set bits."""
    return int(np.bitwise_count(words_of(rows)).sum(dtype=np.int64))


def low_zeros(word: int) -> int:
    """How many of the lowest bits of `word` are 0. The word must not be 0."""
    lowest = word & -word
    return lowest.bit_length() - 1


def low_ones(word: int) -> int:
    """How many of the lowest bits of `word` are 1."""
    return low_zeros(~word)


def runs_of(word: int, first: int) -> list[Run]:
    """The runs of set bits of `word`, whose bit 0 is chunk `first`, ascending."""
    runs: list[Run] = []
    while word:
        skip = low_zeros(word)
        word >>= skip
        ones = low_ones(word)
        runs.append((first + skip, ones))
        word >>= ones
        first += skip + ones
    return runs


class Bitmap:
    """A bitmap over `chunks` chunks that can be changed. All bits are clear at first.

    A *word* is a Python integer whose bit 0 belongs to the first chunk that was asked for. Bits
    past the last chunk are always 0. The class is not safe for threads: the service changes bits on
    its event loop only.
    """

    __slots__ = ("_bytes", "_view", "chunks", "packed")

    def __init__(self, chunks: int, packed: Packed | None = None) -> None:
        """Adopt the array `packed`: shape (sectors_for(chunks), 508), dtype uint8; None: zeros."""
        self.chunks = chunks
        self.packed: Packed = (
            np.zeros((sectors_for(chunks), SECTOR_BIT_BYTES), np.uint8)
            if packed is None
            else packed
        )
        self._view = self.packed.reshape(-1)
        self._bytes = self._view.data

    @classmethod
    def from_disk(cls, chunks: int, packed: Packed) -> "Bitmap":
        """Adopt an array that was read from a disk. Bits past the last chunk are cleared."""
        assert packed.shape == (sectors_for(chunks), SECTOR_BIT_BYTES)
        bitmap = cls(chunks, packed)
        bitmap._clear_tail()
        return bitmap

    def copy(self, into: "Bitmap | None" = None) -> "Bitmap":
        """A new bitmap with the same bits. `into`: overwrite this one instead, of equal size."""
        if into is None:
            return Bitmap(self.chunks, self.packed.copy())
        assert self.chunks == into.chunks
        np.copyto(into.packed, self.packed)
        return into

    def word(self, first: int, count: int) -> int:
        """The bits of `count` chunks from `first` on, as a word."""
        shift = first & 7
        if shift + count <= 8:  # a short request: all bits stand in one byte
            return self._bytes[first >> 3] >> shift & ((1 << count) - 1)
        data = self._bytes[first >> 3 : (first + count + 7) >> 3]
        return int.from_bytes(data, "little") >> shift & ((1 << count) - 1)

    def all(self, first: int, count: int) -> bool:
        """Is every bit of the run set?"""
        return self.word(first, count) == (1 << count) - 1

    def any(self, first: int, count: int) -> bool:
        """Is any bit of the run set?"""
        return self.word(first, count) != 0

    def set(self, first: int, count: int) -> None:
        """Set the bits of a run."""
        shift = first & 7
        if shift + count <= 8:
            self._bytes[first >> 3] |= ((1 << count) - 1) << shift
            return
        start, stop = first >> 3, (first + count + 7) >> 3
        value = int.from_bytes(self._bytes[start:stop], "little")
        value |= ((1 << count) - 1) << shift
        self._bytes[start:stop] = value.to_bytes(stop - start, "little")

    def clear(self, first: int, count: int) -> None:
        """Clear the bits of a run."""
        shift = first & 7
        if shift + count <= 8:
            self._bytes[first >> 3] &= ~(((1 << count) - 1) << shift)
            return
        start, stop = first >> 3, (first + count + 7) >> 3
        value = int.from_bytes(self._bytes[start:stop], "little")
        value &= ~(((1 << count) - 1) << shift)
        self._bytes[start:stop] = value.to_bytes(stop - start, "little")

    def set_runs(self, runs: Iterable[Run]) -> None:
        """Set the bits of several runs."""
        for run in runs:
            self.set(*run)

    def clear_runs(self, runs: Iterable[Run]) -> None:
        """Clear the bits of several runs."""
        for run in runs:
            self.clear(*run)

    def fill(self) -> None:
        """Set every bit."""
        self.packed[:] = 0xFF
        self._clear_tail()

    def zero(self) -> None:
        """Clear every bit."""
        self.packed[:] = 0

    def _clear_tail(self) -> None:
        whole, rest = divmod(self.chunks, 8)
        if rest:
            self._view[whole] &= (1 << rest) - 1
            whole += 1
        self._view[whole:] = 0

    def merge(self, other: "Bitmap") -> None:
        """Set every bit that is set in `other`, which covers as many chunks."""
        assert self.chunks == other.chunks
        np.bitwise_or(self.packed, other.packed, out=self.packed)

    def drop(self, other: "Bitmap") -> None:
        """Clear every bit that is set in `other`, which covers as many chunks."""
        assert self.chunks == other.chunks
        np.bitwise_and(self.packed, ~other.packed, out=self.packed)

    def count(self) -> int:
        """Number of set bits."""
        return count_ones(self.packed)

    def is_zero(self) -> bool:
        """Is no bit set?"""
        return not np.bitwise_or.reduce(words_of(self.packed), axis=None)

    def rows_set(self) -> Rows:
        """Which sectors have a bit set."""
        return rows_set(words_of(self.packed))

    def next_set(self, first: int) -> int | None:
        """The first chunk from `first` on whose bit is set, or None."""
        start = first >> 3
        if start >= len(self._view):
            return None
        head = self._bytes[start] >> (first & 7)
        if head:
            return first + low_zeros(head)
        for at in range(start + 1, len(self._view), _SEARCH_BYTES):
            block = self._view[at : at + _SEARCH_BYTES]
            found = int(np.argmax(block != 0))
            if block[found]:
                return (at + found) * 8 + low_zeros(int(block[found]))
        return None

    def run_from(self, first: int, limit: int) -> int:
        """How many bits in a row are set from `first` on. At most `limit` are counted."""
        return low_ones(self.word(first, min(limit, self.chunks - first)))

    def runs(self) -> Iterator[Run]:
        """All runs of set bits, ascending."""
        yield from _runs(self._view, 0, self.chunks)

    def runs_in(self, first: int, stop: int) -> Iterator[Run]:
        """The runs of set bits among chunks `first` to `stop - 1`, cut at both ends."""
        begin = first & ~7
        if first < stop:
            runs = _runs(self._view[begin >> 3 :], begin, stop - begin)
            yield from _fitting(runs, first, stop - first)

    def gather(self, first: int, stop: int, room: int) -> list[Run]:
        """Find the next runs of set bits among chunks `first` to `stop - 1`, ascending.

        The runs have at most `room` chunks together. The result is one run of any length, or
        several runs that lie within GATHER_CHUNKS chunks. It is empty if no bit is set.
        """
        start = self.next_set(first)
        if start is None or start >= stop:
            return []
        limit = min(room, stop - start)
        count = self.run_from(start, min(limit, GATHER_CHUNKS))
        if count == GATHER_CHUNKS:
            count = self.run_from(start, limit)
        if count >= min(limit, GATHER_CHUNKS):  # one run is enough
            return [(start, count)]
        base = start & ~7
        length = min(GATHER_CHUNKS, stop - base, self.chunks - base)
        return _fitting(_runs(self._view[base >> 3 :], base, length), start, room)


def _runs(view: Packed, base: int, count: int) -> Iterator[Run]:
    """The runs of set bits among the first `count` bits of `view`; the first is chunk `base`."""
    bits = np.unpackbits(view[: (count + 7) >> 3], count=count, bitorder="little").view(np.int8)
    edges = np.diff(bits, prepend=0, append=0)
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    yield from zip((starts + base).tolist(), (stops - starts).tolist(), strict=True)


def _fitting(runs: Iterable[Run], start: int, room: int) -> list[Run]:
    """The first runs from chunk `start` on. They are cut to `room` chunks together."""
    found: list[Run] = []
    for first, count in runs:
        stop = first + count
        begin = max(first, start)
        if begin < stop:
            found.append((begin, min(stop - begin, room)))
            room -= found[-1][1]
        if not room:
            break
    return found


def sector_runs(runs: Iterable[Run]) -> list[Run]:
    """The sectors that hold the bits of `runs`, as (first sector, count), merged and ascending."""
    runs = list(runs)
    if len(runs) == 1:
        first, count = runs[0]
        start = first // SECTOR_CHUNKS
        return [(start, (first + count - 1) // SECTOR_CHUNKS + 1 - start)]
    touched = sorted({s for first, count in runs for s in _sectors(first, count)})
    merged: list[Run] = []
    for sector in touched:
        if merged and stop_of(merged[-1]) == sector:
            merged[-1] = (merged[-1][0], merged[-1][1] + 1)
        else:
            merged.append((sector, 1))
    return merged


def _sectors(first: int, count: int) -> range:
    return range(first // SECTOR_CHUNKS, (first + count - 1) // SECTOR_CHUNKS + 1)
