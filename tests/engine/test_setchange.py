"""A point in time writes only what it has to, and leaves the bitmap volume as if it wrote all."""

from contextlib import suppress
from dataclasses import replace
from functools import partial
from uuid import UUID

import pytest
from bitmaps import chunks_of
from fake_volume import FakeVolume
from hypothesis import given, settings
from hypothesis import strategies as st

from iifuse.core.bitmap import SECTOR_CHUNKS
from iifuse.core.bits import Bits, regions_of
from iifuse.core.change import CommitPending, copy_after, whole_change
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import Header, Pit
from iifuse.core.sector import HEADER_REGION_BYTES, SECTOR_BYTES, Region, bitmap_bytes
from iifuse.core.state import Change, Kind, Progress
from iifuse.core.transition import Transition
from iifuse.data.volumeset import VolumeSet
from iifuse.loop.loop import Loop
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.headerlog import HeaderLog
from iifuse.verbs.setchange import allocate_bitmaps, execute_change, prepare

SECTORS = 21
CHUNKS = (SECTORS - 1) * SECTOR_CHUNKS + 100
COMMAND = Transition(UUID(int=3), UUID(int=4), 5, ())


def new_set(*, opened_again: bool = False) -> VolumeSet:
    """An independent set with no bits; `opened_again`: nothing is known of what its disk holds."""
    header = Header(
        UUID(int=1), Kind.INDEPENDENT, CHUNKS * CHUNK_BYTES, "/m", "/s", "/b", pit=Pit(1)
    )
    volume = FakeVolume("/b", bytes(bitmap_bytes(CHUNKS)))
    bitmap = BitmapFile(volume)
    bits = Bits.blank(CHUNKS)
    for region in Region:
        bitmap.write_region(header, region, bits.copy)
    header = bitmap.write_header(header)
    if opened_again:
        bitmap = BitmapFile(volume)
        bitmap.read_header()
    return VolumeSet(Loop(), HeaderLog(header, bitmap), bits, None)


def flip(member: VolumeSet, change: Change) -> None:
    """A point in time, as pit.py makes it."""
    before = chunks_of(member.bits.shadow), chunks_of(member.bits.copy)
    wanted = chunks_of(copy_after(change, member.bits.shadow, member.bits.copy))
    part = prepare(member, change, COMMAND, allocate_bitmaps(member.bits, change))
    for step in [CommitPending(member.key), *whole_change(member.key, change)]:
        assert (chunks_of(member.bits.shadow), chunks_of(member.bits.copy)) == before
        execute_change(step, part, member.log)
    member.adopt(part.header)
    member.bits = Bits(part.shadow, part.copy, part.ready)
    assert chunks_of(member.bits.copy) == wanted
    assert chunks_of(member.bits.shadow) == chunks_of(member.bits.ready) == set()


def check(member: VolumeSet) -> None:
    """The file is, byte for byte, what writing everything would have made of it."""
    other = FakeVolume("/other", bytes(member.bitmap.volume.data))
    everything = BitmapFile(other)
    for region in Region:
        bits = member.bits.copy if region is Region.COPY else member.bits.shadow
        everything.write_region(member.header, region, bits)
    assert member.bitmap.volume.data == other.data


# -- what may happen before and between -------------------------------------------------------


def mark(member: VolumeSet, run: tuple[int, int], ends: str) -> None:
    """A first touch whose marks are settled, dropped by another step's failure, or fail."""
    state = member.state
    ahead = regions_of(state, [run])
    write = member.mark([run], ahead)
    if ends == "fails":  # and yet some of it was written
        volume = member.bitmap.volume
        volume.write = partial(_broken, volume.write)
        with suppress(OSError):
            write()
        del volume.write
    else:
        write()
    if ends == "settles":
        member.bits.settle([run], ahead)


def _broken(write, offset, data):
    write(offset, data)
    raise OSError(5, "planted")


def clear(member: VolumeSet, run: tuple[int, int]) -> None:
    member.clear([run])()


runs = st.tuples(st.integers(0, CHUNKS - 1), st.integers(1, 3 * SECTOR_CHUNKS)).map(
    lambda run: (run[0], min(run[1], CHUNKS - run[0]))
)
acts = st.one_of(
    st.tuples(st.just(mark), runs, st.sampled_from(("settles", "drops", "fails"))),
    st.tuples(st.just(clear), runs),
    st.tuples(st.just(flip), st.sampled_from([c for c in Change if c is not Change.NONE])),
)


@settings(max_examples=150, deadline=None)
@given(st.booleans(), st.lists(acts, max_size=8), st.sampled_from(list(Change)[1:]))
def test_flip_leaves_the_same_file_as_writing_everything(again, script, last):
    """Also when marks have failed before: what memory says of the disk is not relied on."""
    member = new_set(opened_again=again)
    for act, *arguments in script:
        if act is clear and not member.bits.copy.any(*arguments[0]):
            continue
        act(member, *arguments)
        if act is flip:
            progress = Progress.IDLE if member.bits.copy.is_zero() else Progress.TO_SHADOW
            member.amend(replace(member.header, progress=progress))
    flip(member, last)
    if last is Change.CLEAR:  # which leaves the copy region to what it was
        member.bitmap.write_region(member.header, Region.COPY, member.bits.copy)
    check(member)


def written(member: VolumeSet, change: Change) -> int:
    """Sectors of bits that a point in time writes."""
    count, volume = 0, member.bitmap.volume
    real = volume.write

    def write(offset: int, data: bytes) -> int:
        nonlocal count
        if offset >= HEADER_REGION_BYTES:
            count += len(data) // SECTOR_BYTES
        return real(offset, data)

    volume.write = write
    flip(member, change)
    del volume.write
    return count


def test_flip_writes_the_pages_of_changed_sectors_and_no_others():
    member = new_set()
    assert written(member, Change.CLEAR) == 0
    mark(member, (3 * SECTOR_CHUNKS, 1), "settles")
    assert written(member, Change.CLEAR) == 8
    assert written(member, Change.CLEAR) == 0
    mark(member, (9 * SECTOR_CHUNKS, 1), "drops")
    assert written(member, Change.MERGE_TO_SHADOW) == 8, "the bit on the disk goes, none is copied"
    mark(member, (9 * SECTOR_CHUNKS, 1), "settles")
    assert written(member, Change.MERGE_TO_SHADOW) == 16


def test_flip_of_a_volume_of_which_nothing_is_known_writes_all_of_it():
    member = new_set(opened_again=True)
    assert written(member, Change.MERGE_TO_SHADOW) == 2 * SECTORS
    assert written(member, Change.MERGE_TO_SHADOW) == 0


def test_flip_of_a_set_that_was_read_after_a_clean_stop_writes_what_changes():
    member = new_set(opened_again=True)
    for region in Region:
        member.bitmap.believe(member.header, region, member.bits.shadow)
    mark(member, (3 * SECTOR_CHUNKS, 1), "settles")
    assert written(member, Change.CLEAR) == 8


def test_flip_of_a_dirty_set_takes_memory_for_no_bitmap_that_it_has():
    member = new_set()
    shadow, copy = member.bits.shadow, member.bits.copy
    mark(member, (5, 1000), "settles")
    flip(member, Change.MERGE_TO_SHADOW)
    assert member.bits.copy is shadow
    assert member.bits.shadow is copy


@pytest.mark.parametrize("change", list(Change)[1:])
def test_flip_that_does_not_come_to_its_end_leaves_memory_as_it_was(change):
    member = new_set()
    mark(member, (7, 9000), "settles")
    member.bits.copy.set(20000, 5)
    before = [b.copy() for b in (member.bits.shadow, member.bits.copy, member.bits.ready)]
    prepare(member, change, COMMAND, allocate_bitmaps(member.bits, change))
    after = (member.bits.shadow, member.bits.copy, member.bits.ready)
    assert [chunks_of(b) for b in after] == [chunks_of(b) for b in before]


def test_flip_of_a_set_that_is_still_copied_keeps_what_is_to_be_copied():
    member = new_set()
    mark(member, (5, 1), "settles")
    flip(member, Change.MERGE_TO_SHADOW)
    member.amend(replace(member.header, progress=Progress.TO_SHADOW))
    mark(member, (7, 1), "settles")
    flip(member, Change.MERGE_TO_SHADOW)
    assert chunks_of(member.bits.copy) == {5, 7}
    check(member)
