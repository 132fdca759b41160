"""The durable record of the times that files show (core.times). It is made before a file changes.

For a master the record is in the header of every set, so that one of them is enough: each set may
be disabled or lost. For a shadow it is in the header of its set. For a volume without a set it is
in the state database. Rejected: a separate place for masters, which would be one more that can
fail.

A file counts as quiet only when its content is durable. Otherwise a power loss could bring back an
older content with the recorded times.

The record of a quiet file also has the stamp of the raw file. By it a start finds out after a kill
whether somebody has written to the volume behind the service's back. The stamp is removed with the
record before the first write. While the record has a stamp, nothing may write to the volume.
"""

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Final, Protocol

import trio

from iifuse import errors
from iifuse.core.header import FileId, Stamp
from iifuse.core.missing import same_file
from iifuse.core.state import Role
from iifuse.core.times import AHEAD_NS, FileTimes, Times, doubted, resumed
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.loop.loop import Loop

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
QUIET_S: Final = 5.0
"""Seconds without a change after which the exact times are recorded."""
AHEAD_PER_FILE_NS: Final = 100_000_000
"""Ceilings are higher by this much for each file that is being written. So all ceilings together
are raised about twenty times a second at the most. Each time takes a sync."""


class Ledger(Protocol):
    """Keeps the records of volumes without a set, in the state database. Its methods block."""

    def times(self, path: str) -> tuple[Times, Stamp, FileId]:
        """The recorded times of a volume, its stamp at that time, and which file it was."""

    def keep_times(self, path: str, times: Times, stamp: Stamp, file: FileId) -> None:
        """Record the times of a volume, if it is one without a set. Raises StorageError."""


class Timekeeper:
    """Knows which files have changed lately, and keeps their records."""

    def __init__(self, ledger: Ledger, loop: Loop, *, ordered: bool) -> None:
        self._ledger, self._loop, self._ordered = ledger, loop, ordered
        self._quiet: dict[View, tuple[int, float]] = {}
        """Files whose records say that they are being written -> (change time, since when)."""
        self._unstamped: dict[View, float] = {}
        """Files whose records should get a stamp -> since when."""
        self._hanging_writes: set[View] = set()
        """Files that a write may still change which was given up."""
        self._looked_at: set[View] = set()
        """Files that a task looks at now. If its volume hangs, the others are not delayed."""
        self._unnoted: set[View] = set()
        """Files that change although that could not be recorded."""

    # -- a file comes to the mount ----------------------------------------------------------

    async def begin(self, view: View) -> None:
        """Let a file that comes to the mount show its old times or later ones, and record them."""
        view.times = FileTimes(await self._loop.blocking(partial(self._first, view)))
        view.keeper = self
        stamp = await self._make_durable(view)  # after a kill the content may not be durable
        async with view.times_lock:
            if stamp is None:
                await self._keep(view, view.times.written(time.time_ns()), Stamp())
            else:
                await self._keep_exact(view, stamp)

    async def _make_durable(self, view: View) -> Stamp | None:
        """Make the content durable, and return the stamp of the raw file. None: this has failed.

        Without it an older content could show the same times after a power loss. It is not needed
        with durability=process: after another boot the times in a header are not believed then. The
        stamp is unknown if the raw file must not have one.
        """
        is_told = view.has_stamp and not view.is_filled
        try:
            if self._ordered or not view.concerned():
                await view.sync()
                return await view.durable_stamp() if is_told else Stamp()
            return await self._loop.blocking(view.quiet_stamp) if is_told else Stamp()
        except OSError:
            return None

    async def _keep_exact(self, view: View, durable: Stamp) -> None:
        """Record exact times for a quiet file. `durable`: its stamp when it was synced."""
        stamp = Stamp()
        if durable != Stamp() and not view.is_filled:
            with suppress(OSError):
                now = await self._loop.blocking(view.quiet_stamp)
                stamp = now if now == durable else stamp
        await self._keep(view, view.times.exact(), stamp)
        if stamp == Stamp():
            self.record_stamp_later(view)

    def record_stamp_later(self, view: View) -> None:
        """Let the record get a stamp as soon as the file is quiet."""
        if view.has_stamp:
            self._unstamped[view] = trio.current_time()

    def _first(self, view: View) -> Times:
        """The first times of a file that comes to the mount. Runs in a thread.

        A file without a record was never on the mount, so there are no times to go on from.
        """
        now = time.time_ns()
        records = [view.times_in(member.header) for member in view.concerned()]
        if not view.concerned():
            record, then, file = self._ledger.times(view.path)
            is_same = same_file(file, view.file()) and not then.differs(view.stamp())
            records = [record if is_same else doubted(record, now)]
            if not is_same:
                log.warning("%s: was written or replaced while the service was down", view.path)
        known = [record for record in records if record != Times()]
        if known:
            return resumed(known, now)
        raw = view.stamp() if view.role is Role.MASTER else Stamp()
        return Times(raw.mtime_ns or now, now)

    # -- before it changes ------------------------------------------------------------------

    async def note(self, view: View, time_ns: int = 0) -> None:
        """Record that the file may change from now on, and that it may show `time_ns`."""
        async with view.times_lock:
            if time_ns >= view.times.ceiling_ns:
                await self._write(view, max(time.time_ns(), time_ns))

    async def _write(self, view: View, now_ns: int) -> None:
        record = view.times.written(now_ns, self._ahead_ns)
        await self._keep(view, record, Stamp())
        view.times.ceiling_ns = record.ceiling_ns
        self._quiet[view] = view.times.ctime_ns, trio.current_time()

    @property
    def _ahead_ns(self) -> int:
        return max(AHEAD_NS, len(self._quiet) * AHEAD_PER_FILE_NS)

    async def _keep(self, view: View, record: Times, stamp: Stamp) -> None:
        """Make the record durable in all its places, and in those that are added meanwhile.

        `stamp`: nothing writes to the raw file as long as the record has it; unknown: none.
        """
        fields = view.as_fields(record, stamp)
        kept: list[VolumeSet] | None = None
        while kept != _keepers(view):
            kept = _keepers(view)
            async with trio.open_nursery() as nursery:
                for member in kept:
                    if any(getattr(member.header, name) != fields[name] for name in fields):
                        nursery.start_soon(partial(member.note, **fields))
            if not view.concerned():
                await self._keep_in_ledger(view, record, stamp)

    async def _keep_in_ledger(self, view: View, record: Times, stamp: Stamp) -> None:
        def keep() -> None:
            file = FileId() if record.ceiling_ns else view.file()
            self._ledger.keep_times(view.path, record, stamp, file)

        try:
            await self._loop.blocking(keep)
        except (errors.StorageError, OSError) as error:
            if view not in self._unnoted:
                log.error("%s: its times cannot be recorded: %s", view.path, error)  # noqa: TRY400
            self._unnoted.add(view)
        else:
            self._unnoted.discard(view)

    async def keep(self, view: View) -> None:
        """Record again what the file shows, because the record has another place now."""
        async with view.times_lock:
            if view.times.ceiling_ns or view.concerned() or self._ordered:
                await self._keep(view, view.times.record(), Stamp())
            else:  # the content may not be durable, and the state database does not know the boot
                await self._write(view, time.time_ns())
        self.record_stamp_later(view)

    async def hand_over(self, view: View) -> None:
        """Let the state database keep the record, because the master's last set is disabled."""
        async with view.times_lock:
            await self._keep_in_ledger(view, view.times.written(time.time_ns()), Stamp())

    @asynccontextmanager
    async def counted_as_written(self, view: View) -> AsyncIterator[None]:
        """While this is held, the record says that the file is written. A copy to it may begin.

        That is in every set's header. A header that still had a stamp would take the copy for a
        write behind the service's back.
        """
        async with view.times_lock:
            if not view.times.ceiling_ns:
                await self._write(view, time.time_ns())
            yield

    # -- it has changed behind the kernel's back --------------------------------------------

    def moved(self, view: View, record: Times, time_ns: int = 0) -> None:
        """Show a later time, as the content is another one. `record` is durable already.

        `time_ns`: the file must show a time at or after this one, as another host has shown earlier
        ones.
        """
        view.times.ceiling_ns = record.ceiling_ns
        view.changed(max(time.time_ns(), time_ns))
        self._quiet[view] = view.times.ctime_ns, trio.current_time()

    async def change(self, view: View, time_ns: int = 0) -> None:
        """Record that the content is another one, and show a later time."""
        async with view.times_lock:
            record = view.times.written(max(time.time_ns(), time_ns))
            await self._keep(view, record, Stamp())
            self.moved(view, record, time_ns)

    # -- when it is quiet again -------------------------------------------------------------

    async def watch(self) -> None:
        """Look at all files now and then, as long as the service runs."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(EVERY_S)
                for view in (self._quiet.keys() | self._unstamped.keys()) - self._looked_at:
                    self._looked_at.add(view)
                    nursery.start_soon(self._look_at, view)

    async def _look_at(self, view: View) -> None:
        try:
            await self._look(view)
        except Exception:
            log.exception("%s: its times could not be recorded", view.path)
        finally:
            self._looked_at.discard(view)

    async def _look(self, view: View) -> None:
        if view.may_change:
            self._hanging_writes.add(view)
        elif view in self._hanging_writes:  # the write has ended, and may have changed something
            self._hanging_writes.discard(view)
            view.times.change(time.time_ns())
        if view.gone:
            self.forget(view)
        elif view not in self._quiet:
            await self._look_for_stamp(view)
        else:
            await self._look_at_written(view, *self._quiet[view])

    async def _look_for_stamp(self, view: View) -> None:
        """Record a stamp, if the file has been quiet for long enough."""
        if view.is_filled or view.is_changing or view.may_change or not view.has_stamp:
            self.record_stamp_later(view)
        elif trio.current_time() - self._unstamped[view] >= QUIET_S:
            await self.record_exact(view)

    async def _look_at_written(self, view: View, changed_ns: int, since: float) -> None:
        if view in self._unnoted:
            async with view.times_lock:
                await self._write(view, time.time_ns())
        elif view.times.ctime_ns != changed_ns or view.is_changing or view.may_change:
            self._quiet[view] = view.times.ctime_ns, trio.current_time()
            await self._renew(view)
        elif trio.current_time() - since >= QUIET_S:
            await self.record_exact(view)

    async def _renew(self, view: View) -> None:
        """Raise the ceiling in good time, so that no write has to wait for that."""
        async with view.times_lock:
            now = max(time.time_ns(), view.times.ctime_ns)
            if now + self._ahead_ns // 2 >= view.times.ceiling_ns:
                await self._write(view, now)

    def forget(self, view: View) -> None:
        """Stop looking at a file."""
        self._quiet.pop(view, None)
        self._unstamped.pop(view, None)
        self._unnoted.discard(view)
        self._hanging_writes.discard(view)

    async def record_exact(self, view: View) -> None:
        """Record the exact times of a file, unless it changes meanwhile."""
        shown_ns = view.times.ctime_ns
        stamp = await self._make_durable(view)
        if stamp is None:
            return
        async with view.times_lock:
            if view.is_changing or view.may_change or view.times.ctime_ns != shown_ns or view.gone:
                return
            self.forget(view)
            view.times.ceiling_ns = 0  # from now on a write has to wait until it is recorded
            await self._keep_exact(view, stamp)


def _keepers(view: View) -> list[VolumeSet]:
    """The sets whose headers record the times of a file."""
    return [member for member in view.concerned() if member.keeps_times]
