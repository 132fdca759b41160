"""The times of one file of the mount, and what a durable record of them says (core.times)."""

import errno
import time
from dataclasses import replace
from typing import Any, ClassVar, Final, Protocol

import trio

from iifuse.core.header import FileId, Header, Stamp
from iifuse.core.state import Kind, Progress, Role
from iifuse.core.times import TIME_NS_MAX, FileTimes, Times, doubted, in_range
from iifuse.data.volumeset import VolumeSet
from iifuse.loop.loop import Loop
from iifuse.store.presence import file_of
from iifuse.store.stamp import quiet_stamp, stamp
from iifuse.store.volume import Volume


class Keeper(Protocol):
    """Keeps the durable record of the times of files (Timekeeper)."""

    async def note(self, view: Any, time_ns: int = 0) -> None:
        """Record that a file may change from now on, and that it may show `time_ns`."""


class TimedFile:
    """A file whose times move with every change of its content, before the change is answered."""

    role: ClassVar[Role]
    """The role of its volume in the sets: master or shadow."""
    keeper: Keeper

    def __init__(self, path: str, loop: Loop) -> None:
        self.path: Final = path
        self.loop: Final = loop
        self.times = FileTimes(Times(0, 0, TIME_NS_MAX))
        self.times_lock = trio.Lock()
        """Held while the record of the times, or the content as a whole, is changed. It is taken
        before gates and header locks."""
        self.door = trio.Lock()
        """Held by a verb that needs the file closed. A program that opens the file waits for it."""
        self.gone = False
        """The file has left the mount: it cannot be opened any more."""
        self._changing = 0

    async def note(self, time_ns: int) -> None:
        """Wait until the record allows the file to show this time (nanoseconds since 1970)."""
        await self.keeper.note(self, time_ns)

    @property
    def raw(self) -> Volume | None:
        """The raw volume; None: it is not open."""
        raise NotImplementedError

    def concerned(self) -> list[VolumeSet]:
        """The sets whose bits a write to this file may change. Their headers keep its times."""
        raise NotImplementedError

    def times_in(self, header: Header) -> Times:
        """The times of this file in the header of a set."""
        return header.master_times if self.role is Role.MASTER else header.shadow_times

    def as_field(self, record: Times) -> dict[str, Any]:
        """The times as a field of a header: {name: value}."""
        return {f"{self.role.name}_times".lower(): record}

    def as_fields(self, record: Times, looks: Stamp) -> dict[str, Any]:
        """The times and the stamp of the raw file as fields of a header: {name: value}."""
        return self.as_field(record) | {f"{self.role.name}_stamp".lower(): looks}

    def stamp(self) -> Stamp:
        """The stamp of the raw file. Blocks; raises OSError."""
        return stamp(self.raw)

    def file(self) -> FileId:
        """Which file or device the raw volume is."""
        return FileId() if self.raw is None else file_of(self.raw)

    @property
    def has_stamp(self) -> bool:
        """Is the raw volume a file that only copies and writes to this view change?

        The shadow of a dependent set is not, because chunks of its master are preserved there.
        """
        if self.raw is None or self.raw.is_device:
            return False
        return self.role is Role.MASTER or all(
            member.state.kind is Kind.INDEPENDENT for member in self.concerned()
        )

    @property
    def is_filled(self) -> bool:
        """Is there an incomplete copy to the raw volume?"""
        to_master = self.role is Role.MASTER
        progress = Progress.TO_MASTER if to_master else Progress.TO_SHADOW
        return any(member.state.progress is progress for member in self.concerned())

    async def durable_stamp(self) -> Stamp:
        """The stamp of the raw file, after its times were made durable. Raises OSError.

        The caller has to compare it with the stamp later, because the file may be written
        meanwhile.
        """
        raw = self.raw
        if raw is None:
            return Stamp()
        for member in self.concerned():
            if member.shadow is raw:
                found = await member.within_limit(self.quiet_stamp)
                await member.within_limit(raw.sync_times)
                return found
        found = await self.loop.blocking(self.quiet_stamp)
        await self.loop.blocking(raw.sync_times)
        return found

    def quiet_stamp(self) -> Stamp:
        """The stamp of the raw file while nobody writes to it. Blocks; raises OSError."""
        return quiet_stamp(self.raw)

    def last_times(self) -> Times:
        """The record for a stop of the service: exact, unless the content may not be durable."""
        lost = self.raw is None or not self.raw.is_synced or self._changing
        return self.times.record() if lost else self.times.exact()

    @property
    def is_changing(self) -> bool:
        """Is a write under way?"""
        return self._changing > 0

    @property
    def may_change(self) -> bool:
        """May a write that was given up still change the file?"""
        return any(member.stuck for member in self.concerned())

    async def set_mtime(self, mtime_ns: int, ctime_ns: int | None) -> None:
        """Let a program set the modification time.

        `ctime_ns`: the change time that the kernel shows, if the kernel keeps the times.
        """
        async with self.door:
            if self.gone:
                raise OSError(errno.ESTALE, "has left the mount", self.path)
            await self.note(max(in_range(mtime_ns), in_range(ctime_ns or 0)))
            if ctime_ns is None:
                self.times.set_mtime(mtime_ns, time.time_ns())
            else:
                self.times.adopt(mtime_ns, ctime_ns)


def in_doubt(header: Header) -> Header:
    """The header with its files' times in doubt.

    Either nobody knows what the files have shown, or one of them shows another content now.
    """
    now = time.time_ns()
    times = doubted(header.master_times, now), doubted(header.shadow_times, now)
    return replace(header, master_times=times[0], shadow_times=times[1])
