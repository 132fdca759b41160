"""Copies from one volume to another, long ones and many short ones; every call blocks."""

from typing import Final

from iifuse.store.volume import Volume

_PIECE_BYTES: Final = 1 << 20


class Copying:
    """Copies extents of one volume to another; holes of the source become zeros of the target.

    For a few extents that nobody else writes to: it remembers up to where the source has data,
    because a file system answers that by going through the file's extents.
    """

    def __init__(self, source: Volume, target: Volume) -> None:
        self.source, self.target = source, target
        self._data = 0, 0

    def extent(self, offset: int, length: int) -> int:
        """Copy an extent; returns bytes of data."""
        stop, copied = offset + length, 0
        while offset < stop:
            self._look(offset)
            start, end = max(offset, min(self._data[0], stop)), min(self._data[1], stop)
            if start > offset:
                self.target.zero(offset, start - offset)
            for at in range(start, end, _PIECE_BYTES):
                step = min(_PIECE_BYTES, end - at)
                self.target.write(at, self.source.read(at, step))
                copied += step
            offset = end
        return copied

    def _look(self, offset: int) -> None:
        if not self._data[0] <= offset < self._data[1]:
            self._data = self.source.data_from(offset, self.source.size_bytes)

    def hole_stop(self, offset: int, stop: int) -> int:
        """Where one of the volumes has data again; `offset`: no hole, `stop`: hole to there."""
        self._look(offset)
        start = min(max(offset, self._data[0]), stop)
        return self.target.data_from(offset, start)[0] if start > offset else offset
