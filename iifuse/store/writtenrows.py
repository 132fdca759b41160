"""Which sectors of a bitmap volume hold zeros already, so that zeros need not be written there.

docs/decisions/points-in-time.md says what that gains and what was rejected.
"""

import threading
from collections.abc import Callable
from typing import Final

import numpy as np

from iifuse.core.bitmap import SECTOR_BIT_BYTES, Rows, rows_set, words_of
from iifuse.core.sector import SECTOR_BYTES
from iifuse.store.volume import Buffer

_FEW: Final = 8
_ZEROS: Final = bytes(SECTOR_BIT_BYTES)


class WrittenRows:
    """Knows for each sector whether its last write wrote zeros and has succeeded.

    A sector that is not known counts as not zero: every sector of a volume that was just opened,
    one whose write is under way or has failed, and one that was written while other writes were
    under way. So this does not rely on the bits in memory.
    """

    def __init__(self, count: int) -> None:
        """`count`: the number of sectors of both bitmaps."""
        self._not_zero = np.ones(count, np.bool_)
        self._flags = self._not_zero.data.cast("B")
        """The same memory as bytes: for one or two sectors this is faster than numpy."""
        self._order = threading.Lock()
        self._begun = self._running = 0

    def learn(self, first: int, not_zero: Rows) -> None:
        """Learn what sectors hold that were read from a durable volume; `not_zero`: dtype bool."""
        self._not_zero[first : first + len(not_zero)] = not_zero

    def not_zero(self, first: int, count: int) -> Rows:
        """Which sectors may hold something else than zeros: a view, shape (count,), dtype bool."""
        return self._not_zero[first : first + count]

    def write(self, first: int, blob: Buffer, write: Callable[[], object]) -> None:
        """Call `write`, which writes the sectors `blob` from `first` on. Raises what it raises."""
        stop, found = first + len(blob) // SECTOR_BYTES, None
        with self._order:
            alone = not self._running
            self._begun, self._running = self._begun + 1, self._running + 1
            number = self._begun
            self._flags[first:stop] = b"\1" * (stop - first)
        try:
            write()
            found = _rows_set(blob)
        finally:
            with self._order:
                self._running -= 1
                if found and alone and self._begun == number:  # else the last write is not known
                    self._flags[first:stop] = found


def _rows_set(blob: Buffer) -> bytes:
    """Which sectors have a bit set: a byte for each, 1 or 0."""
    count = len(blob) // SECTOR_BYTES
    if count == 1:  # mostly by a first touch
        return b"\0" if blob[:SECTOR_BIT_BYTES] == _ZEROS else b"\1"
    if count <= _FEW:
        starts = range(0, len(blob), SECTOR_BYTES)
        return bytes([blob[at : at + SECTOR_BIT_BYTES] != _ZEROS for at in starts])
    rows = np.frombuffer(blob, np.uint8).reshape(count, SECTOR_BYTES)
    return rows_set(words_of(rows)[:, : SECTOR_BIT_BYTES // 4]).tobytes()
