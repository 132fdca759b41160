"""Every row of the state table, and what each verb does to the bits."""

from itertools import product
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iifuse import errors
from iifuse.core.bitmap import Bitmap
from iifuse.core.change import Commit, WriteBitmap, copy_after, give_up, shadow_after
from iifuse.core.sector import Region
from iifuse.core.state import (
    Change,
    Custody,
    Kind,
    Progress,
    Role,
    SetState,
    Verb,
    change_for,
    check,
)
from iifuse.core.touch import Sync

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
US, UM, CS, CM, D, E = (
    Verb.UPDATE_SHADOW, Verb.UPDATE_MASTER, Verb.COPY_SHADOW, Verb.COPY_MASTER,
    Verb.DISABLE, Verb.EXPORT,
)  # fmt: skip

TABLE = {
    "idle, local": (SetState(IND), {US, UM, CS, CM, D, E}),
    "idle, local, dependent": (SetState(DEP), {US, UM, CS, CM, D}),
    "to_shadow, running": (SetState(IND, Progress.TO_SHADOW, copying=True), {US, CS}),
    "to_shadow, aborted": (SetState(IND, Progress.TO_SHADOW), {US, CS, D}),
    "to_master, running": (SetState(IND, Progress.TO_MASTER, copying=True), set()),
    "to_master, running, dependent": (SetState(DEP, Progress.TO_MASTER, copying=True), set()),
    "to_master, aborted": (SetState(IND, Progress.TO_MASTER), {UM, CM}),
    "to_master, aborted, dependent": (SetState(DEP, Progress.TO_MASTER), {UM, CM}),
    "exported": (SetState(IND, custody=Custody.EXPORTED), {D}),
    "imported": (SetState(IND, custody=Custody.IMPORTED), {D}),
}
"""Row of the table -> (state, what it allows); `-a`, `-w`, `-J` are the engine's to judge."""


@pytest.mark.parametrize(("row", "verb"), list(product(TABLE, Verb)))
def test_state_table_allows_and_refuses(row, verb):
    state, allowed = TABLE[row]
    if verb in allowed:
        check("/s", state, verb)
        return
    with pytest.raises(errors.IifuseError) as caught:
        check("/s", state, verb)
    assert isinstance(caught.value, errors.Refused | errors.CopyRunning)
    assert caught.value.subject == "/s"
    assert caught.value.todo, "a refusal says what to do"


@pytest.mark.parametrize("row", [r for r in TABLE if "running" in r])
def test_state_refusal_while_a_copy_runs_exits_with_1(row):
    state, allowed = TABLE[row]
    for verb in {UM, CM, US, CS} - allowed:
        with pytest.raises(errors.CopyRunning) as caught:
            check("/s", state, verb)
        assert caught.value.exit_code == 1


@pytest.mark.parametrize(("verb", "role"), list(product([US, UM, CS, CM, E], Role)))
def test_state_with_a_volume_offline_makes_no_new_pit(verb, role):
    with pytest.raises(errors.Refused, match="offline"):
        check("/s", SetState(IND, offline=role), verb)
    check("/s", SetState(IND, offline=role), D)


def test_state_knows_an_aborted_restore():
    assert SetState(IND, Progress.TO_MASTER).is_aborted_restore
    assert not SetState(IND, Progress.TO_MASTER, copying=True).is_aborted_restore
    assert not SetState(IND, Progress.TO_SHADOW).is_aborted_restore


def test_state_copy_of_a_dependent_set_is_its_update():
    assert change_for(CS, DEP) is change_for(US, DEP) is Change.CLEAR
    assert change_for(CM, DEP) is change_for(UM, DEP) is Change.MERGE_TO_MASTER
    assert change_for(US, IND) is Change.MERGE_TO_SHADOW
    assert change_for(CS, IND) is Change.FILL_TO_SHADOW
    assert change_for(UM, IND) is Change.MERGE_TO_MASTER
    assert change_for(CM, IND) is Change.FILL_TO_MASTER


@given(st.sampled_from(Change), st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_change_of_the_copy_bits_may_be_repeated(change, shadow, copy):
    """Recovery repeats it with whatever of the two bitmaps has reached the disk (invariant 6)."""
    before, after = bitmap(copy), set(copy)
    if change in (Change.MERGE_TO_SHADOW, Change.MERGE_TO_MASTER):
        after |= shadow
    elif change in (Change.FILL_TO_SHADOW, Change.FILL_TO_MASTER):
        after = set(range(100))
    elif change is Change.GIVE_UP:
        after = set()
    once = copy_after(change, bitmap(shadow), before)
    assert chunks_of(once) == after
    assert chunks_of(before) == copy, "what is in memory stays until the change counts"
    assert chunks_of(copy_after(change, bitmap(set()), once)) == after
    assert chunks_of(copy_after(change, bitmap(shadow), once)) == after


@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)))
def test_giving_up_may_be_repeated_from_every_step(shadow, copy, gone):
    """The shadow bits gain first: no chunk of the restore is forgotten however far it came."""
    assert give_up(UUID(int=1))[1:] == (
        WriteBitmap(UUID(int=1), Region.SHADOW), Sync(UUID(int=1), Role.BITMAP),
        WriteBitmap(UUID(int=1), Region.COPY), Sync(UUID(int=1), Role.BITMAP),
        Commit(UUID(int=1)),
    )  # fmt: skip
    once = shadow_after(Change.GIVE_UP, bitmap(shadow), bitmap(copy))
    assert chunks_of(once) == shadow | copy
    again = shadow_after(Change.GIVE_UP, once, bitmap(copy - gone))
    assert chunks_of(again) == shadow | copy


@given(st.sets(st.integers(0, 99)), st.integers(0, 99), st.integers(0, 100))
def test_runs_of_a_part_are_those_of_the_whole_in_it(chunks, first, stop):
    found = bitmap(chunks).runs_in(first, max(first, stop))
    inside = {c for at, count in found for c in range(at, at + count)}
    assert inside == {c for c in chunks if first <= c < stop}


def bitmap(chunks: set[int]) -> Bitmap:
    made = Bitmap(100)
    made.set_runs((c, 1) for c in chunks)
    return made


def chunks_of(found: Bitmap) -> set[int]:
    return {c for first, count in found.runs() for c in range(first, first + count)}
