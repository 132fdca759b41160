"""Copies extents from one volume to another. Every call blocks."""

from typing import Final

from iifuse.store.volume import Buffer, Volume

SHORT_BYTES: Final = 64 << 10
"""Up to this length an extent is read without asking for holes, because asking takes longer. Zeros
that were read count as a hole."""

_PIECE_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(2 * _PIECE_BYTES)


class Copying:
    """Copies extents of one volume to another. Holes of the source become zeros of the target.

    An object is used for a few extents, and nobody else may write to them meanwhile. It remembers
    where the source has data, because a file system searches through the file's extents for that.
    """

    def __init__(self, source: Volume, target: Volume) -> None:
        self.source, self.target = source, target
        self._data = 0, 0

    def extent(self, offset: int, length: int) -> int:
        """Copy an extent. Returns how many bytes of data were copied, without the holes."""
        if length <= SHORT_BYTES and not self._is_known(offset):
            return _put(self.target, offset, self.source.read(offset, length))
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

    def _is_known(self, offset: int) -> bool:
        return self._data[0] <= offset < self._data[1]

    def _look(self, offset: int) -> None:
        if not self._is_known(offset):
            self._data = self.source.data_from(offset, self.source.size_bytes)

    def hole_stop(self, offset: int, stop: int) -> int:
        """Up to where both volumes have a hole from `offset` on, at most to `stop`.

        If there is no hole at `offset`, this is `offset`.
        """
        self._look(offset)
        start = min(max(offset, self._data[0]), stop)
        return self.target.data_from(offset, start)[0] if start > offset else offset


def copy_cached(source: Volume, target: Volume, offset: int, length: int) -> bool:
    """Copy an extent of at most 2 MiB, if it can be read without waiting for a disk; else False."""
    data = source.read_cached(offset, length)
    if data is None:
        return False
    _put(target, offset, data)
    return True


def _put(target: Volume, offset: int, data: Buffer) -> int:
    """Write what was read, or make a hole if it is all zeros. Returns the bytes of data."""
    if _ZEROS.startswith(data):
        target.zero(offset, len(data))
        return 0
    return target.write(offset, data)
