"""Bits that are lost: what a start makes up for them forgets nothing."""

from itertools import product
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.believe import OFFLINE, Meaning, bits_may_be_lost, meaning, replace_lost_bits
from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap
from iifuse.core.change import copy_after, shadow_after
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import Header
from iifuse.core.state import Change, Kind, Progress, Role

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
IDLE, TO_SHADOW, TO_MASTER = Progress.IDLE, Progress.TO_SHADOW, Progress.TO_MASTER
ROWS = 3
CHUNKS = ROWS * SECTOR_CHUNKS - 7
PLACES = [0, 1, SECTOR_CHUNKS - 1, SECTOR_CHUNKS, 2 * SECTOR_CHUNKS + 5, CHUNKS - 1]
"""Chunks that the cases speak of: at the ends of sectors, and of the volume."""

places = st.sets(st.sampled_from(PLACES))
rows = st.sets(st.integers(0, ROWS - 1))


def header(kind=IND, progress=IDLE, pending=Change.NONE, **more) -> Header:
    size = CHUNKS * CHUNK_BYTES
    return Header(UUID(int=1), kind, size, "/m", "/s", "/b", progress=progress, pending=pending,
                  **more)  # fmt: skip


def bitmap(chunks) -> Bitmap:
    made = Bitmap(CHUNKS)
    made.set_runs((chunk, 1) for chunk in chunks)
    return made


def inside() -> Bitmap:
    made = Bitmap(CHUNKS)
    made.fill()
    return made


def lose(bits: Bitmap, damaged) -> Bitmap:
    for row in damaged:
        bits.packed[row] = 0
    return bits


def count_for(bits: Bitmap) -> set[int]:
    return {chunk for chunk in PLACES if bits.any(chunk, 1)}


def in_rows(damaged) -> set[int]:
    return {chunk for chunk in PLACES if chunk // SECTOR_CHUNKS in damaged}


@pytest.mark.parametrize(
    ("change", "progress"),
    [
        *product((Change.MERGE_TO_SHADOW, Change.MERGE_TO_MASTER), [IDLE]),
        (Change.MERGE_TO_SHADOW, TO_SHADOW),
        (Change.FILL_TO_SHADOW, TO_SHADOW),
        (Change.GIVE_UP, TO_MASTER),
    ],
)
@given(shadow=places, copy=places, step=st.integers(0, 2), bad=st.tuples(rows, rows))
def test_change_that_was_cut_short_loses_no_chunk_to_damage(
    change, progress, shadow, copy, step, bad
):
    """Bits were lost in the middle of an update, and its shadow kept chunks of the day before.

    `step`: how far the change has come: nothing, one bitmap, or both are as they will be.
    """
    copy = set() if progress is IDLE else copy - shadow
    old = bitmap(shadow), bitmap(copy)
    new = shadow_after(change, *old), copy_after(change, *old)
    first, second = (0, 1) if change is Change.GIVE_UP else (1, 0)
    disk = [bits.copy() for bits in old]
    for place in (first, second)[:step]:
        disk[place] = new[place].copy()
    for place, damaged in enumerate(bad):
        lose(disk[place], damaged)
    replace_lost_bits(
        header(progress=progress, pending=change), disk[0].packed, disk[1].packed,
        inside().packed, bad,
    )  # fmt: skip
    done = shadow_after(change, *disk), copy_after(change, *disk)
    place = 0 if change is Change.GIVE_UP else 1
    assert count_for(done[place]) >= count_for(new[place])
    assert count_for(done[1 - place]) == set()


@given(shadow=places, bad=rows)
def test_damage_of_an_idle_independent_set_counts_as_different(shadow, bad):
    bits, copy = lose(bitmap(shadow), bad), bitmap(())
    assert replace_lost_bits(header(), bits.packed, copy.packed, inside().packed, (bad, ())) <= {
        Meaning.DIFFERENT
    }
    assert count_for(bits) == shadow | in_rows(bad)
    assert not bits.packed.reshape(-1)[(CHUNKS + 7) // 8 :].any(), "no chunk is past the end"


@pytest.mark.parametrize("progress", [TO_SHADOW, TO_MASTER])
@given(shadow=places, copy=places, bad=st.tuples(rows, rows))
def test_while_a_copy_runs_the_other_bitmap_stands_in(progress, shadow, copy, bad):
    copy -= shadow
    disk = [lose(bitmap(shadow), bad[0]), lose(bitmap(copy), bad[1])]
    found = replace_lost_bits(
        header(progress=progress), disk[0].packed, disk[1].packed, inside().packed, bad
    )
    both = in_rows(bad[0] & bad[1])
    left = count_for(disk[0]), count_for(disk[1])
    assert left[0] >= shadow - both
    assert left[1] >= copy - both
    lost = Meaning.RESTORED_ANEW if progress is TO_MASTER else Meaning.SHADOW_LOST
    assert (lost in found) == bool(bad[0] & bad[1])
    if progress is TO_MASTER:
        assert left[1] >= both
        assert not left[0] & both


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize(
    ("progress", "pending", "expected"),
    [
        (IDLE, Change.NONE, Meaning.SHADOW_LOST),
        (IDLE, Change.CLEAR, Meaning.NOTHING),
        (IDLE, Change.MERGE_TO_MASTER, Meaning.MASTER_LOST),
        (TO_MASTER, Change.NONE, Meaning.MASTER_LOST),
        (TO_MASTER, Change.GIVE_UP, Meaning.SHADOW_LOST),
    ],
)
def test_damage_of_a_dependent_set_is_never_made_up_for(progress, pending, expected, both):
    found = header(DEP, progress, pending)
    assert meaning(found, both=both) is expected
    bits = np.zeros((ROWS, SECTOR_CHUNKS // 8), np.uint8)
    copy = bits.copy()
    assert replace_lost_bits(found, bits, copy, inside().packed, ((1,), (1,) * both)) == {expected}
    assert not bits.any()
    assert not copy.any()


def test_only_what_a_verb_can_bring_back_goes_offline():
    assert OFFLINE == {Meaning.RESTORED_ANEW: Role.BITMAP, Meaning.SHADOW_LOST: Role.SHADOW}


@pytest.mark.parametrize("relaxed", [False, True])
@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("same_boot", [False, True])
def test_power_loss_overtakes_bits_under_durability_process_only(relaxed, clean, same_boot):
    here = UUID(int=5)
    boot_id = here if same_boot else UUID(int=4)
    found = header(process_durability=relaxed, clean=clean, boot_id=boot_id)
    assert bits_may_be_lost(found, here) == (relaxed and not clean and not same_boot)
