"""A family: one master with all its shadows. They share locks, the gate and the group commit.

The decisions are in docs/decisions: durability.md (marks, long writes), failures.md (whose write
fails) and waiting.md (what is done on the event loop).
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
"""Steps with the blocking calls that execute them."""

STREAM_CHUNKS: Final = 16
"""Writes of at least this many chunks that follow each other count as a stream: 512 KiB."""

AHEAD_CHUNKS: Final = 256
"""The most chunks that a stream of writes preserves at a time: 8 MiB."""

RECENT_S: Final = 0.1
"""After a first touch a volume is used on the event loop for this many seconds. After a longer
pause the next first touch uses a thread: a disk that has stopped answering would stop the loop, and
with it every volume."""

AT_ONCE_CHUNKS: Final = 64
"""The most chunks that are copied on the event loop, from page cache to page cache: 2 MiB."""

Failed = dict[UUID, tuple[Step, OSError]]
"""The first failure of each set, with the step that failed."""


class TouchFailed(OSError):
    """A step that a write needs has failed, so the write must fail too.

    A chunk could not be restored, or the set's policy is break=write.
    """


class Family:
    """Executes the plans for one master. Its chunks and bits change nowhere else.

    `path` is the master's path, or None for an imported shadow. `master` is None while it cannot be
    opened. `ordered`: the service runs with `durability=ordered`.
    """

    def __init__(
        self, loop: Loop, path: str | None, master: Volume | None, geometry: Geometry, *,
        ordered: bool,
    ) -> None:  # fmt: skip
        self.loop: Final = loop
        self.path, self.master, self.geometry, self.ordered = path, master, geometry, ordered
        self.meant = FileId()
        """Which file the master was, if it is missing."""
        self.astray = ""
        """Why the path of the open master does not lead to it any more; empty: it does."""
        self.sets: list[VolumeSet] = []
        self.locks = ChunkLocks()
        self._stream_stop, self._stream_chunks = -1, 0
        self._failed_at_once: dict[int, Failed] = {}
        """id of a touch -> the failures of `touch_at_once`, which the touch's batch handles."""
        self._commits: Batcher[Touch | Phase] = Batcher(self._commit)

    @property
    def restoring(self) -> VolumeSet | None:
        """The set that restores the master. There is one at the most."""
        return next((s for s in self.sets if s.restoring), None)

    def member(self, key: UUID) -> VolumeSet:
        """The set with this key. Raises KeyError."""
        for member in self.sets:
            if member.key is key or member.key == key:  # `is` is faster, and this is called often
                return member
        raise KeyError(key)

    def volume(self, key: UUID, role: Role) -> Volume:
        """The open volume that has a role in a set. Raises OSError when it is not open."""
        member = self.member(key)
        if role is Role.MASTER:
            found = self.master
        elif role is Role.SHADOW:
            found = member.shadow
        else:
            found = member.bitmap.volume if member.bitmap else None
        if found is None:
            raise OSError(errno.EIO, _why_lost(member, role))
        return found

    # -- group commit -----------------------------------------------------------------------

    async def touch(self, touch: Touch) -> None:
        """Make chunks ready to be written. The caller holds their lock. Raises TouchFailed."""
        try:
            await self._commits.submit(touch)
        finally:
            self._failed_at_once.pop(id(touch), None)

    async def clear(self, clear: Phase) -> None:
        """Clear the copy bits of chunks that the background copy has copied durably."""
        await self._commits.submit(clear)

    async def _commit(self, items: list[Touch | Phase]) -> list[Exception | None]:
        """Do the work of one batch: first the clears, then the steps that the touches need."""
        touches = [item for item in items if isinstance(item, Touch)]
        with suppress(TouchFailed):  # then the set is offline, and its copier sees that
            await self.execute([item for item in items if isinstance(item, tuple)])
        errors: dict[int, Exception | None] = {}
        try:
            await self._touch_all(touches)
        except TouchFailed as error:
            if len(touches) == 1:
                return [error if isinstance(item, Touch) else None for item in items]
            for touch in touches:  # one by one: only the writes that need the bad chunk must fail
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
            if member.unnoted:  # the next start would believe bits that lack these writes
                raise OSError(errno.EIO, member.header.offline_reason, member.name)

    async def _wait_no_longer(self) -> None:
        """Give up bitmaps that are missing: a write to the master could not be noted anywhere."""
        for member in self.sets:
            if member.lacks(Role.BITMAP):
                await member.wait_no_longer(Role.BITMAP, _why_lost(member, Role.BITMAP))

    def run_to_preserve(self, run: Run) -> Run:
        """The run of chunks that a first touch of `run` should preserve; it may be longer.

        If long writes follow each other, the next write will touch the next chunks. To preserve
        those now saves syncs.
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
        """Make chunks ready without an await. Nobody holds them. False: this is not possible.

        It is not possible if a sync is needed or if anything may have to wait. Then the caller has
        to call `touch`, which does all steps again. But a call that has failed here is not
        repeated: the batch begins with its failure (invariant 9).
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
            volume = self.volume(step.key, _volume_to_blame(step))
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
        """Execute a plan. After its first failure a set goes offline, and its steps are left out.

        `for_write`: a write waits for the plan, and may fail instead (Policy). Raises TouchFailed.
        """
        for phase in phases:
            prepared = ((step, self._prepare(step)) for step in phase)
            calls = [(step, call) for step, call in prepared if call is not None]
            await self._execute_phase(calls, for_write)

    def _prepare(self, step: Step) -> Callable[[], None] | None:
        """Begin a step. Returns the call that blocks, or None if there is none.

        A clear changes bits in memory at once. A mark changes them when it is durable (`_settle`).
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
        """Copy the chunks of a step. Runs in a thread. Raises OSError with the volume's path."""
        source, target = self.volume(step.key, step.source), self.volume(step.key, step.target)
        copying = Copying(source, target)
        for run in step.runs:
            copying.extent(*self.geometry.extent(run))

    def _sync(self, step: Sync) -> None:
        self.volume(step.key, step.role).sync()

    async def _execute_phase(self, calls: Work, for_write: bool) -> None:
        """Make the blocking calls of a phase in their order, and then handle their failures."""
        failed: Failed = {}
        for limited, part in groupby(calls, lambda call: self._limited(call[0])):
            await self._run(limited, list(part), failed)
        for step, _ in calls:
            if step.key not in failed:
                with suppress(OSError):  # the volume was closed just now
                    self.volume(step.key, _volume_to_blame(step)).answered = trio.current_time()
            if isinstance(step, Mark):
                await self._settle(step, failed)
        await self._fail_all(failed, for_write)

    async def _fail_all(self, failed: Failed, for_write: bool) -> None:
        refused = [await self._fail(*failure, for_write) for failure in failed.values()]
        for error in filter(None, refused):
            raise error

    async def _settle(self, step: Mark, failed: Failed) -> None:
        """Let the bits in memory follow a mark that is durable. One that failed changes nothing."""
        if step.key in failed:
            return
        member = self.member(step.key)
        member.settle(step.runs, step.ahead)
        if member.is_lost:  # it went offline meanwhile, by a note that lacks these marks
            await member.note_again()

    def _limited(self, step: Step) -> VolumeSet | None:
        """The set whose time limit holds for a step; None: there is no limit.

        The write of a restore never has one. If it was given up, it could later overwrite what
        programs have written.
        """
        member = self.member(step.key)
        on_shadow = isinstance(step, Copy | Sync) and _volume_to_blame(step) is Role.SHADOW
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
        """Handle a failed step: take a volume offline, or return the error for the write."""
        member, role = self.member(step.key), _volume_to_blame(step)
        refuse = for_write and member.policy.break_write and role is not Role.MASTER
        if isinstance(error, OutOfResources) and (for_write or role is not Role.BITMAP):
            # No volume has failed. (A clear is different: it has changed bits in memory already.)
            log.error("%s: there was no thread or no memory for it: %s", member.name, error)
            refuse = True
        elif refuse:
            log.error("%s: a write to the master fails because of it: %s", member.name, error)
        elif role is Role.MASTER:  # the writer gets the error of the master, and the copy stops
            await member.end_copy()
        else:
            await member.take_offline(role, words(error))
        if refuse or member.restoring:
            return TouchFailed(error.errno, error.strerror, error.filename)
        return None


def _why_lost(member: VolumeSet, role: Role) -> str:
    """Why a set has lost a volume that it waited for, for people."""
    missing = member.missing.get(role)
    why = missing.why if missing else f"the {(role.name or '').lower()} is not available"
    return f"{why} when it was needed"


def _is_preserved_ahead(member: VolumeSet) -> bool:
    """May chunks of a set be preserved before anybody writes to them?

    Only in a dependent set, where a shadow bit means just that the chunk is preserved. And only if
    a failure costs the shadow and not the write, which concerns other chunks.
    """
    dependent = member.header.kind is Kind.DEPENDENT
    return dependent and member.answers_at_once and not member.policy.break_write


def _volume_to_blame(step: Step) -> Role:
    """The volume that goes offline if a step fails. A copy from the master blames its target."""
    if isinstance(step, Copy):
        return step.target
    return step.role if isinstance(step, Sync) else Role.BITMAP


def _run_all(calls: Work, failed: Failed, short: ShortCalls) -> Failed:
    """Make the calls in their order. After a failure the set's further calls are left out.

    This runs in a thread. The calls before the first sync are short, because they mostly go to the
    page cache.
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
