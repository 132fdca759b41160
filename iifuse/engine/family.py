"""A family: one master with all its shadows, which share locks, gate and group commit."""

import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID

import trio

from iifuse.core import plan
from iifuse.core.geometry import Geometry
from iifuse.core.header import FileId
from iifuse.core.plan import Clear, Copy, Mark, Note, Step, Sync, Touch
from iifuse.core.state import Kind, Role
from iifuse.engine.batch import Batcher
from iifuse.engine.chunklock import ChunkLocks, Mode
from iifuse.engine.crew import Starved
from iifuse.engine.threads import Way, swiftly
from iifuse.engine.volumeset import VolumeSet
from iifuse.errors import words
from iifuse.store.copying import Copying, copy_cached
from iifuse.store.volume import Volume
from iifuse.units import Run

log = logging.getLogger(__name__)

Work = list[tuple[Step, Callable[[], None]]]

STREAM_CHUNKS: Final = 16
"""Writes of at least so many chunks that follow each other are a stream: 512 KiB."""

AHEAD_CHUNKS: Final = 256
"""Chunks that a stream of writes preserves at a time, at the most: 8 MiB."""

RECENT_S: Final = 0.1
"""Seconds since a volume has last done what a first touch asked of it after which the next one
asks in a thread: on the event loop a disk that does not answer would hold up every volume."""

AT_ONCE_CHUNKS: Final = 64
"""Chunks that may be copied on the event loop, from page cache to page cache: 2 MiB."""

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
        self.meant = FileId()
        """Which file a master that is not there was."""
        self.astray = ""
        """Why the path of the open master leads to it no more."""
        self.sets: list[VolumeSet] = []
        self.locks = ChunkLocks()
        self._stream_stop, self._stream_chunks = -1, 0
        self._failed_at_once: dict[int, Failed] = {}
        """By id of the touch: what failed at once, and its batch has to deal with."""
        self._commits: Batcher[Touch | plan.Clear] = Batcher(self._commit)

    @property
    def restoring(self) -> VolumeSet | None:
        """The set that restores the master, of which there is one at the most."""
        return next((s for s in self.sets if s.restoring), None)

    def member(self, key: UUID) -> VolumeSet:
        """The set of a key."""
        for member in self.sets:
            if member.key is key or member.key == key:  # every step of every first touch asks
                return member
        raise KeyError(key)

    def volume(self, key: UUID, role: Role) -> Volume:
        """The open volume that plays a role in a set. Raises OSError when it is not there."""
        member = self.member(key)
        if role is Role.MASTER:
            found = self.master
        elif role is Role.SHADOW:
            found = member.shadow
        else:
            found = member.bitmap.volume if member.bitmap else None
        if found is None:
            raise OSError(errno.EIO, _missed(member, role))
        return found

    # -- group commit -----------------------------------------------------------------------

    async def touch(self, touch: Touch) -> None:
        """Make chunks ready to be written; the caller holds their lock. Raises TouchFailed."""
        try:
            await self._commits.submit(touch)
        finally:
            self._failed_at_once.pop(id(touch), None)

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
        if any(touch.side is not plan.Side.SHADOW for touch in touches) or self.restoring:
            await self._wait_no_longer()
        for touch in touches:
            await self._fail_all(self._failed_at_once.get(id(touch), {}), for_write=True)
        members = [s.member for s in self.sets]
        steps = plan.first_touch(members, touches, ordered=self.ordered)
        await self.execute(steps, for_write=True)
        for member in self.sets:
            if member.unnoted:  # a restart would believe bits that lack these writes
                raise OSError(errno.EIO, member.header.offline_reason, member.name)

    async def _wait_no_longer(self) -> None:
        """The master is about to be written, and what bits say of it would be noted nowhere."""
        for member in self.sets:
            if member.lacks(Role.BITMAP):
                await member.give_up(Role.BITMAP, _missed(member, Role.BITMAP))

    def ahead(self, run: Run) -> Run:
        """How much to preserve now for a first touch of `run`.

        Long writes that follow each other come to chunks that nobody has written yet one after
        the other; preserved in long runs they share their syncs (design, section 5).
        """
        first, count = run
        follows, self._stream_stop = first == self._stream_stop, first + count
        allowed = self.ordered and all(map(_is_preserved_ahead, self.sets))
        if not (follows and allowed and count >= STREAM_CHUNKS):
            self._stream_chunks = count
            return run
        self._stream_chunks = min(2 * max(self._stream_chunks, count), AHEAD_CHUNKS)
        wide = max(count, min(self._stream_chunks, self.geometry.chunks - first))
        if not self.locks.free(Mode.WRITE, first, wide):
            return run
        self._stream_stop = first + wide
        return first, wide

    # -- at once ----------------------------------------------------------------------------

    def touch_at_once(self, touch: Touch) -> bool:
        """Make free chunks ready in the same breath; False if that is not possible.

        It is not if a sync is needed, or anything may have to wait: then nothing was begun, or
        what was done is done again by `touch`, which has to follow. A call that fails is not
        tried again: the batch begins with its failure (invariant 9).
        """
        if self.ordered or self._commits.is_led or touch.count > AT_ONCE_CHUNKS:
            return False
        members: list[plan.Member] = []
        for member in self.sets:
            if not member.answers_at_once:
                return False
            members.append(member.member)
        now = trio.current_time()
        for step in plan.first_touch(members, (touch,), ordered=False):
            if not self._do_at_once(step, touch, now):
                return False
        return True

    def _do_at_once(self, step: Step, touch: Touch, now: float) -> bool:
        member = self.member(step.key)
        if isinstance(step, Note):
            member.bits.shadow.set_runs(step.runs)
            return True
        try:
            volume = self.volume(step.key, _blamed(step))
            if now - volume.answered > RECENT_S:
                return False
            if isinstance(step, Mark):
                member.mark(step.runs, step.ahead)()
                member.settle(step.runs, step.ahead)
            elif not (isinstance(step, Copy) and self._copy_at_once(step, volume)):
                return False
        except OSError as error:
            self._failed_at_once.setdefault(id(touch), {})[step.key] = (step, error)
            return False
        volume.answered = now
        return True

    def _copy_at_once(self, step: Copy, target: Volume) -> bool:
        source = self.volume(step.key, step.source)
        return all(copy_cached(source, target, *self.geometry.extent(run)) for run in step.runs)

    # -- executing steps --------------------------------------------------------------------

    async def execute(self, steps: list[Step], *, for_write: bool = False) -> None:
        """Execute steps in order. A set drops out at its first failure and goes offline.

        `for_write`: a write waits for them, which may fail instead (Policy). Raises TouchFailed.
        """
        work: Work = []
        for step in steps:
            if _must_see(step, work):
                await self._work_off(work, for_write)
            prepared = self._prepare(step)
            if prepared is not None:
                work.append((step, prepared))
        await self._work_off(work, for_write)

    def _prepare(self, step: Step) -> Callable[[], None] | None:
        """What remains to be done and blocks. Bits in memory wait for a mark, not for a clear."""
        member = self.member(step.key)
        if isinstance(step, Note):
            member.bits.shadow.set_runs(step.runs)
            return None
        if member.is_lost:
            if not member.restoring:
                return None
            raise TouchFailed(errno.EIO, member.header.offline_reason, member.name)
        if member.stuck:
            raise TouchFailed(errno.EIO, "an earlier call has not come back yet", member.name)
        if isinstance(step, Copy) and member.restoring and member.lacks(Role.SHADOW):
            raise TouchFailed(errno.EIO, member.why_hidden, member.name)
        if isinstance(step, Copy):
            return partial(self.copy, step)
        if isinstance(step, Sync):
            return partial(self._sync, step)
        if isinstance(step, Mark):
            return member.mark(step.runs, step.ahead)
        member.count_copied(step.runs)
        return member.clear(step.runs)

    def copy(self, step: Copy) -> None:
        """In a thread: copy the chunks of a step. Raises OSError, which names the volume."""
        source, target = self.volume(step.key, step.source), self.volume(step.key, step.target)
        copying = Copying(source, target)
        for run in step.runs:
            copying.extent(*self.geometry.extent(run))

    def _sync(self, step: Sync) -> None:
        self.volume(step.key, step.role).sync()

    async def _work_off(self, work: Work, for_write: bool) -> None:
        """Do the gathered blocking calls in their order; then see who failed."""
        calls, work[:] = work[:], []
        failed: Failed = {}
        for limited, part in groupby(calls, lambda call: self._limited(call[0])):
            await self._run(limited, list(part), failed)
        for step, _ in calls:
            if step.key not in failed:
                with suppress(OSError):  # it has just been there
                    self.volume(step.key, _blamed(step)).answered = trio.current_time()
            if isinstance(step, Mark):
                await self._settle(step, failed)
        await self._fail_all(failed, for_write)

    async def _fail_all(self, failed: Failed, for_write: bool) -> None:
        refused = [await self._fail(*failure, for_write) for failure in failed.values()]
        for error in filter(None, refused):
            raise error

    async def _settle(self, step: Mark, failed: Failed) -> None:
        """What a mark says is true and durable now, or never will be."""
        if step.key in failed:
            return
        member = self.member(step.key)
        member.settle(step.runs, step.ahead)
        if member.is_lost:  # meanwhile: who noted it knew nothing of these marks
            await member.note_again()

    def _limited(self, step: Step) -> VolumeSet | None:
        """The set whose time limit a step has to keep.

        Never a restore's: a write that was given up would come late over what others wrote.
        """
        member = self.member(step.key)
        on_shadow = isinstance(step, Copy | Sync) and _blamed(step) is Role.SHADOW
        return member if on_shadow and member.policy.limit_s else None

    async def _run(self, limited: VolumeSet | None, calls: Work, failed: Failed) -> None:
        way = Way()
        run = partial(_run_all, calls, failed.copy(), way)
        if limited is None:
            failed.update(await swiftly(run, way))
            return
        try:
            failed.update(await limited.within_limit(run))
        except OSError as error:
            failed[limited.key] = (calls[0][0], error)

    async def _fail(self, step: Step, error: OSError, for_write: bool) -> TouchFailed | None:
        """Take offline what failed, or answer with the error of the write that must fail."""
        member, role = self.member(step.key), _blamed(step)
        refuse = for_write and member.policy.break_write and role is not Role.MASTER
        if isinstance(error, Starved) and (for_write or role is not Role.BITMAP):
            # Nobody is to blame. But a clear has changed bits in memory already.
            log.error("%s: no thread or no memory for it: %s", member.name, error)
            refuse = True
        elif refuse:
            log.error("%s: a write fails for it: %s", member.name, error)
        elif role is Role.MASTER:  # the error of the master goes to the caller; the copy stops
            await member.end_copy()
        else:
            await member.take_offline(role, words(error))
        if refuse or member.restoring:
            return TouchFailed(error.errno, error.strerror, error.filename)
        return None


def _missed(member: VolumeSet, role: Role) -> str:
    """Why a set has lost what it waited for."""
    missing = member.missing.get(role)
    why = missing.why if missing else f"the {(role.name or '').lower()} is not available"
    return f"{why} when it was needed"


def _is_preserved_ahead(member: VolumeSet) -> bool:
    """May chunks of a set be preserved that nobody writes to yet?

    Of a dependent one: there a bit means that the chunk is preserved and nothing else. And only
    where a failure costs the shadow, not a write of other chunks.
    """
    dependent = member.header.kind is Kind.DEPENDENT
    return dependent and member.answers_at_once and not member.policy.break_write


def _must_see(step: Step, work: Work) -> bool:
    """Does a step depend on how the gathered work ends?

    A clear says that copies are durable. A second mark of a set has to carry the first one's bits.
    A restore writes to the raw master, which the other sets must have preserved by then, or be
    noted as lost, or the write that asks for it fails (invariants 3 and 9).
    """
    if isinstance(step, Clear) or (isinstance(step, Copy) and step.target is Role.MASTER):
        return bool(work)
    return isinstance(step, Mark) and any(
        isinstance(earlier, Mark) and earlier.key == step.key for earlier, _ in work
    )


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


def _run_all(calls: Work, failed: Failed, way: Way) -> Failed:
    """In a thread: do the calls in order; a set's later calls are left out once one failed.

    Copies and marks mostly go to the page cache, and the first sync waits for a disk.
    """
    for step, call in calls:
        if step.key in failed:
            continue
        if isinstance(step, Sync):
            way.free()
        try:
            call()
        except MemoryError:
            failed[step.key] = (step, Starved(code=errno.ENOMEM))
        except OSError as error:
            failed[step.key] = (step, error)
    return failed
