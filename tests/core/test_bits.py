"""Ready chunks, regions marked ahead, and what the disk has to hold (invariants 1 and 7)."""

from itertools import chain
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap
from iifuse.core.bits import HOT_REGIONS_MAX, REGION_CHUNKS, Bits, regions_of
from iifuse.core.sector import Region
from iifuse.core.state import Kind, Progress, SetState
from iifuse.core.touch import Mark, Member, Note, Side, Touch, first_touch

CHUNKS = 2 * SECTOR_CHUNKS + 100
IDLE = SetState(Kind.INDEPENDENT)


def chunks_of(bitmap: Bitmap) -> set[int]:
    return {c for first, count in bitmap.runs() for c in range(first, first + count)}


def disk_of(bits: Bits, ahead=(), marks=()) -> set[int]:
    rows = bits.disk_rows(Region.SHADOW, 0, len(bits.shadow.packed), list(ahead), marks)
    return chunks_of(Bitmap(bits.chunks, rows.copy()))


def write(bits: Bits, first: int, count: int) -> None:
    """What a write does in an idle independent set: cover it, or follow the plan."""
    if bits.note_if_ready(first, count):
        return
    member = Member(UUID(int=1), IDLE, bits)
    touch = Touch(Side.MASTER, None, first, count)
    for step in chain(*first_touch([member], [touch], ordered=True)):
        if isinstance(step, Note):
            bits.shadow.set_runs(step.runs)
        elif isinstance(step, Mark):
            bits.mark(list(step.runs), list(step.ahead))
            bits.settle(list(step.runs), list(step.ahead))


run_strategy = st.tuples(st.integers(0, CHUNKS - 1), st.integers(1, 300)).map(
    lambda r: (r[0], min(r[1], CHUNKS - r[0]))
)


@given(st.lists(run_strategy, max_size=12))
def test_bits_of_every_write_are_noted_and_the_disk_holds_at_least_them(writes):
    bits, written = Bits.blank(CHUNKS), set()
    for first, count in writes:
        write(bits, first, count)
        written |= set(range(first, first + count))
        assert chunks_of(bits.shadow) == written
        assert written <= chunks_of(bits.ready) <= disk_of(bits)
    bits.cool_all()
    assert disk_of(bits) == written == chunks_of(bits.ready)


@given(st.lists(st.integers(0, CHUNKS // REGION_CHUNKS - 1), min_size=1, max_size=8))
def test_bits_marked_ahead_are_whole_regions_of_the_writes(numbers):
    bits = Bits.blank(CHUNKS)
    for number in numbers:
        write(bits, number * REGION_CHUNKS + 5, 1)
    ahead = {c for n in numbers for c in range(n * REGION_CHUNKS, (n + 1) * REGION_CHUNKS)}
    assert disk_of(bits) <= ahead


def test_bits_hot_regions_are_bounded():
    chunks = (HOT_REGIONS_MAX + 20) * REGION_CHUNKS
    bits = Bits.blank(chunks)
    for number in range(HOT_REGIONS_MAX + 20):
        write(bits, number * REGION_CHUNKS, 1)
    extra = len(disk_of(bits)) - bits.shadow.count()
    assert 0 < extra <= HOT_REGIONS_MAX * (REGION_CHUNKS - 1)


def test_bits_in_a_batch_larger_than_the_hot_regions_are_ready_only_where_the_disk_holds_them():
    count = HOT_REGIONS_MAX + 20
    bits = Bits.blank(count * REGION_CHUNKS)
    runs = [(n * REGION_CHUNKS, 1) for n in range(count)]
    bits.mark(runs, list(range(count)))
    disk = disk_of(bits, range(count), runs)
    bits.settle(runs, list(range(count)))
    assert chunks_of(bits.ready) <= disk
    extra = bits.ready.count() - bits.shadow.count()
    assert extra <= HOT_REGIONS_MAX * (REGION_CHUNKS - 1)


def test_bits_marks_are_written_before_they_are_ready():
    bits = Bits.blank(CHUNKS)
    bits.mark([(7, 2)], [0])
    assert not bits.note_if_ready(7, 1)
    assert disk_of(bits, [0], [(7, 2)]) == set(range(REGION_CHUNKS))


def test_bits_of_a_mark_that_is_never_written_are_in_no_later_one():
    bits = Bits.blank(CHUNKS)
    bits.mark([(7, 2)], [])
    bits.mark([(20, 1)], [])
    assert disk_of(bits, [], [(20, 1)]) == {20}


def test_bits_of_a_chunk_still_to_be_copied_are_not_ready():
    shadow, copy = Bitmap(10), Bitmap(10)
    shadow.fill()
    copy.set(4, 2)
    bits = Bits(shadow, copy)
    assert not bits.note_if_ready(3, 2)
    assert bits.note_if_ready(6, 4)


def test_bits_are_marked_ahead_only_in_an_idle_independent_set():
    assert SetState(Kind.INDEPENDENT).bits_are_hints
    for kind in Kind:
        for progress in (Progress.TO_SHADOW, Progress.TO_MASTER):
            assert not SetState(kind, progress).bits_are_hints
    assert not SetState(Kind.DEPENDENT).bits_are_hints
    assert regions_of(SetState(Kind.DEPENDENT), [(0, 1)]) == []
