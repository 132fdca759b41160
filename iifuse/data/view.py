"""The files of the mount: what programs read and write.

For each request the view looks at the chunks. If nobody holds them and all of them are ready, the
data goes to the raw volume at once, without a lock, an await or a thread. Otherwise the view locks
the chunks, the family makes them ready, and then the data goes to the raw volume.
"""

import errno
import time
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

import trio

from iifuse.core import views
from iifuse.core.state import Role
from iifuse.core.touch import Side, Touch
from iifuse.data.batch import Batcher
from iifuse.data.chunklock import Mode
from iifuse.data.family import Family
from iifuse.data.timedfile import TimedFile
from iifuse.data.volumeset import VolumeSet
from iifuse.errors import words
from iifuse.loop.threadpool import OutOfResources
from iifuse.store.volume import Buffer, Volume
from iifuse.units import Run

T = TypeVar("T")

Segment = tuple[Volume, int, int]
"""(raw volume, offset in bytes, length in bytes)."""


class View(TimedFile):
    """One file of the mount. It behaves like a disk of `size_bytes` bytes.

    `path`: the path of the volume, as the user named it. `opens`: the number of open handles.
    """

    def __init__(self, path: str, family: Family) -> None:
        super().__init__(path, family.loop)
        self.family = family
        self.size_bytes: Final = family.geometry.size_bytes
        self.content = 0
        """Counts the changes of the content that the kernel does not know. Pages that it has cached
        of an earlier content are old."""
        self.opens = 0
        self._closed = trio.Event()
        self._syncs: Batcher[None] = Batcher(self._sync_all)

    # -- what subclasses define -------------------------------------------------------------

    def segments(self, offset: int, length: int) -> list[Segment]:
        """From where an extent has to be read. Raises OSError if a volume is offline."""
        raise NotImplementedError

    def note_if_ready(self, first: int, count: int) -> bool:
        """May the chunks be written at once? If so, this notes the write in the bits."""
        raise NotImplementedError

    def touch(self, first: int, count: int) -> Touch:
        """The touch that the family has to do before a write to these chunks."""
        raise NotImplementedError

    def target(self) -> Volume:
        """The raw volume that writes go to. Raises OSError when it is offline."""
        raise NotImplementedError

    def needed(self) -> list[Volume]:
        """The volumes that have to be synced, in this order, to make the content durable."""
        raise NotImplementedError

    async def suspect(self, defect: Exception) -> None:
        """Take the sets offline after a defect in a write: their bits may be wrong (F29)."""
        for member in self.concerned():
            reason = f"suspect since a defect of the service ({defect!r}); its log says more"
            await member.take_offline(Role.SHADOW, reason)

    @property
    def has_limit(self) -> bool:
        """Do calls on the raw volume have a time limit?"""
        return False

    async def fetch(self, segments: list[Segment]) -> bytes:
        """Read segments that are not in the page cache."""
        return await self.loop.blocking_for_program(partial(_read, segments))

    async def put(self, offset: int, data: Buffer) -> int:
        """Write data to the raw volume. Its chunks are locked and ready."""
        target = self.target()
        if not target.remote:
            return target.write(offset, data)
        return await self.loop.blocking_for_program(partial(target.write, offset, data))

    def fails_with(self, volume: Volume) -> bool:
        """Does a failed sync of this volume mean that the content may not be durable?"""
        raise NotImplementedError

    # -- input and output -------------------------------------------------------------------

    async def read(self, offset: int, length: int) -> Buffer:
        """Read at any offset. The result is shorter at the end of the volume, and empty past it.

        Raises OSError.
        """
        length = self.family.geometry.clip(offset, length)
        if not length:
            return b""
        run = self.family.geometry.span(offset, length)
        if self.family.locks.free(Mode.READ, *run):
            data = _read_cached(self.segments(offset, length))
            if data is not None:
                return data
        async with self.family.locks.hold(Mode.READ, *run):  # invariant 10
            return await self.fetch(self.segments(offset, length))

    async def write(self, offset: int, data: Buffer) -> int:
        """Write at any offset. Returns how many bytes were written: fewer at the end of the volume.

        Raises OSError; past the end it is ENOSPC, as for a device.
        """
        length = self.family.geometry.clip(offset, len(data))
        if length < len(data):
            if not length:
                raise OSError(errno.ENOSPC, "past the end of the volume", self.path)
            data = memoryview(data)[:length]
        if not length:
            return 0
        while not self.times.ceiling_ns:
            await self.note(0)
        run = self.family.geometry.span(offset, length)
        target = self.target()
        if target.remote or self.has_limit or not self.family.locks.free(Mode.WRITE, *run):
            return await self._write_held(run, offset, data)
        touch = None if self.note_if_ready(*run) else self.touch(*run)
        if touch is not None and not self.family.touch_at_once(touch):
            wide = self.family.run_to_preserve(run)
            return await self._write_held(wide, offset, data, touch)
        try:
            return target.write(offset, data)
        finally:
            self.times.change(time.time_ns())

    async def _write_held(
        self, run: Run, offset: int, data: Buffer, tried: Touch | None = None
    ) -> int:
        """Write with the chunks of `run` locked. `tried`: a touch that was not possible at once."""
        self._changing += 1
        try:
            async with self.family.locks.hold(Mode.WRITE, *run):
                if tried is not None and tried.count == run[1]:
                    await self.family.touch(tried)
                elif not self.note_if_ready(*run):
                    await self.family.touch(self.touch(*run))
                return await self.put(offset, data)
        finally:
            self.times.change(time.time_ns())
            self._changing -= 1

    async def sync(self) -> None:
        """Make the content durable: this volume, and the bits that it needs (invariant 12)."""
        for volume in self.needed():
            if not volume.is_synced:
                await self._syncs.submit(None)
                return

    async def _sync_all(self, items: list[None]) -> list[Exception | None]:
        tried = [(volume, await self._sync_one(volume)) for volume in self.needed()]
        failed = [(volume, error) for volume, error in tried if error is not None]
        for volume, error in failed:
            if isinstance(error, OutOfResources):  # the sync was not tried, so nothing is lost
                continue
            for member in self.family.sets:
                await member.take_offline_by_path(volume.path, words(error))
        own = [error for volume, error in failed if self.fails_with(volume)]
        return [own[0] if own else None] * len(items)

    async def _sync_one(self, volume: Volume) -> OSError | None:
        """Sync a volume. A shadow keeps its time limit, also when it is synced for the master."""
        try:
            for member in self.family.sets:
                if member.shadow is volume and member.policy.limit_s:
                    await member.within_limit(volume.sync)
                    return None
            await self.loop.blocking_for_program(volume.sync)
        except OSError as error:
            return error
        return None

    # -- open handles -----------------------------------------------------------------------

    async def open(self) -> None:
        """Count a handle that is opened. Raises OSError if the file has left the mount."""
        async with self.door:
            if self.gone:
                raise OSError(errno.ESTALE, "has left the mount", self.path)
            self.opens += 1

    def released(self) -> None:
        """Count a handle that was released."""
        self.opens -= 1
        if self.opens == 0:
            self._closed.set()
            self._closed = trio.Event()

    async def wait_closed(self, seconds: float) -> bool:
        """Wait until no handle is open. False: that took longer than `seconds` (TimeLimits)."""
        with self.loop.limits.move_on_after(seconds):
            while self.opens:
                await self._closed.wait()
        return self.opens == 0

    def changed(self, time_ns: int) -> None:
        """Note that the content is another one from `time_ns` on, so cached pages are old."""
        self.content += 1
        self.times.change(time_ns)


class MasterView(View):
    """The view of a master. If its family has no set, it passes everything through."""

    role = Role.MASTER

    @property
    def raw(self) -> Volume | None:
        """The raw master."""
        return self.family.master

    def segments(self, offset: int, length: int) -> list[Segment]:
        """From the raw master. Chunks that are not restored yet are read from the shadow."""
        restoring = self.family.restoring
        if restoring is None:
            return [(self.target(), offset, length)]
        first, count = self.family.geometry.span(offset, length)
        word = views.master_on_shadow(restoring.bits, first, count)
        return [
            (_online_shadow(restoring) if on_shadow else self.target(), at, size)
            for on_shadow, at, size in views.split(word, first, offset, length)
        ]

    def note_if_ready(self, first: int, count: int) -> bool:
        """The chunks must be ready in every set of the family, except sets that are lost."""
        for member in self.family.sets:  # a loop is faster than a generator, and every write asks
            if not member.bits.note_if_ready(first, count) and not member.needs_nothing:
                return False
        return True

    def touch(self, first: int, count: int) -> Touch:
        """A write to the master concerns every set of the family."""
        for member in self.family.sets:
            if member.unnoted or (member.restoring and member.lacks(Role.BITMAP)):
                raise OSError(errno.EIO, member.why_hidden, self.path)
        return Touch(Side.MASTER, None, first, count)

    def target(self) -> Volume:
        """The raw master. A view exists only while it is open."""
        assert self.family.master is not None
        return self.family.master

    def needed(self) -> list[Volume]:
        """The raw master. With `durability=process` the sets' volumes come before it."""
        return [*_unsynced(self.family, self.family.sets), self.target()]

    def fails_with(self, volume: Volume) -> bool:
        """The raw master, and the volumes of a restore, which hold a part of its content."""
        restoring = self.family.restoring
        return volume is self.target() or (restoring is not None and restoring.has(volume))

    def concerned(self) -> list[VolumeSet]:
        """Every set of the family."""
        return list(self.family.sets)


class ShadowView(View):
    """The view of a shadow: a point-in-time copy that may be written like any disk."""

    role = Role.SHADOW

    def __init__(self, member: VolumeSet, family: Family) -> None:
        super().__init__(member.name, family)
        self.member = member

    @property
    def raw(self) -> Volume | None:
        """The raw shadow."""
        return self.member.shadow

    def segments(self, offset: int, length: int) -> list[Segment]:
        """From the shadow. Chunks that it does not have are read from the raw master."""
        shadow = _online_shadow(self.member)
        first, count = self.family.geometry.span(offset, length)
        word = views.shadow_on_shadow(self.member.state, self.member.bits, first, count)
        return [
            (shadow if on_shadow else self._master(), at, size)
            for on_shadow, at, size in views.split(word, first, offset, length)
        ]

    def _master(self) -> Volume:
        if self.family.master is None:
            raise OSError(errno.EIO, "the master is not available", self.path)
        return self.family.master

    def note_if_ready(self, first: int, count: int) -> bool:
        """The chunks must be ready in this set."""
        return self.member.bits.note_if_ready(first, count)

    def touch(self, first: int, count: int) -> Touch:
        """A write to the shadow concerns its set and, during a restore, the other sets."""
        member = self.member
        lost = member.state.offline & Role.BITMAP or member.lacks(Role.BITMAP)
        if lost or (member.restoring and member.lacks(Role.MASTER)):
            raise OSError(errno.EIO, member.why_hidden, self.path)
        self.target()  # raises: a step for a hidden shadow would fail and take it offline
        return Touch(Side.SHADOW, self.member.key, first, count)

    def target(self) -> Volume:
        """The raw shadow."""
        return _online_shadow(self.member)

    @property
    def has_limit(self) -> bool:
        """Calls on the shadow have the time limit of the set's policy."""
        return self.member.policy.limit_s > 0

    async def fetch(self, segments: list[Segment]) -> bytes:
        """Read with the shadow's time limit: the master must not wait for the chunks' locks."""
        if not any(volume is self.member.shadow for volume, _, _ in segments):
            return await super().fetch(segments)
        return await self._in_time(partial(_read, segments))

    async def put(self, offset: int, data: Buffer) -> int:
        """Write with the shadow's time limit (see fetch)."""
        if not self.has_limit:
            return await super().put(offset, data)
        if self.member.stuck:
            raise OSError(errno.EIO, "an earlier call has not come back yet", self.path)
        return await self._in_time(partial(self.target().write, offset, data))

    async def _in_time(self, call: Callable[[], T]) -> T:
        try:
            return await self.member.within_limit(call)
        except OSError as error:
            if error.errno == errno.ETIMEDOUT and not self.member.policy.break_write:
                await self.member.take_offline(Role.SHADOW, words(error))
            raise

    def needed(self) -> list[Volume]:
        """The raw shadow. With `durability=process` the set's volumes come before it."""
        return [*_unsynced(self.family, [self.member]), self.target()]

    def fails_with(self, volume: Volume) -> bool:  # noqa: ARG002
        """The content of a shadow needs every one of the volumes."""
        return True

    def concerned(self) -> list[VolumeSet]:
        """The shadow's own set."""
        return [self.member]


def _online_shadow(member: VolumeSet) -> Volume:
    if member.shadow is None or member.is_hidden or member.state.offline & Role.SHADOW:
        raise OSError(errno.EIO, member.why_hidden, member.name)
    return member.shadow


def _unsynced(family: Family, sets: list[VolumeSet]) -> list[Volume]:
    """The volumes that first touches leave unsynced (durability=process).

    Shadows come before bitmaps: a bit must not be durable before its chunk (invariant 4).
    """
    if family.ordered:
        return []
    live = [s for s in sets if not s.needs_nothing]
    shadows = [s.shadow for s in live if s.shadow is not None]
    return shadows + [s.bitmap.volume for s in live if s.bitmap is not None]


def _read_cached(segments: list[Segment]) -> Buffer | None:
    if len(segments) == 1:
        volume, offset, length = segments[0]
        return volume.read_cached(offset, length)
    parts = []
    for volume, offset, length in segments:
        part = volume.read_cached(offset, length)
        if part is None:
            return None
        parts.append(part)
    return b"".join(parts)


def _read(segments: list[Segment]) -> bytes:
    return b"".join(volume.read(offset, length) for volume, offset, length in segments)
