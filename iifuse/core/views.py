"""From which raw volume a chunk has to be read. iifuse-bitmap(5) says what the bits mean."""

from collections.abc import Iterator

from iifuse.core.bitmap import low_ones, low_zeros
from iifuse.core.bits import Bits
from iifuse.core.geometry import CHUNK_SHIFT
from iifuse.core.state import Kind, Progress, SetState


def shadow_on_shadow(state: SetState, bits: Bits, first: int, count: int) -> int:
    """The word of the chunks that the shadow's view reads from the shadow.

    It reads the others from the master.
    """
    if state.kind is Kind.DEPENDENT:
        return bits.shadow.word(first, count) | bits.copy.word(first, count)
    if state.progress is Progress.TO_SHADOW:
        return ~bits.copy.word(first, count) & ((1 << count) - 1)
    return (1 << count) - 1


def master_on_shadow(bits: Bits, first: int, count: int) -> int:
    """The word of the chunks that the master's view reads from the shadow, during a restore."""
    return bits.copy.word(first, count)


def split(word: int, first: int, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
    """Cut an extent where the bits of `word` change. Yields (bit, offset, length), ascending.

    Offsets and lengths are in bytes. Bit 0 of `word` belongs to chunk `first`, in which `offset`
    lies.
    """
    stop = offset + length
    while offset < stop:
        is_set = bool(word & 1)
        if not word:  # all chunks that are left have the bit 0
            yield False, offset, stop - offset
            return
        count = low_ones(word) if is_set else low_zeros(word)
        end = min(stop, (first + count) << CHUNK_SHIFT)
        yield is_set, offset, end - offset
        word >>= count
        first, offset = first + count, end
