"""How a volume of fixed size is cut into chunks."""

from dataclasses import dataclass
from typing import Final

from iifuse.units import Run

CHUNK_BYTES: Final = 32 * 1024
"""The unit of tracking and copying. It is the original's: 64 blocks of 512 bytes."""

CHUNK_SHIFT: Final = 15


@dataclass(frozen=True, slots=True)
class Geometry:
    """The chunks of a volume of `size_bytes` bytes; the last chunk may be partial."""

    size_bytes: int

    @property
    def chunks(self) -> int:
        """Number of chunks, the partial last one included."""
        return (self.size_bytes + CHUNK_BYTES - 1) >> CHUNK_SHIFT

    def span(self, offset: int, length: int) -> Run:
        """The run of chunks in which `length` bytes at `offset` lie; `length` is 1 at least."""
        first = offset >> CHUNK_SHIFT
        return first, ((offset + length - 1) >> CHUNK_SHIFT) - first + 1

    def extent(self, run: Run) -> tuple[int, int]:
        """(offset, length) in bytes of a run, cut at the end of the volume."""
        offset = run[0] << CHUNK_SHIFT
        return offset, min(run[1] << CHUNK_SHIFT, self.size_bytes - offset)

    def clip(self, offset: int, length: int) -> int:
        """How many of `length` bytes at `offset` lie inside the volume; 0 if none does."""
        left = self.size_bytes - offset
        return length if length <= left else max(0, left)
