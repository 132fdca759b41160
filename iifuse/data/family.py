"""A family: one master with all its shadows, which share locks, gate and group commit.

Decisions: docs/decisions/durability.md (marks, long writes), failures.md (whose write fails) and
waiting.md (what is done on the event loop).
"""

import errno
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import Final
from uuid import UUID

import trio

from iifuse.core import touch as orders
from iifuse.core.geometry import Geometry
from iifuse.core.header import FileId
from iifuse.core.state import Kind, Role
from iifuse.core.touch import Copy, Mark, Member, Note, Phase, Side, Step, Sync, Touch
from iifuse.data.batch import Batcher
from iifuse.data.chunklock import ChunkLocks, Mode
from iifuse.data.volumeset import VolumeSet
from iifuse.errors import words
from iifuse.loop.calls import ShortCalls
from iifuse.loop.loop import Loop
from iifuse.loop.threadpool import OutOfResources
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
"""If a volume has not done what a first touch asked of it for so many seconds, the next one asks in
a thread: on the event loop a disk that does not answer would hold up every volume."""

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
        self, loop: Loop, path: str | None, master: Volume | None, geometry: Geometry, *,
        ordered: bool,
    ) -> None:  # fmt: skip
        self.loop: Final = loop
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
        self._commits: Batcher[Touch | Phase] = Batcher(self._commit)

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

    async def clear(self, clear: Phase) -> None:
        """Note that the background copy has brought chunks; their targets are durable."""
        await self._commits.submit(clear)

    async def _commit(self, items: list[Touch | Phase]) -> list[Exception | None]:
        """One batch: first what has become true, then what the waiting writes need."""
        touches = [item for item in items if isinstance(item, Touch)]
        with suppress(TouchFailed):  # the set is offline then, which its copier sees
            await self.execute([item for item in items if isinstance(item, tuple)])
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
        if any(touch.side is not Side.SHADOW for touch in touches) or self.restoring:
            await self._wait_no_longer()
        for touch in touches:
            await self._fail_all(self._failed_at_once.get(id(touch), {}), for_write=True)
        members = [s.member for s in self.sets]
        phases = orders.first_touch(members, touches, ordered=self.ordered)
        await self.execute(phases, for_write=True)
        for member in self.sets:
            if member.unnoted:  # a restart would believe bits that lack these writes
                raise OSError(errno.EIO, member.header.offline_reason, member.name)

    async def _wait_no_longer(self) -> None:
        """Wait for no bitmap any more: what is written to the master now could be noted nowhere."""
        for member in self.sets:
            if member.lacks(Role.BITMAP):
                await member.give_up(Role.BITMAP, _missed(member, Role.BITMAP))

    def ahead(self, run: Run) -> Run:
        """How much to preserve now for a first touch of `run`.

        Long writes that follow each other come to chunks that nobody has written yet one after
        the other; preserved in long runs they share their syncs.
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
        """Make free chunks ready without an await; False if that is not possible.

        It is not if a sync is needed, or anything may have to wait. Then `touch` has to follow,
        which does again what was done here. A call that has failed is not tried again: the batch
        begins with its failure (invariant 9).
        """
        if self.ordered or self._commits.is_led or touch.count > AT_ONCE_CHUNKS:
            return False
        if self.master is not None and self.master.remote:
            return False
        members: list[Member] = []
        for member in self.sets:
            if not member.answers_at_once:
                return False
            members.append(member.member)
        now = trio.current_time()
        for phase in orders.first_touch(members, (touch,), ordered=False):
            for step in phase:
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

    async def execute(self, phases: Iterable[Phase], *, for_write: bool = False) -> None:
        """Execute a plan as it is. A set drops out at its first failure and goes offline.

        `for_write`: a write waits for it, which may fail instead (Policy). Raises TouchFailed.
        """
        for phase in phases:
            prepared = ((step, self._prepare(step)) for step in phase)
            await self._work_off([(s, call) for s, call in prepared if call is not None], for_write)

    def _prepare(self, step: Step) -> Callable[[], None] | None:
        """The part of a step that blocks, if there is one.

        A clear changes bits in memory at once, a mark only when it is durable (`_settle`).
        """
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

    async def _work_off(self, calls: Work, for_write: bool) -> None:
        """Do the blocking calls of a phase in their order; then see who failed."""
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
        """Let bits in memory follow a mark that is durable; one that failed changes nothing."""
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
        short = ShortCalls()
        run = partial(_run_all, calls, failed.copy(), short)
        if limited is None:
            failed.update(await self.loop.blocking_for_program(run, short))
            return
        try:
            failed.update(await limited.within_limit(run))
        except OSError as error:
            failed[limited.key] = (calls[0][0], error)

    async def _fail(self, step: Step, error: OSError, for_write: bool) -> TouchFailed | None:
        """Take offline what failed, or answer with the error of the write that must fail."""
        member, role = self.member(step.key), _blamed(step)
        refuse = for_write and member.policy.break_write and role is not Role.MASTER
        if isinstance(error, OutOfResources) and (for_write or role is not Role.BITMAP):
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

    Only in a dependent set, where a bit means that the chunk is preserved and nothing else; and
    only where a failure costs the shadow, and not a write to other chunks.
    """
    dependent = member.header.kind is Kind.DEPENDENT
    return dependent and member.answers_at_once and not member.policy.break_write


def _blamed(step: Step) -> Role:
    """The volume that goes offline with a step. A master is never blamed for a lost shadow."""
    if isinstance(step, Copy):
        return step.target
    return step.role if isinstance(step, Sync) else Role.BITMAP


def _run_all(calls: Work, failed: Failed, short: ShortCalls) -> Failed:
    """In a thread: do the calls in order; a set's later calls are left out once one failed.

    Copies and marks mostly go to the page cache, and the first sync waits for a disk.
    """
    for step, call in calls:
        if step.key in failed:
            continue
        if isinstance(step, Sync):
            short.end()
        try:
            call()
        except MemoryError:
            failed[step.key] = (step, OutOfResources(code=errno.ENOMEM))
        except OSError as error:
            failed[step.key] = (step, error)
    return failed
