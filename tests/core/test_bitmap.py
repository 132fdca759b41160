"""A bitmap is a set of chunk numbers."""

from itertools import pairwise
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from iifuse.core.bitmap import SECTOR_BIT_BYTES, SECTOR_CHUNKS, Bitmap, runs_of, sector_runs

SIZES = st.one_of(
    st.integers(1, 200),
    st.sampled_from([SECTOR_CHUNKS - 1, SECTOR_CHUNKS, SECTOR_CHUNKS + 1, 3 * SECTOR_CHUNKS + 5]),
)


@st.composite
def runs(draw, chunks: int):
    first = draw(st.integers(0, chunks - 1))
    return first, draw(st.integers(1, min(chunks - first, 5000)))


def chunks_of(found) -> set[int]:
    return {c for first, count in found for c in range(first, first + count)}


class BitmapAgainstSet(RuleBasedStateMachine):
    @initialize(chunks=SIZES)
    def make(self, chunks):
        self.bitmap, self.model, self.chunks = Bitmap(chunks), set(), chunks

    def run(self, data):
        return data.draw(runs(self.chunks))

    @rule(data=st.data())
    def set(self, data):
        first, count = self.run(data)
        self.bitmap.set(first, count)
        self.model |= set(range(first, first + count))

    @rule(data=st.data())
    def clear(self, data):
        first, count = self.run(data)
        self.bitmap.clear(first, count)
        self.model -= set(range(first, first + count))

    @rule(data=st.data())
    def merge_and_drop(self, data):
        other, more = Bitmap(self.chunks), chunks_of([self.run(data), self.run(data)])
        for chunk in more:
            other.set(chunk, 1)
        if data.draw(st.booleans()):
            self.bitmap.merge(other)
            self.model |= more
        else:
            self.bitmap.drop(other)
            self.model -= more

    @rule(full=st.booleans())
    def fill_or_zero(self, full):
        (self.bitmap.fill if full else self.bitmap.zero)()
        self.model = set(range(self.chunks)) if full else set()

    @rule(data=st.data())
    def ask(self, data):
        first, count = self.run(data)
        asked = [n in self.model for n in range(first, first + count)]
        assert self.bitmap.all(first, count) == all(asked)
        assert self.bitmap.any(first, count) == any(asked)
        word = self.bitmap.word(first, count)
        assert [bool(word >> n & 1) for n in range(count)] == asked
        assert word >> count == 0
        later = [c for c in self.model if c >= first]
        assert self.bitmap.next_set(first) == min(later, default=None)
        limit = self.bitmap.run_from(first, count)
        assert limit == next((n for n, bit in enumerate(asked) if not bit), count)

    @rule(data=st.data(), room=st.integers(1, 5000), look=st.sampled_from([16, 1 << 14]))
    def gather(self, data, room, look):
        first, count = self.run(data)
        with patch("iifuse.core.bitmap.GATHER_CHUNKS", look):
            found = self.bitmap.gather(first, first + count, room)
        for run, following in pairwise(found):
            assert sum(run) < following[0], "runs are ascending, and as long as they can be"
        got = sorted(chunks_of(found))
        assert got == sorted(c for c in self.model if first <= c < first + count)[: len(got)]
        assert len(got) <= room
        assert got or not self.bitmap.any(first, count)

    @rule()
    def copy_is_independent(self):
        twin = self.bitmap.copy()
        twin.fill()
        assert self.bitmap.count() == len(self.model)

    @invariant()
    def same_bits(self):
        if hasattr(self, "bitmap"):
            assert self.bitmap.count() == len(self.model)
            assert self.bitmap.is_zero() == (not self.model)
            found = list(self.bitmap.runs())
            assert chunks_of(found) == self.model
            assert all(a + n < b for (a, n), (b, _) in pairwise(found))
            assert_tail_is_zero(self.bitmap)


def assert_tail_is_zero(bitmap: Bitmap) -> None:
    value = int.from_bytes(bitmap.packed.tobytes(), "little")
    assert value >> bitmap.chunks == 0


TestBitmapAgainstSet = BitmapAgainstSet.TestCase


@given(st.integers(0, 2**70), st.integers(0, 10**6))
def test_runs_of_word_are_its_bits(word, first):
    assert chunks_of(runs_of(word, first)) == {
        first + n for n in range(word.bit_length()) if word >> n & 1
    }


@given(st.lists(runs(5 * SECTOR_CHUNKS), max_size=5))
def test_sector_runs_cover_every_chunk_once(found):
    sectors = sector_runs(found)
    covered = [s for first, count in sectors for s in range(first, first + count)]
    assert covered == sorted(set(covered))
    assert set(covered) == {c // SECTOR_CHUNKS for c in chunks_of(found)}
    assert all(a + n < b for (a, n), (b, _) in pairwise(sectors))


def test_bitmap_packing_is_that_of_the_format():
    """Bit n of byte b of sector s is chunk 4064 s + 8 b + n (iifuse-bitmap(5))."""
    bitmap = Bitmap(2 * SECTOR_CHUNKS)
    bitmap.set(SECTOR_CHUNKS + 8 * 3 + 5, 1)
    assert bitmap.packed.shape == (2, SECTOR_BIT_BYTES)
    assert bitmap.packed[1, 3] == 1 << 5
