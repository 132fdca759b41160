"""The background copy of one set: resumable, beside live writes, long runs, holes as holes."""

import errno
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from iifuse.core import plan
from iifuse.core.geometry import CHUNK_SHIFT
from iifuse.core.plan import Side, Touch
from iifuse.core.state import Progress, Role
from iifuse.engine.chunklock import Mode
from iifuse.engine.family import Family
from iifuse.engine.threads import blocking
from iifuse.engine.volumeset import VolumeSet
from iifuse.units import Run

log = logging.getLogger(__name__)

STEP_CHUNKS: Final = 128
"""Chunks that one step locks and copies: 4 MiB."""

STRETCH_CHUNKS: Final = 1024
"""Chunks that share a sync of the target: 32 MiB."""

HOLE_CHUNKS: Final = 1 << 20
"""Chunks of a hole that one step may cross: 32 GiB."""


class Copier:
    """Copies what the copy bitmap names until it is empty, is stopped, or fails.

    Between a chunk's copy and the clearing of its bit the chunk is not locked: a writer that comes
    in between finds the bit set and copies the chunk again. Only a new PIT sets copy bits, and it
    stops the copier first, so a bit that is cleared late is never one that was set anew.
    """

    def __init__(
        self, family: Family, member: VolumeSet, finished: Callable[[VolumeSet], Awaitable[None]]
    ) -> None:
        self.family, self.member = family, member
        self._finished = finished
        self._stop = False
        self._rest = trio.Event()
        self._cursor = 0

    async def run(self) -> None:
        """Copy; afterwards the header says how it ended. Never raises."""
        try:
            while not self._stop and self.member.header.copying:
                runs = await self._stretch()
                if not runs and self.member.bits.copy.is_zero():
                    await self._finish()
                    return
        except OSError as error:
            await self._fail(error)
        except Exception as error:
            log.exception("%s: defect in the copy", self.member.name)
            await self._fail(OSError(errno.EIO, str(error), self.member.name))
        finally:
            self._rest.set()

    @property
    def at_rest(self) -> bool:
        """Has it ended?"""
        return self._rest.is_set()

    async def stop(self) -> None:
        """Return when no step runs any more. The copy bits and the header stay as they are."""
        self._stop = True
        await self._rest.wait()

    async def wait(self) -> None:
        """Return when the copier rests, for whatever reason."""
        await self._rest.wait()

    async def _stretch(self) -> list[Run]:
        """Copy up to STRETCH_CHUNKS chunks, sync them with one sync and clear their bits."""
        runs: list[Run] = []
        weight = 0
        while weight < STRETCH_CHUNKS and not self._stop and self.member.header.copying:
            run = await self._step()
            if run is None:
                break
            runs.append(run)
            weight += min(run[1], STEP_CHUNKS)
        if runs:
            await self._settle(runs)
        return runs

    async def _settle(self, runs: list[Run]) -> None:
        done = plan.copied(self.member.member, runs)
        await self.family.execute(done[:1])
        if self._has_dropped_out():
            return
        clear = done[1]
        assert isinstance(clear, plan.Clear)
        await self.family.clear(clear)

    def _has_dropped_out(self) -> bool:
        return bool(self.member.state.offline & (Role.SHADOW | Role.BITMAP))

    async def _step(self) -> Run | None:
        """Lock, copy and unlock the next run of chunks; None at the end of the bitmap."""
        copy_bits = self.member.bits.copy
        while (first := copy_bits.next_set(self._cursor)) is not None:
            run = (first, copy_bits.run_from(first, await self._reach(first)))
            async with self.family.locks.hold(Mode.WRITE, *run):
                run = (first, copy_bits.run_from(first, run[1]))
                self._cursor = first + max(run[1], 1)
                if run[1]:  # else a writer was quicker and brought the chunk
                    await self._copy(run)
                    return run
        self._cursor = 0
        return None

    async def _copy(self, run: Run) -> None:
        if self.member.restoring:
            await self.family.touch(Touch(Side.RAW, self.member.key, *run))
        (step,) = plan.copy_ahead(self.member.member, run)
        async with self._blaming():
            await self.family.bring(step)

    @asynccontextmanager
    async def _blaming(self) -> AsyncIterator[None]:
        """A shadow that fails goes offline, unless it may fail writes; a master never does."""
        try:
            yield
        except OSError as error:
            shadow = self.member.shadow
            of_shadow = shadow is None or error.filename == shadow.path
            if of_shadow and not self.member.policy.break_write:
                await self.member.take_offline(Role.SHADOW, str(error))
            raise

    async def _reach(self, first: int) -> int:
        """How far one step may go: a step's worth of data, or as far as both sides are a hole."""
        offset, size = first << CHUNK_SHIFT, self.member.header.size_bytes
        source, target = plan.copy_direction(self.member.state)
        volumes = [self.family.volume(self.member.key, role) for role in (source, target)]

        def look() -> int:
            return min(v.data_from(offset, size)[0] for v in volumes)

        async with self._blaming():  # a restore waits for its shadow without a limit
            restoring = self.member.restoring
            data = await (blocking(look) if restoring else self.member.within_limit(look))
        hole = (data - offset) >> CHUNK_SHIFT if data < size else HOLE_CHUNKS
        return min(max(STEP_CHUNKS, hole), HOLE_CHUNKS)

    async def _finish(self) -> None:
        """Progress returns to idle only now that an all-zero copy bitmap is durable.

        And the target with it (invariant 5): under durability=process a writer may have brought
        the last chunks without a sync.
        """
        target = plan.copy_direction(self.member.state)[1]
        await self.family.execute([plan.Sync(self.member.key, target)])
        if self._has_dropped_out():
            return
        await self.member.commit(progress=Progress.IDLE, copying=False)
        log.info("%s: copy finished, %d chunks", self.member.name, self.member.copied_chunks)
        await self._finished(self.member)

    async def _fail(self, error: OSError) -> None:
        """The copy stands aborted, its copy bits say what is missing."""
        log.error("%s: copy stopped: %s", self.member.name, error)
        if self.member.header.copying:
            await self.member.end_copy()
