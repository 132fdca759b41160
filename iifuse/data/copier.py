"""The background copy of one set.

It runs while programs write, can be stopped and continued, copies in long runs, and keeps holes.
docs/decisions/copy.md says what was tried and measured.
"""

import errno
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple, TypeVar

import trio

from iifuse import errors
from iifuse.core import touch as orders
from iifuse.core.bitmap import runs_of
from iifuse.core.geometry import CHUNK_SHIFT
from iifuse.core.state import Progress, Role
from iifuse.core.touch import Copy, Phase, Side, Touch
from iifuse.data.chunklock import Mode
from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.errors import words
from iifuse.loop.threadpool import OutOfResources
from iifuse.store.copying import Copying
from iifuse.store.volume import Volume
from iifuse.units import Run, chunks_in, count, stop_of

log = logging.getLogger(__name__)

T = TypeVar("T")

STEP_CHUNKS: Final = 128
"""Chunks that one step locks and copies: 4 MiB."""

STEP_S: Final = 0.004
"""Seconds after which a step begins no further run, because writers may wait for its lock."""

STRETCH_CHUNKS: Final = 1 << 15
"""The most chunks that share a sync of the target: 1 GiB."""

FIRST_CHUNKS: Final = 1024
"""Chunks that share the first sync: 32 MiB. That sync shows how fast the disk is."""

STRETCH_RUNS: Final = 1024
"""The most runs that share a sync. The event loop needs 3 ms to clear their bits."""

STRETCH_S: Final = 0.5
"""Seconds after which a sync is due. This much of the copy is lost by a crash or an error.

The sync itself should take half as long, because a task that stops the copy waits for it.
"""

STOP_S: Final = 0.5
"""Seconds for which a task that stops the copy waits for the sync: 64 MiB of an ordinary disk."""

HOLE_CHUNKS: Final = 1 << 20
"""The most chunks of a hole that one step crosses: 32 GiB."""


Tell = Callable[[VolumeSet], Awaitable[None]]
"""Is called with a set when something has happened to its copy."""


class _Brought(NamedTuple):
    """What a step has copied, and the hole that it has seen after that."""

    runs: list[Run]
    data_bytes: int
    hole_stop: int
    """From the end of the step up to this chunk both volumes have a hole."""


class Copier:
    """Copies the chunks whose copy bits are set, until none is left, or until it is stopped.

    After a chunk is copied, it is not locked until its bit is cleared. A writer that comes
    meanwhile finds the bit set and copies the chunk again. Only a new PIT sets copy bits, and it
    stops the copier first. So a bit that is cleared late was never set again meanwhile.
    """

    def __init__(
        self,
        family: Family,
        member: VolumeSet,
        finished: Tell,
        finishing: Tell | None = None,
        failed: Callable[[VolumeSet, str], Awaitable[None]] | None = None,
    ) -> None:
        self.family, self.member = family, member
        self._finished, self._finishing, self._failed = finished, finishing, failed
        self._began = trio.current_time()
        self._stop, self._rest = trio.Event(), trio.Event()
        self._sync_failed: Exception | None = None
        self._cursor = 0
        self._hole_stop = 0
        self._room_chunks = FIRST_CHUNKS
        self._thread = trio.CapacityLimiter(1)

    async def run(self) -> None:
        """Copy. Afterwards the header says whether the copy is complete. This never raises."""
        try:
            while not self._stop.is_set() and self.member.header.copying:
                runs = await self._stretch()
                if not runs and self.member.bits.copy.is_zero():
                    await self._finish()
                    return
        except OSError as error:
            await self._fail(error)
        except Exception as error:
            log.exception("%s: defect in the copy", self.member.name)
            await self._fail(OSError(errno.EIO, errors.words(error), self.member.name))
        finally:
            self._rest.set()

    @property
    def figures(self) -> dict[str, float]:
        """How many chunks were copied since the point in time, and how long the copy has run.

        Chunks that writers have copied count too. The time is in seconds.
        """
        chunks, seconds = self.member.copied_chunks, trio.current_time() - self._began
        return {"chunks": chunks, "seconds": round(seconds, 3)}

    @property
    def at_rest(self) -> bool:
        """Has the copier ended?"""
        return self._rest.is_set()

    async def stop(self) -> None:
        """Return when no step runs any more. The copy bits and the header stay as they are.

        A sync that runs may have to write a GiB, so this waits for it only for a short time. What
        it has not made durable by then is copied again later (K8).
        """
        self._stop.set()
        await self._rest.wait()

    async def wait(self) -> None:
        """Return when the copier has ended, for whatever reason."""
        await self._rest.wait()

    async def _stretch(self) -> list[Run]:
        """Copy a stretch of chunks, make it durable with one sync, and clear its bits."""
        runs: list[Run] = []
        weight, due = 0, trio.current_time() + STRETCH_S
        while not self._stop.is_set() and self.member.header.copying:
            brought = await self._step()
            runs += brought
            weight += min(chunks_in(brought), STEP_CHUNKS)
            is_full = weight >= min(self._room_chunks, STRETCH_CHUNKS) or len(runs) >= STRETCH_RUNS
            if not brought or is_full or trio.current_time() >= due:
                break
        if runs:
            began = trio.current_time()
            await self._end_stretch(runs)
            self._adapt(trio.current_time() - began)
        return runs

    def _adapt(self, settled_s: float) -> None:
        """Choose the size of the next stretch. A slow disk gets less, since its queue is long."""
        if settled_s > STRETCH_S / 2:
            self._room_chunks = max(self._room_chunks // 2, STEP_CHUNKS)
        elif settled_s < STRETCH_S / 8:
            self._room_chunks = min(2 * self._room_chunks, STRETCH_CHUNKS)

    async def _end_stretch(self, runs: list[Run]) -> None:
        sync, clear = orders.end_of_stretch(self.member.member, runs)
        if await self._is_durable(sync):
            await self.family.clear(clear)

    async def _is_durable(self, sync: Phase) -> bool:
        """Make durable what was copied. False: the set is lost, or the copy has to stop.

        If this does not wait for the sync, the sync goes on, and takes the target offline if it
        fails.
        """
        ended = trio.Event()
        trio.lowlevel.spawn_system_task(self._sync, sync, ended, name="sync of a copy")
        async with trio.open_nursery() as nursery:
            for event in (ended, self._stop):
                nursery.start_soon(_end_when, event, nursery.cancel_scope)
        with self.family.loop.limits.move_on_after(STOP_S):
            await ended.wait()
        if self._sync_failed is not None:
            raise self._sync_failed
        return ended.is_set() and not self.member.is_lost

    async def _sync(self, sync: Phase, ended: trio.Event) -> None:
        try:
            await self.family.execute([sync])
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            self._sync_failed = error
            if self._stop.is_set():
                name, why = self.member.name, words(error)
                log.error("%s: the last sync of its copy failed: %s", name, why)  # noqa: TRY400
        finally:
            ended.set()

    async def _step(self) -> list[Run]:
        """Lock, copy and unlock the next runs of chunks. Returns them; empty: no bit is left."""
        while wanted := self._next():
            async with self.family.locks.hold_runs(Mode.WRITE, wanted):
                runs = self._still_missing(wanted)
                self._cursor = stop_of(wanted[-1])
                if not runs:  # writers have copied these chunks meanwhile
                    continue
                brought = await self._copy(runs)
                self._cursor = stop_of(brought.runs[-1])
                self._hole_stop = brought.hole_stop
            if brought.data_bytes:
                await self._write_back(brought.runs)
            return brought.runs
        self._cursor = self._hole_stop = 0
        return []

    def _next(self) -> list[Run]:
        """The runs of the next step: STEP_CHUNKS chunks, or all that is in a common hole."""
        bits, hole_stop = self.member.bits.copy, min(self._hole_stop, self._cursor + HOLE_CHUNKS)
        in_hole = bits.gather(self._cursor, hole_stop, HOLE_CHUNKS)[:STEP_CHUNKS]
        return in_hole or bits.gather(self._cursor, bits.chunks, STEP_CHUNKS)

    def _still_missing(self, wanted: list[Run]) -> list[Run]:
        """The chunks of these runs that still have their copy bits, now that they are locked."""
        copy_bits = self.member.bits.copy
        return [run for first, n in wanted for run in runs_of(copy_bits.word(first, n), first)]

    async def _copy(self, runs: list[Run]) -> _Brought:
        if self.member.restoring:
            await self._touch_siblings(runs)
        step = orders.copy_step(self.member.member, *runs)
        return await self._on_volumes(partial(self._bring, step))

    async def _touch_siblings(self, runs: list[Run]) -> None:
        """Preserve the chunks for the other sets, all at once so that they share their syncs."""
        errors: list[OSError] = []

        async def touch(run: Run) -> None:
            try:
                await self.family.touch(Touch(Side.RAW, self.member.key, *run))
            except OSError as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            for run in runs:
                nursery.start_soon(touch, run)
        if errors:
            raise errors[0]

    def _bring(self, step: Copy) -> _Brought:
        """Copy one or more of the runs, and then look for a hole after them. Runs in a thread.

        A program that writes into the hole later clears the copy bits there. So the chunks that are
        still to be copied stay a hole.
        """
        copying = Copying(*self._volumes(step.source, step.target))
        until, done, data_bytes = time.monotonic() + STEP_S, 0, 0
        for run in step.runs:
            data_bytes += copying.extent(*self.member.geometry.extent(run))
            done += 1
            if time.monotonic() > until:
                break
        runs = list(step.runs[:done])
        return _Brought(runs, data_bytes, self._hole_from(copying, stop_of(runs[-1])))

    def _volumes(self, source: Role, target: Role) -> tuple[Volume, Volume]:
        key = self.member.key
        return self.family.volume(key, source), self.family.volume(key, target)

    def _hole_from(self, copying: Copying, chunk: int) -> int:
        """The first chunk from `chunk` on at which a volume has data. Runs in a thread."""
        size = self.member.header.size_bytes
        data = copying.hole_stop(min(chunk << CHUNK_SHIFT, size), size)
        return data >> CHUNK_SHIFT if data < size else self.member.geometry.chunks

    async def _write_back(self, runs: list[Run]) -> None:
        """Let the kernel begin to write what a step has copied. A busy disk makes us wait here.

        The chunks are not locked meanwhile. The sync of the stretch has less to do then.
        """
        target = self.family.volume(self.member.key, orders.copy_direction(self.member.state)[1])
        first, stop = runs[0][0], stop_of(runs[-1])
        extent = self.member.geometry.extent((first, stop - first))
        if target.has_disk:
            await self._on_volumes(partial(target.start_writeback, *extent))

    async def _on_volumes(self, call: Callable[[], T]) -> T:
        """Make a call in a thread, within the shadow's time limit. A restore has no limit."""
        async with self._blaming():
            if self.member.restoring or not self.member.policy.limit_s:
                return await self.family.loop.blocking_low_priority(call, self._thread)
            return await self.member.within_limit(call)

    @asynccontextmanager
    async def _blaming(self) -> AsyncIterator[None]:
        """Take the shadow offline if it fails and the policy says so. A master stays online."""
        try:
            yield
        except OutOfResources:
            raise
        except OSError as error:
            shadow = self.member.shadow
            of_shadow = shadow is None or error.filename == shadow.path
            if of_shadow and not self.member.policy.break_write:
                await self.member.take_offline(Role.SHADOW, words(error))
            raise

    async def _finish(self) -> None:
        """Note that the copy is complete: a copy bitmap of zeros is durable now.

        The target is made durable first (invariant 5): under durability=process a writer may have
        copied the last chunks without a sync.
        """
        if not await self._is_durable(orders.sync_target(self.member.member)):
            return
        if self._finishing is not None:
            await self._finishing(self.member)
        await self.member.commit(progress=Progress.IDLE, copying=False)
        chunks = count(self.member.copied_chunks, "chunk")
        log.info("%s: copy finished, %s", self.member.name, chunks)
        await self._finished(self.member)

    async def _fail(self, error: OSError) -> None:
        """Note that the copy is aborted. Its copy bits say what is missing."""
        log.error("%s: copy stopped: %s", self.member.name, error)
        if self.member.header.copying:
            await self.member.end_copy()
        if self._failed is not None:
            await self._failed(self.member, words(error))


async def _end_when(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
