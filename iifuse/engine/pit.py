"""Points in time: update and copy of one set, of several, of a group; all at one instant."""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID, uuid4

import trio

from iifuse import errors
from iifuse.core import plan, state
from iifuse.core.bits import Bits
from iifuse.core.plan import PitStep
from iifuse.core.state import Change, Kind, Progress, Role, Verb
from iifuse.core.transition import Member, Transition
from iifuse.engine import unjoined
from iifuse.engine.engine import OPEN_TARGET, Engine
from iifuse.engine.family import Family
from iifuse.engine.flip import Flip, Room, execute_change, make_room
from iifuse.engine.flip import prepare as _prepare
from iifuse.engine.rollforward import awaited, disown
from iifuse.engine.storage import storage, storage_error, sync
from iifuse.engine.threads import blocking
from iifuse.engine.view import View
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.volume import Volume
from iifuse.units import command

log = logging.getLogger(__name__)

Changes = dict[VolumeSet, Change]
"""What a PIT does to each of its sets."""

CHAINS_MAX: Final = 8
"""Sets on whose volumes a PIT works at a time: other masters' writes need threads meanwhile."""


def check(engine: Engine, verb: Verb, sets: Sequence[VolumeSet]) -> None:
    """Raise unless every set, its siblings included, allows the verb (the state table)."""
    if not sets:
        raise errors.NotFound("", "no set is named")
    restored: dict[int, VolumeSet] = {}
    for member in sets:
        member.check(verb)
        family = engine.family(member)
        check_siblings(family, member, verb)
        other = restored.setdefault(id(family), member)
        if verb.to_master and other is not member:
            raise errors.Refused(
                member.name,
                f"shares its master with {other.name}, and one command cannot restore it twice",
                "name only one of the two",
            )


def check_siblings(family: Family, member: VolumeSet, verb: str) -> None:
    """Raise CopyRunning while another set restores the master."""
    restoring = family.restoring
    if restoring is not None and restoring is not member:
        raise state.restores_already(member.name, verb, restoring.name, restoring.state)


async def check_closed(engine: Engine, verb: Verb, sets: Sequence[VolumeSet]) -> None:
    """Raise Busy while somebody has a target open: before anybody is asked, or told of a cost."""
    changes = {s: _change(verb, s) for s in sets if not (verb.to_master and s.state.resumes)}
    targets = [_target_view(engine, member, change) for member, change in changes.items()]
    async with engine.closed(targets, OPEN_TARGET):
        pass


async def flip(engine: Engine, verb: Verb, sets: Sequence[VolumeSet]) -> None:
    """Make a new PIT on all sets at one instant, or change nothing.

    An aborted restore goes on instead and makes no new PIT. Raises the state table's refusals,
    Busy when a target is open, and StorageError.
    """
    check(engine, verb, sets)
    for member in sets:
        await unjoined.learn(engine, member)
    resumed = [s for s in sets if verb.to_master and s.state.resumes]
    changes = {s: _change(verb, s) for s in sets if s not in resumed}
    try:
        async with engine.notes.announced(dict.fromkeys(resumed)):
            if changes:
                recheck = partial(check, engine, verb, sets)
                why = f"everything is copied, as {verb} asks for" if verb.is_full else None
                await change_all(engine, changes, verb.told, recheck, why)
            for member in resumed:  # last: what refuses one set has touched no other
                await _resume(member)
                await engine.note(member, "restore goes on")
    finally:
        _start_copies(engine, sets)


def _change(verb: Verb, member: VolumeSet) -> Change:
    change = state.change_for(verb, member.state.kind)
    return change.whole if member.unjoined else change


async def change_all(
    engine: Engine, changes: Changes, event: str, recheck: Callable[[], None], why: str | None
) -> None:
    """Make one PIT on sets that allow it; `event` and `why` are for the history.

    `recheck` raises when something has failed while the writes drained. Raises Busy, StorageError.
    """
    targets = [_target_view(engine, member, change) for member, change in changes.items()]
    views = [engine.views[v.path] for v in _sources(engine, changes) if v.path in engine.views]
    await _sync_sources(engine, changes, views)
    async with AsyncExitStack() as stack:
        closed = engine.closed(targets, OPEN_TARGET)
        await stack.enter_async_context(closed)
        for member in changes:
            await engine.stop_copy(member)
        coming = {m: (c.progress, m.header.custody) for m, c in changes.items()}
        await stack.enter_async_context(engine.notes.announced(coming))
        rooms = [await blocking(partial(make_room, m.bits, c)) for m, c in changes.items()]
        await _sync_sources(engine, changes, [])  # what was written since: it is less each time
        async with AsyncExitStack() as gates:
            for view in filter(None, targets):
                keeper = engine.timekeeper
                noting = keeper.unsettled(view) if view.role is Role.MASTER else view.noting
                await gates.enter_async_context(noting)
            for family in _families(engine, changes):
                await gates.enter_async_context(family.locks.gate())
            began = time.monotonic()
            recheck()
            run = await _commit(engine, changes, rooms)
            held_ms = (time.monotonic() - began) * 1000
        await run.forget()
    await engine.hooks.times_moved(run.views)
    for view in filter(None, targets):
        await _tell_siblings(engine, view)
    for member, change in changes.items():
        reason = why if change is not Change.CLEAR else None
        if member.unjoined:
            reason = f"everything is copied: not joined: {', '.join(member.unjoined)}"
        await engine.note(member, event, held_ms=held_ms, why=reason)


async def _tell_siblings(engine: Engine, view: View) -> None:
    """What a restored master shows stands in the header of the set that restores it, so far."""
    if len(view.concerned()) > 1:
        await engine.timekeeper.keep(view)
    else:
        engine.timekeeper.expect(view)


async def _resume(member: VolumeSet) -> None:
    try:
        await member.commit(copying=True)
    except OSError as error:
        await member.take_offline(Role.BITMAP, errors.words(error))
        raise storage_error(error, "the restore still stands aborted") from error


def _start_copies(engine: Engine, sets: Sequence[VolumeSet]) -> None:
    for member in sets:
        if member.header.copying and engine.running(member) is None:
            engine.start_copy(member)


def _target_view(engine: Engine, member: VolumeSet, change: Change) -> View | None:
    family = engine.family(member)
    if change.progress is Progress.TO_MASTER:
        return engine.master_view(family)
    return engine.views.get(member.name)


def _families(engine: Engine, sets: Iterable[VolumeSet]) -> list[Family]:
    return in_order(map(engine.family, sets))


def in_order(families: Iterable[Family]) -> list[Family]:
    """Each once, in the order in which their gates are taken (invariant 8)."""
    found = {id(f): f for f in families}
    return sorted(found.values(), key=lambda f: f.master.identity.own if f.master else ())


async def _sync_sources(engine: Engine, changes: Changes, views: list[View]) -> None:
    """Before the gate closes: most of the new truth gets durable.

    `views`: what programs have written to these files arrives first; the mount has to answer then.
    """
    if views:
        await storage(partial(engine.hooks.sync_mounted, views))
    sources = _sources(engine, changes)
    await _side_by_side([partial(sync, volume, changes) for volume in sources])


def _sources(engine: Engine, changes: Changes) -> list[Volume]:
    return [
        engine.family(member).volume(member.key, plan.source_of(change))
        for member, change in changes.items()
    ]


async def _side_by_side(calls: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """All of them at once; one failure, if there are any, when all have ended."""
    failures: list[errors.IifuseError] = []

    async def one(call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
        except errors.IifuseError as error:
            failures.append(error)

    async with trio.open_nursery() as nursery:
        for call in calls:
            nursery.start_soon(one, call)
    for failure in failures:
        raise failure


async def _commit(engine: Engine, changes: Changes, rooms: Sequence[Room]) -> "_Run":
    """Under the gates: the durable change on disk, then in memory."""
    try:
        run = await _make(engine, changes, rooms)
    except _NotRecorded as failed:  # nothing has changed
        error = failed.error
        for member in changes:
            await member.lose(error.filename, errors.words(error))
        if len(changes) > 1:
            await disown(engine, changes, failed.transition)
        raise storage_error(error, "nothing was changed") from error
    for key, failure in run.failed.items():
        await _lose(run.flips[key], errors.words(failure))
    for key, failure in run.failed.items():
        raise storage_error(failure, _after_failure(run.flips[key])) from failure
    return run


async def _lose(part: Flip, reason: str) -> None:
    """A set could not follow: its bits are in doubt, and the shadow that was to be copied.

    Not so the shadow of a restore that did not begin: no chunk was copied, and it may be the only
    good copy. A dependent one goes with its bits all the same (VolumeSet.take_offline).
    """
    restore = part.change.progress is Progress.TO_MASTER
    await part.member.take_offline(Role.BITMAP if restore else Role.BITMAP | Role.SHADOW, reason)


def _after_failure(part: Flip) -> str:
    name = part.member.name
    if part.change.progress is not Progress.TO_MASTER:
        return f"that set is offline now, see {command('iiadm -i', name)}"
    if part.member.state.kind is Kind.DEPENDENT:
        why = command("iiadm -i", name)
        return f"the restore has not begun, and {name} is offline; {why} says what is lost"
    return (
        f"the restore has not begun, and {name} still holds its point in time; "
        f"{command('iiadm -R', name)} and then {command('iiadm -u m', name)} try again"
    )


async def _make(engine: Engine, changes: Changes, rooms: Sequence[Room]) -> "_Run":
    """While nobody else writes a header of these sets. Raises _NotRecorded."""
    transition = Transition(uuid4(), uuid4(), time.time_ns(), ())
    async with AsyncExitStack() as stack:
        for member in changes:
            await stack.enter_async_context(member.header_lock)
        flips = await blocking(
            lambda: [
                _prepare(member, change, transition, room, _target_view(engine, member, change))
                for (member, change), room in zip(changes.items(), rooms, strict=True)
            ]
        )
        transition = _with_members(transition, flips)
        run = _Run(engine, {part.member.key: part for part in flips}, transition)
        try:
            await run.all()
        except OSError as error:
            raise _NotRecorded(error, transition.id) from error
        for part in flips:
            if part.member.key in run.done:
                _adopt(engine, part)
    return run


class _NotRecorded(Exception):
    """A PIT has failed before its record was made."""

    def __init__(self, error: OSError, transition: UUID) -> None:
        super().__init__(str(error))
        self.error, self.transition = error, transition


def _with_members(transition: Transition, flips: Sequence[Flip]) -> Transition:
    """The transition with a row for every set."""
    members = tuple(
        Member(f.member.key, f.member.header.pit.number, f.header.pending_pit.number, f.change)
        for f in flips
    )
    return Transition(transition.id, transition.pit_id, transition.time_ns, members)


class _Run:
    """Executes the steps of a PIT in threads, those of different sets side by side.

    `done`: sets whose change counts. `failed`: sets that could not follow after the record was
    durable; the command counts as done all the same, and recovery finds the record again.
    """

    def __init__(self, engine: Engine, flips: dict[UUID, Flip], transition: Transition) -> None:
        self.engine, self.flips, self.transition = engine, flips, transition
        self.done: set[UUID] = set()
        self.failed: dict[UUID, OSError] = {}
        self._decided = False
        self._earlier = awaited(engine)
        self._steps = plan.point_in_time({key: part.change for key, part in flips.items()})

    @property
    def views(self) -> list[View]:
        """The files that show another content."""
        return [part.view for part in self.flips.values() if part.view is not None]

    async def all(self) -> None:
        """Every step in order, but what can wait. Raises OSError only while nothing has changed.

        The order of a set's steps is the plan's, and a step of no set comes after all that stand
        before it.
        """
        kept = self._steps[:-1] if isinstance(self._steps[-1], plan.Forget) else self._steps
        for of_sets, steps in groupby(kept, lambda step: _set_of(step) is not None):
            if of_sets:
                await self._chains(list(steps))
            else:
                await blocking(partial(self._shared, list(steps)))

    async def forget(self) -> None:
        """The record of a group goes when writes go on: it names PITs that are made."""
        if isinstance(self._steps[-1], plan.Forget):
            await blocking(partial(self._shared, self._steps[-1:]))

    async def _chains(self, steps: list[PitStep]) -> None:
        """What is to be done to each set, in its order."""
        chains: dict[UUID, list[PitStep]] = {}
        for step in steps:
            key = _set_of(step)
            assert key is not None
            chains.setdefault(key, []).append(step)
        limiter = trio.CapacityLimiter(CHAINS_MAX)
        async with trio.open_nursery() as nursery:
            for key, chain in chains.items():
                if key not in self.failed:
                    nursery.start_soon(blocking, partial(self._chain, key, chain), limiter)
        if not self._decided:
            for failure in self.failed.values():
                raise failure

    def _chain(self, key: UUID, steps: list[PitStep]) -> None:
        try:
            for step in steps:
                self._execute(step)
        except OSError as error:
            self.failed[key] = error

    def _shared(self, steps: list[PitStep]) -> None:
        for step in steps:
            try:
                if isinstance(step, plan.Record):
                    self.engine.transitions.begin(self.transition, self._earlier)
                    self._decided = True
                elif not self.failed:
                    self.engine.transitions.finish(self._earlier)
            except OSError as error:
                if not self._decided:
                    raise
                log.warning("the record of a group command stays behind: %s", error)

    def _execute(self, step: PitStep) -> None:
        match step:
            case plan.Sync(key, role):
                self.engine.family(self.flips[key].member).volume(key, role).sync()
            case plan.Pend(key) | plan.Store(key) | plan.Commit(key):
                execute_change(step, self.flips[key])
                self._decided = True
                if isinstance(step, plan.Commit):
                    self.done.add(key)


def _set_of(step: PitStep) -> UUID | None:
    """Whose step it is; None: of the group as a whole."""
    return None if isinstance(step, plan.Record | plan.Forget) else step.key


def _adopt(engine: Engine, part: Flip) -> None:
    """In memory, in one breath: the new header, the new bits, and what the kernel cached is old."""
    member = part.member
    member.header = part.header
    member.bits = Bits(part.shadow, part.copy, part.ready)
    member.copied_chunks = 0
    if part.view is not None:
        engine.timekeeper.moved(part.view, part.view.times_in(part.header))
