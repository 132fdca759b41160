"""Which raw volume shows the truth of a chunk; iifuse-bitmap(5) says what the bits mean."""

from collections.abc import Iterator

from iifuse.core.bits import Bits
from iifuse.core.geometry import CHUNK_SHIFT
from iifuse.core.state import Kind, Progress, SetState


def shadow_on_shadow(state: SetState, bits: Bits, first: int, count: int) -> int:
    """Word of the chunks whose shadow view is read from the shadow; the others: from the master."""
    if state.kind is Kind.DEPENDENT:
        return bits.shadow.word(first, count) | bits.copy.word(first, count)
    if state.progress is Progress.TO_SHADOW:
        return ~bits.copy.word(first, count) & ((1 << count) - 1)
    return (1 << count) - 1


def master_on_shadow(bits: Bits, first: int, count: int) -> int:
    """Word of the chunks that a restore has still to bring: their master view is on the shadow."""
    return bits.copy.word(first, count)


def split(word: int, first: int, offset: int, length: int) -> Iterator[tuple[bool, int, int]]:
    """Cut an extent where the bits of `word` change: (bit, offset, length), ascending.

    Bit 0 of `word` belongs to chunk `first`, in which `offset` lies.
    """
    stop = offset + length
    while offset < stop:
        bit = word & 1
        same = word if bit else ~word
        run = (~same & (same + 1)).bit_length() - 1 if word or bit else stop
        end = min(stop, (first + run) << CHUNK_SHIFT)
        yield bool(bit), offset, end - offset
        word >>= run
        first, offset = first + run, end
