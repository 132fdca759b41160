"""Which raw volume shows a chunk."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.bits import Bits
from iifuse.core.geometry import CHUNK_BYTES, Geometry
from iifuse.core.state import Kind, Progress, SetState
from iifuse.core.views import master_on_shadow, shadow_on_shadow, split


@given(
    st.integers(0, 2**60 - 1),
    st.integers(0, 1000),
    st.integers(0, CHUNK_BYTES - 1),
    st.integers(1, 40 * CHUNK_BYTES),
)
def test_split_pieces_follow_the_bits(word, first, inside, length):
    offset = first * CHUNK_BYTES + inside
    count = Geometry(1 << 50).span(offset, length)[1]
    word &= (1 << count) - 1
    at, bits = offset, []
    for bit, piece, size in split(word, first, offset, length):
        assert piece == at
        assert size > 0
        touched = range(piece // CHUNK_BYTES, (piece + size - 1) // CHUNK_BYTES + 1)
        assert all((word >> (chunk - first) & 1) == bit for chunk in touched)
        bits.append(bit)
        at += size
    assert at == offset + length
    assert all(a != b for a, b in pairwise(bits))


def bits(shadow: int, copy: int) -> Bits:
    made = Bits.blank(4)
    for chunk in range(4):
        if shadow >> chunk & 1:
            made.shadow.set(chunk, 1)
        if copy >> chunk & 1:
            made.copy.set(chunk, 1)
    return made


def test_views_read_each_chunk_where_its_truth_is():
    """Design, section 3: chunk 0 no bit, 1 shadow bit, 2 copy bit, 3 both."""
    found = bits(0b1010, 0b1100)
    rows = {
        (Kind.DEPENDENT, Progress.IDLE): 0b1110,
        (Kind.DEPENDENT, Progress.TO_MASTER): 0b1110,
        (Kind.INDEPENDENT, Progress.IDLE): 0b1111,
        (Kind.INDEPENDENT, Progress.TO_SHADOW): 0b0011,
        (Kind.INDEPENDENT, Progress.TO_MASTER): 0b1111,
    }
    for (kind, progress), word in rows.items():
        assert shadow_on_shadow(SetState(kind, progress), found, 0, 4) == word
    assert master_on_shadow(found, 0, 4) == 0b1100
