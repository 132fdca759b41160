"""Points in time: update and copy of one set, of several sets or of a group, at one instant.

The order is in core/change.py. docs/decisions/points-in-time.md says how the time is kept short for
which writes are held.
"""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final
from uuid import UUID, uuid4

import trio

from iifuse import errors
from iifuse.core import change as orders
from iifuse.core import state
from iifuse.core.bits import Bits
from iifuse.core.change import Act, Chains, Commit, Phase, SetStep
from iifuse.core.state import Change, Kind, Progress, Role, Verb
from iifuse.core.touch import Sync
from iifuse.core.transition import Member, Transition
from iifuse.data.family import Family
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host import unjoined
from iifuse.host.instance import OPEN_TARGET, Instance
from iifuse.host.storage import storage, storage_error
from iifuse.store.volume import Volume
from iifuse.units import command
from iifuse.verbs.rollforward import awaited, disown
from iifuse.verbs.setchange import NewBitmaps, SetChange, allocate_bitmaps, execute_change, prepare

log = logging.getLogger(__name__)

Changes = dict[VolumeSet, Change]
"""What a PIT changes in each of its sets."""

CHAINS_MAX: Final = 8
"""The most sets on which a PIT works at a time. Writes to other masters need threads too."""


def check(instance: Instance, verb: Verb, sets: Sequence[VolumeSet]) -> None:
    """Raise an error unless every set and the other sets of its master allow the verb."""
    if not sets:
        raise errors.NotFound("", "no set is named")
    restored: dict[int, VolumeSet] = {}
    for member in sets:
        member.check(verb)
        family = instance.family(member)
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


async def check_closed(instance: Instance, verb: Verb, sets: Sequence[VolumeSet]) -> None:
    """Raise Busy while somebody has a target open. This is done before a question or a dry run."""
    changes = {s: _change(verb, s) for s in sets if not _goes_on(verb, s)}
    targets = [_target_view(instance, member, change) for member, change in changes.items()]
    async with instance.closed(targets, OPEN_TARGET):
        pass


async def make(instance: Instance, verb: Verb, sets: Sequence[VolumeSet]) -> None:
    """Make a new PIT on all sets at one instant, or change nothing.

    An aborted restore is continued instead, without a new PIT. Raises the refusals of the state
    table, Busy if a target is open, and StorageError.
    """
    check(instance, verb, sets)
    for member in sets:
        await unjoined.learn(instance, member)
    resumed = [s for s in sets if _goes_on(verb, s)]
    changes = {s: _change(verb, s) for s in sets if s not in resumed}
    try:
        async with instance.notes.announced(dict.fromkeys(resumed)):
            if changes:
                recheck = partial(check, instance, verb, sets)
                why = f"everything is copied, as {verb} asks for" if verb.is_full else None
                await change_all(instance, changes, verb.in_history, recheck, why)
            for member in resumed:  # these come last, when nothing can be refused any more
                await _resume(member)
                await instance.note(member, "restore goes on")
    finally:
        _start_copies(instance, sets)


def _goes_on(verb: Verb, member: VolumeSet) -> bool:
    """Does the verb continue an aborted restore, instead of making a new PIT?"""
    return verb.to_master and member.state.is_aborted_restore


def _change(verb: Verb, member: VolumeSet) -> Change:
    change = state.change_for(verb, member.state.kind)
    return change.with_every_chunk if member.unjoined else change


async def change_all(
    instance: Instance, changes: Changes, event: str, recheck: Callable[[], None], why: str | None
) -> None:
    """Make one PIT on sets that allow it. `event` and `why` are for the history.

    `recheck` is called under the gates. It raises if something has failed while the gates closed.
    Raises Busy, StorageError.
    """
    making = _Making(instance, changes, recheck)
    await making.all()
    await instance.hooks.times_moved(making.run.views)
    for view in filter(None, making.targets):
        await _tell_siblings(instance, view)
    for member, change in changes.items():
        reason = why if change is not Change.CLEAR else None
        if member.unjoined:
            reason = f"everything is copied: not joined: {', '.join(member.unjoined)}"
        await instance.note(member, event, held_ms=making.held_ms, why=reason)


async def _tell_siblings(instance: Instance, view: View) -> None:
    """Record a target's new times in the headers of all its sets. So far only one has them."""
    if len(view.concerned()) > 1:
        await instance.timekeeper.keep(view)
    else:
        instance.timekeeper.record_stamp_later(view)


async def _resume(member: VolumeSet) -> None:
    try:
        await member.commit(copying=True)
    except OSError as error:
        await member.take_offline(Role.BITMAP, errors.words(error))
        raise storage_error(error, "the restore still stands aborted") from error


def _start_copies(instance: Instance, sets: Sequence[VolumeSet]) -> None:
    for member in sets:
        if member.header.copying and instance.running(member) is None:
            instance.start_copy(member)


def _target_view(instance: Instance, member: VolumeSet, change: Change) -> View | None:
    family = instance.family(member)
    if change.progress is Progress.TO_MASTER:
        return instance.master_view(family)
    return instance.views.get(member.name)


def _families(instance: Instance, sets: Iterable[VolumeSet]) -> list[Family]:
    return in_order(map(instance.family, sets))


def in_order(families: Iterable[Family]) -> list[Family]:
    """The families without repetition, in the order in which gates are taken (invariant 8)."""
    found = {id(f): f for f in families}
    return sorted(found.values(), key=lambda f: f.master.identity.own if f.master else ())


class _Making:
    """Makes one PIT, phase by phase (core.change), and releases all that it holds at the end.

    `targets`: the files that will show another content. `held_ms`: for how many milliseconds writes
    were held.
    """

    def __init__(self, instance: Instance, changes: Changes, recheck: Callable[[], None]) -> None:
        self.instance, self.changes, self._recheck = instance, changes, recheck
        self._loop = instance.loop
        self.targets = [_target_view(instance, member, c) for member, c in changes.items()]
        self.run = _Run(instance, changes)
        self.held_ms = 0.0
        self._new_bitmaps: list[NewBitmaps] = []
        self._held, self._gates, self._headers = (AsyncExitStack() for _ in range(3))
        self._began = 0.0

    async def all(self) -> None:
        """Execute all phases. Raises Busy, StorageError, and what `recheck` raises."""
        plan = orders.point_in_time({m.key: change for m, change in self.changes.items()})
        async with self._held, self._gates, self._headers:
            for phase in plan:
                await self._do(phase)

    async def _do(self, phase: Phase) -> None:
        match phase:
            case Act.SYNC_FILES:
                await self._fetch()
            case Act.CLOSE_FILES:
                closed = self.instance.closed(self.targets, OPEN_TARGET)
                await self._held.enter_async_context(closed)
            case Act.STOP_COPIES:
                for member in self.changes:
                    await self.instance.stop_copy(member)
            case Act.ANNOUNCE:
                coming = {m: (c.progress, m.header.custody) for m, c in self.changes.items()}
                await self._held.enter_async_context(self.instance.notes.announced(coming))
            case Act.ALLOCATE:
                for member, change in self.changes.items():
                    allocate = partial(allocate_bitmaps, member.bits, change)
                    self._new_bitmaps.append(await self._loop.blocking(allocate))
            case Act.CLOSE_GATES:
                await self._gate()
            case Act.ADOPT:
                await self._follow()
            case Act.OPEN_GATES:
                await self._gates.aclose()
                self.held_ms = (time.monotonic() - self._began) * 1000
            case _:
                await self._change(phase)

    async def _fetch(self) -> None:
        paths = [v.path for v in _sources(self.instance, self.changes)]
        views = [self.instance.views[path] for path in paths if path in self.instance.views]
        if views:
            await storage(self._loop, partial(self.instance.hooks.sync_mounted, views))

    async def _gate(self) -> None:
        """Close the gates. From now on nobody writes to the volumes, nor a header of the sets."""
        keeper = self.instance.timekeeper
        for view in filter(None, self.targets):
            lock = keeper.counted_as_written(view) if view.role is Role.MASTER else view.times_lock
            await self._gates.enter_async_context(lock)
        for family in _families(self.instance, self.changes):
            await self._gates.enter_async_context(family.locks.gate())
        self._began = time.monotonic()
        self._recheck()
        for member in self.changes:
            await self._headers.enter_async_context(member.header_lock)
        await self._loop.blocking(self._prepare)

    def _prepare(self) -> None:
        transition = Transition(uuid4(), uuid4(), time.time_ns(), ())
        parts = zip(self.changes.items(), self._new_bitmaps, self.targets, strict=True)
        made = {m.key: prepare(m, c, transition, new, view) for (m, c), new, view in parts}
        self.run.prepare(transition, made)

    async def _change(self, phase: Phase) -> None:
        try:
            await self.run.do(phase)
        except OSError as error:  # nothing has changed
            await self._headers.aclose()
            for member in self.changes:
                await member.take_offline_by_path(error.filename, errors.words(error))
            if phase is Act.RECORD:
                await disown(self.instance, self.changes, self.run.transition.id)
            raise storage_error(error, "nothing was changed") from error

    async def _follow(self) -> None:
        """Let memory follow the disk. Sets that could not follow the record go offline."""
        for key, member in self.run.sets.items():
            if key in self.run.done:
                _adopt(self.instance, member, self.run.parts[key])
        await self._headers.aclose()
        for key, failure in self.run.failed.items():
            await _lose(self.run.sets[key], self.changes[self.run.sets[key]], errors.words(failure))
        for key, failure in self.run.failed.items():
            member = self.run.sets[key]
            todo = _after_failure(member, self.changes[member])
            raise storage_error(failure, todo) from failure


def _sources(instance: Instance, changes: Changes) -> list[Volume]:
    return [
        instance.family(member).volume(member.key, orders.source_of(change))
        for member, change in changes.items()
    ]


async def _lose(member: VolumeSet, change: Change, reason: str) -> None:
    """Take volumes of a set offline that could not follow the record.

    Its bits are in doubt, and with them the shadow. But a restore has not begun then, so its shadow
    stays online: it may be the only good copy. (A dependent shadow goes offline with its bits, see
    VolumeSet.take_offline.)
    """
    restore = change.progress is Progress.TO_MASTER
    await member.take_offline(Role.BITMAP if restore else Role.BITMAP | Role.SHADOW, reason)


def _after_failure(member: VolumeSet, change: Change) -> str:
    name = member.name
    if change.progress is not Progress.TO_MASTER:
        return f"that set is offline now, see {command('iiadm -i', name)}"
    if member.state.kind is Kind.DEPENDENT:
        why = command("iiadm -i", name)
        return f"the restore has not begun, and {name} is offline; {why} says what is lost"
    return (
        f"the restore has not begun, and {name} still holds its point in time; "
        f"{command('iiadm -R', name)} and then {command('iiadm -u m', name)} try again"
    )


class _Run:
    """Executes the steps of a PIT in threads, for several sets side by side.

    `done`: sets whose change is complete. `failed`: sets that could not follow after the record was
    durable. The command counts as done in any case, and the next start finds the record.
    """

    def __init__(self, instance: Instance, sets: Iterable[VolumeSet]) -> None:
        self.instance = instance
        self.sets = {member.key: member for member in sets}
        self.parts: dict[UUID, SetChange] = {}
        self.transition: Transition
        self.done: set[UUID] = set()
        self.failed: dict[UUID, OSError] = {}
        self._is_recorded = False
        self._earlier = awaited(instance)

    @property
    def views(self) -> list[View]:
        """The files that show another content after the PIT."""
        return [part.view for part in self.parts.values() if part.view is not None]

    def prepare(self, transition: Transition, parts: dict[UUID, SetChange]) -> None:
        """Set what has to be made of each set, and make the record, which names all sets."""
        self.parts = parts
        pits = {key: self.sets[key].header.pit.number for key in parts}
        self.transition = with_members(transition, pits, parts)

    async def do(self, phase: Phase) -> None:
        """Execute a phase. Raises OSError only as long as nothing has changed."""
        if isinstance(phase, Chains):
            await self._chains(phase)
        elif phase is Act.RECORD:
            begin = partial(self.instance.transitions.begin, self.transition, self._earlier)
            await self.instance.loop.blocking(begin)
            self._is_recorded = True
        elif not self.failed:
            await self._forget()

    async def _chains(self, phase: Chains) -> None:
        blocking, limiter = self.instance.loop.blocking, trio.CapacityLimiter(CHAINS_MAX)
        async with trio.open_nursery() as nursery:
            for key, chain in phase.of.items():
                nursery.start_soon(blocking, partial(self._chain, key, chain), limiter)
        if not self._is_recorded:
            for failure in self.failed.values():
                raise failure

    def _chain(self, key: UUID, steps: Iterable[SetStep]) -> None:
        try:
            for step in steps:
                self._execute(key, step)
        except OSError as error:
            self.failed[key] = error

    def _execute(self, key: UUID, step: SetStep) -> None:
        if isinstance(step, Sync):
            self.instance.family(self.sets[key]).volume(key, step.role).sync()
            return
        execute_change(step, self.parts[key], self.sets[key].log)
        self._is_recorded = True
        if isinstance(step, Commit):
            self.done.add(key)

    async def _forget(self) -> None:
        try:
            finish = partial(self.instance.transitions.finish, self._earlier)
            await self.instance.loop.blocking(finish)
        except OSError as error:
            log.warning("the record of a group command stays behind: %s", error)


def with_members(
    transition: Transition, pits: Mapping[UUID, int], parts: Mapping[UUID, SetChange]
) -> Transition:
    """The transition with a member for each set. `pits`: the old PIT numbers."""
    members = tuple(
        Member(key, pits[key], part.header.pending_pit.number, part.change)
        for key, part in parts.items()
    )
    return Transition(transition.id, transition.pit_id, transition.time_ns, members)


def _adopt(instance: Instance, member: VolumeSet, part: SetChange) -> None:
    """Let memory have the new header and bits, without an await. Cached pages are old then."""
    member.adopt(part.header)
    member.bits = Bits(part.shadow, part.copy, part.ready)
    member.copied_chunks = 0
    if part.view is not None:
        instance.timekeeper.moved(part.view, part.view.times_in(part.header))
