"""A family: one master with all its shadows, which share locks, gate and group commit."""

import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import groupby
from uuid import UUID

from iifuse.core import plan
from iifuse.core.geometry import Geometry
from iifuse.core.plan import Clear, Copy, Mark, Note, Step, Sync, Touch
from iifuse.core.state import Role
from iifuse.engine.batch import Batcher
from iifuse.engine.chunklock import ChunkLocks
from iifuse.engine.threads import blocking
from iifuse.engine.volumeset import VolumeSet
from iifuse.store import volume as store
from iifuse.store.volume import Volume

log = logging.getLogger(__name__)

Work = list[tuple[Step, Callable[[], None]]]


Failed = dict[UUID, tuple[Step, OSError]]
"""The first failure of each set in a series of calls."""


class TouchFailed(OSError):
    """What a write needs could not be done, and so the write must not be done either.

    A chunk could not be restored, or the set's policy is break-write.
    """


class Family:
    """Executes the plans of one master; the only place where its chunks and bits change.

    `path` is the master's, None for an imported shadow; `master` is None while it cannot be
    opened. `ordered`: `durability=ordered`.
    """

    def __init__(
        self, path: str | None, master: Volume | None, geometry: Geometry, *, ordered: bool
    ) -> None:
        self.path, self.master, self.geometry, self.ordered = path, master, geometry, ordered
        self.sets: list[VolumeSet] = []
        self.locks = ChunkLocks()
        self._commits: Batcher[Touch | plan.Clear] = Batcher(self._commit)

    @property
    def restoring(self) -> VolumeSet | None:
        """The set that restores the master, of which there is one at the most."""
        return next((s for s in self.sets if s.restoring), None)

    def member(self, key: UUID) -> VolumeSet:
        """The set of a key."""
        return next(s for s in self.sets if s.key == key)

    def volume(self, key: UUID, role: Role) -> Volume:
        """The open volume that plays a role in a set. Raises OSError when it is not there."""
        member = self.member(key)
        bitmap = member.bitmap.volume if member.bitmap else None
        found = {Role.MASTER: self.master, Role.SHADOW: member.shadow, Role.BITMAP: bitmap}[role]
        if found is None:
            raise OSError(errno.EIO, f"the {role.name} of {member.name} is not available")
        return found

    # -- group commit -----------------------------------------------------------------------

    async def touch(self, touch: Touch) -> None:
        """Make chunks ready to be written; the caller holds their lock. Raises TouchFailed."""
        await self._commits.submit(touch)

    async def clear(self, clear: Clear) -> None:
        """Note that the background copy has brought chunks; their targets are durable."""
        await self._commits.submit(clear)

    async def _commit(self, items: list[Touch | Clear]) -> list[Exception | None]:
        """One batch: first what has become true, then what the waiting writes need."""
        touches = [item for item in items if isinstance(item, Touch)]
        with suppress(TouchFailed):  # the set is offline then, which its copier sees
            await self.execute(_clear_steps(item for item in items if isinstance(item, Clear)))
        errors: dict[int, Exception | None] = {}
        try:
            await self._touch_all(touches)
        except TouchFailed as error:
            if len(touches) == 1:
                return [error if isinstance(item, Touch) else None for item in items]
            for touch in touches:  # only the writes that need the bad chunk may fail
                errors[id(touch)] = (await self._commit([touch]))[0]
        return [errors.get(id(item)) for item in items]

    async def _touch_all(self, touches: list[Touch]) -> None:
        for member in self.sets:
            if member.stuck and not member.policy.break_write:
                await member.take_offline(Role.SHADOW, "a call on it has not come back yet")
        members = [s.member for s in self.sets]
        steps = plan.first_touch(members, touches, ordered=self.ordered)
        await self.execute(steps, for_write=True)
        for member in self.sets:
            if member.unnoted:  # a restart would believe bits that lack these writes
                raise OSError(errno.EIO, member.header.offline_reason, member.name)

    # -- executing steps --------------------------------------------------------------------

    async def execute(self, steps: list[Step], *, for_write: bool = False) -> None:
        """Execute steps in order. A set drops out at its first failure and goes offline.

        `for_write`: a write waits for them, which may fail instead (Policy). Raises TouchFailed.
        """
        work: Work = []
        for step in steps:
            if isinstance(step, Mark | Clear):
                await self._work_off(work, for_write)  # what bits will say has to be true first
            prepared = self._prepare(step)
            if prepared is not None:
                work.append((step, prepared))
        await self._work_off(work, for_write)
        for step in steps:
            if isinstance(step, Mark) and not self._has_dropped_out(step.key):
                self.member(step.key).bits.settle(list(step.runs), list(step.ahead))

    def _has_dropped_out(self, key: UUID) -> bool:
        return bool(self.member(key).state.offline & (Role.SHADOW | Role.BITMAP))

    def _prepare(self, step: Step) -> Callable[[], None] | None:
        """Change the bits in memory; what remains to be done blocks."""
        member = self.member(step.key)
        if isinstance(step, Note):
            member.bits.shadow.set_runs(step.runs)
            return None
        if self._has_dropped_out(step.key):
            if not member.restoring:
                return None
            raise TouchFailed(errno.EIO, member.header.offline_reason, member.name)
        if member.stuck:
            raise TouchFailed(errno.EIO, "an earlier call has not come back yet", member.name)
        if isinstance(step, Copy):
            return partial(self.copy, step)
        if isinstance(step, Sync):
            return partial(self._sync, step)
        member.copied_chunks += sum(member.bits.copy.word(*r).bit_count() for r in step.runs)
        if isinstance(step, Clear):
            member.bits.copy.clear_runs(step.runs)
            return member.write_runs(list(step.runs), [])
        runs = member.bits.mark(list(step.runs), list(step.ahead))
        return member.write_runs(runs, list(step.ahead))

    def copy(self, step: Copy) -> None:
        """In a thread: copy the chunks of a step. Raises OSError, which names the volume."""
        source, target = self.volume(step.key, step.source), self.volume(step.key, step.target)
        for run in step.runs:
            store.copy(source, target, *self.geometry.extent(run))

    def _sync(self, step: Sync) -> None:
        self.volume(step.key, step.role).sync()

    async def _work_off(self, work: Work, for_write: bool) -> None:
        """Do the gathered blocking calls in their order; then see who failed."""
        calls, work[:] = work[:], []
        failed: Failed = {}
        for limited, part in groupby(calls, lambda call: self._limited(call[0])):
            await self._run(limited, list(part), failed)
        refused = [await self._fail(*failure, for_write) for failure in failed.values()]
        for error in filter(None, refused):
            raise error

    def _limited(self, step: Step) -> VolumeSet | None:
        """The set whose time limit a step has to keep.

        Never a restore's: a write that was given up would come late over what others wrote.
        """
        member = self.member(step.key)
        on_shadow = isinstance(step, Copy | Sync) and _blamed(step) is Role.SHADOW
        return member if on_shadow and member.policy.limit_s else None

    async def _run(self, limited: VolumeSet | None, calls: Work, failed: Failed) -> None:
        run = partial(_run_all, calls, failed.copy())
        if limited is None:
            failed.update(await blocking(run))
            return
        try:
            failed.update(await limited.within_limit(run))
        except OSError as error:
            failed[limited.key] = (calls[0][0], error)

    async def bring(self, step: Copy) -> None:
        """A step of the background copy. Raises OSError, which names the volume."""
        limited = self._limited(step)
        call = partial(self.copy, step)
        await (limited.within_limit(call) if limited else blocking(call))

    async def _fail(self, step: Step, error: OSError, for_write: bool) -> TouchFailed | None:
        """Take offline what failed, or answer with the error of the write that must fail."""
        member, role = self.member(step.key), _blamed(step)
        refuse = for_write and member.policy.break_write and role is not Role.MASTER
        if refuse:
            log.error("%s: a write fails for it: %s", member.name, error)
        elif role is Role.MASTER:  # the error of the master goes to the caller; the copy stops
            await member.end_copy()
        else:
            await member.take_offline(role, str(error))
        if refuse or member.restoring:
            return TouchFailed(error.errno, error.strerror, error.filename)
        return None


def _blamed(step: Step) -> Role:
    """The volume that goes offline with a step. A master is never blamed for a lost shadow."""
    if isinstance(step, Copy):
        return step.target
    return step.role if isinstance(step, Sync) else Role.BITMAP


def _clear_steps(clears: Iterable[Clear]) -> list[Step]:
    steps: list[Step] = []
    for clear in clears:
        steps += [clear, Sync(clear.key, Role.BITMAP)]
    return steps


def _run_all(calls: Work, failed: Failed) -> Failed:
    """In a thread: do the calls in order; a set's later calls are left out once one failed."""
    for step, call in calls:
        if step.key in failed:
            continue
        try:
            call()
        except OSError as error:
            failed[step.key] = (step, error)
    return failed
