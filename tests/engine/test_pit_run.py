"""The steps of a group's point in time: those of a set in the plan's order, sets side by side."""

import threading
from contextlib import suppress
from types import SimpleNamespace
from uuid import UUID

import pytest
import trio

from iifuse.core.bitmap import SECTOR_CHUNKS
from iifuse.core.bits import Bits
from iifuse.core.change import Act, Chains, point_in_time
from iifuse.core.state import Change, Role
from iifuse.core.touch import Sync
from iifuse.core.transition import Transition
from iifuse.data import counting
from iifuse.loop.loop import Loop
from iifuse.verbs import pit

KEYS = [UUID(int=n) for n in (1, 2, 3)]
COMMAND = Transition(UUID(int=9), UUID(int=8), 7, ())


class Rig:
    """A group whose steps are only noted; `breaks`: (set, name of a step) that fails."""

    def __init__(self, monkeypatch, breaks=None, together=None) -> None:
        self.diary: list[tuple[UUID | None, str]] = []
        self.breaks, self.together = breaks, together
        members = {key: SimpleNamespace(key=key, log=key) for key in KEYS}
        parts = {key: SimpleNamespace(change=Change.MERGE_TO_SHADOW)
                 for key in KEYS}  # fmt: skip
        transitions = SimpleNamespace(
            begin=lambda *_: self.note(None, "Record"), finish=lambda _: self.note(None, "Forget"),
            standing=(),
        )
        instance = SimpleNamespace(
            loop=Loop(),
            transitions=transitions,
            sets={},
            family=lambda member: SimpleNamespace(
                volume=lambda key, role: SimpleNamespace(
                    sync=lambda: self.note(key, f"Sync {role.name}")
                )
            ),
        )
        monkeypatch.setattr(
            pit, "execute_change", lambda s, _, key: self.note(key, type(s).__name__)
        )
        self.run = pit._Run(instance, members.values())
        self.run.parts, self.run.transition = parts, COMMAND

    async def all(self, until=Act.FORGET_RECORD):
        """What a point in time does from the gate on, as far as it is of this unit."""
        plan = point_in_time(dict.fromkeys(KEYS, Change.MERGE_TO_SHADOW))
        for phase in plan[plan.index(Act.CLOSE_GATES) : plan.index(until)]:
            if isinstance(phase, Chains) or phase is Act.RECORD:
                await self.run.do(phase)

    def note(self, key, name):
        if name == "Sync MASTER" and self.together:
            self.together.wait(60)
        if (key, name) == self.breaks:
            raise OSError(5, "planted", "/x")
        self.diary.append((key, name))

    def names(self, key):
        return [name for found, name in self.diary if found == key]


async def test_run_keeps_the_order_of_each_set_and_what_is_shared_in_between(monkeypatch):
    rig = Rig(monkeypatch)
    await rig.all()
    expected = ["Sync MASTER", "WriteBitmap", "Sync BITMAP", "WriteBitmap", "Sync BITMAP", "Commit"]
    assert all(rig.names(key) == expected for key in KEYS)
    at = rig.diary.index((None, "Record"))
    assert {name for _, name in rig.diary[:at]} == {"Sync MASTER"}
    assert "Sync MASTER" not in {name for _, name in rig.diary[at:]}
    assert rig.run.done == set(KEYS)


async def test_run_forgets_the_record_when_it_is_told_that_writes_go_on(monkeypatch):
    rig = Rig(monkeypatch)
    await rig.all()
    assert (None, "Forget") not in rig.diary
    await rig.run.do(Act.FORGET_RECORD)
    assert rig.diary[-1] == (None, "Forget")


async def test_run_syncs_the_sources_side_by_side(monkeypatch):
    rig = Rig(monkeypatch, together=threading.Barrier(len(KEYS)))
    await rig.all()  # else the barrier breaks
    assert rig.run.done == set(KEYS)


async def test_run_of_a_source_that_cannot_be_synced_makes_no_record(monkeypatch):
    rig = Rig(monkeypatch, breaks=(KEYS[1], "Sync MASTER"))
    with pytest.raises(OSError, match="planted"):
        await rig.all()
    assert {name for _, name in rig.diary} <= {"Sync MASTER"}


async def test_run_of_a_set_that_fails_after_the_record_goes_on_with_the_others(monkeypatch):
    rig = Rig(monkeypatch, breaks=(KEYS[1], "WriteBitmap"))
    await rig.all()
    await rig.run.do(Act.FORGET_RECORD)
    assert rig.names(KEYS[1]) == ["Sync MASTER"]
    assert rig.run.done == {KEYS[0], KEYS[2]}
    assert set(rig.run.failed) == {KEYS[1]}
    assert (None, "Forget") not in rig.diary, "the next start has to follow it"


async def test_run_whose_record_fails_changes_nothing(monkeypatch):
    rig = Rig(monkeypatch, breaks=(None, "Record"))
    with suppress(OSError):
        await rig.all()
    assert {name for _, name in rig.diary} == {"Sync MASTER"}


@pytest.mark.parametrize("keys", [KEYS[:1], KEYS])
def test_plan_writes_under_the_gate_and_lets_others_go_on_before_it_forgets(keys):
    plan = point_in_time(dict.fromkeys(keys, Change.CLEAR))
    gate, opened = plan.index(Act.CLOSE_GATES), plan.index(Act.OPEN_GATES)
    syncs = {key: (Sync(key, Role.MASTER),) for key in keys}
    assert [p.of for p in plan[:gate] if isinstance(p, Chains)] == [syncs, syncs]
    assert plan[gate + 1].of.keys() == syncs.keys()
    assert plan[opened - 1] is Act.ADOPT
    assert plan[opened + 1 :] == [Act.FORGET_RECORD] * (len(keys) > 1)


# -- counting ---------------------------------------------------------------------------------


LONG = 5 * 1024 * SECTOR_CHUNKS
"""So many chunks are counted in several turns."""


def counted(shadow: list[tuple[int, int]], copy: list[tuple[int, int]]) -> Bits:
    bits = Bits.blank(LONG + 3)
    bits.shadow.set_runs(shadow)
    bits.copy.set_runs(copy)
    return bits


async def test_counts_are_those_of_every_sector():
    bits = counted([(0, 3), (4060, 10), (LONG, 3)], [(2, 2), (9000, 1)])
    found = await counting.counts(SimpleNamespace(bits=bits))
    assert found == (16, 3, 18)


async def test_counts_begin_anew_when_a_point_in_time_comes_in_between():
    """The old shadow bitmap may be the new copy bitmap, and would be counted as both."""
    before = counted([(0, 5), (20000, 2)], [])
    member = SimpleNamespace(bits=before)
    after = Bits(before.copy, before.shadow)

    async def flip() -> None:
        member.bits = after

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flip)
        assert await counting.counts(member) == (0, 7, 7)


async def test_counts_let_others_go_on_in_between():
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await counting.counts(SimpleNamespace(bits=counted([], [])))
        nursery.cancel_scope.cancel()
    assert turns >= 3
