"""A scenario in which a call of the store fails: what may then fail, and what must go on.

A verb that fails ends the scenario. A write or a read may fail only because of its own volume, or
because its shadow is offline; the master's go on whatever happens to a shadow.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import bitmap_format as fmt
import trio
from alternatives import fits, misfits, rows
from crash_disk import SYSTEM, Disk, Write
from crash_history import Pit, Put
from crash_judge import SECONDS
from crash_rig import HOSTS, Recording, Rig, Scenario
from crash_unsynced import NEVER
from fault_host import STAYS, FaultHost, Stopped
from fault_inject import Injector, Mode
from lost import Lost

from iifuse import errors
from iifuse.core.state import Kind, Role, Verb
from iifuse.data.volumeset import VolumeSet


def _lacks(member: VolumeSet) -> bool:
    return any(map(member.lacks, member.missing))


@dataclass
class FaultRig(Rig):
    """`injector` says which call failed; `lost`: shadow -> position from which it was offline."""

    injector: Injector = field(default_factory=Injector)  # type: ignore[arg-type]
    lost: dict[str, int] = field(default_factory=dict)
    resets: list[tuple[str, int, int]] = field(default_factory=list)
    """(shadow, position before, position after) of every -R."""
    replied: int = 0
    """The position of the first reply after the failure."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hosts = {name: FaultHost(self.disk, name) for name in HOSTS}
        for host in self.hosts.values():
            host.injector = self.injector

    def begin(self) -> None:
        super().begin()
        self.injector.armed = True

    # -- what may fail ----------------------------------------------------------------------

    def _concerns(self, name: str) -> list[VolumeSet]:
        """The sets that a view has to do with."""
        every = [s for host in self.hosts.values() for s in host.instance.sets.values()]
        return [s for s in every if s.name == name or self.sets.get(s.name) == name]

    def _may_fail(self, name: str, calls: int, error: OSError) -> bool:
        """`calls`: how many there had been when the request began."""
        if any(s.unnoted for s in self._concerns(name)):
            return True
        hit = self.injector.hit
        own = hit is not None and hit.path == name
        if own and ("earlier sync" in str(error) or self._is_new(calls)):
            return True
        if name in self.sets:  # a shadow's file: it is offline, or a volume that it reads failed
            here = hit is not None and hit.path in (name, f"{name}.b", self.sets[name])
            offline = any(s.state.offline or s.missing for s in self._concerns(name))
            if any(s.restoring for s in self._concerns(name)) and here:
                return True  # what it has to bring to the master first cannot be brought
            return offline or (here and self._is_new(calls))
        return any(self._master_needs(s) for s in self._concerns(name) if s.restoring)

    def _master_needs(self, member: VolumeSet) -> bool:
        """In a restore the master's truth is on the shadow, and the bitmap says where."""
        hit = self.injector.hit
        failed = hit is not None and hit.path in (member.name, f"{member.name}.b")
        return bool(member.state.offline) or failed

    def _is_new(self, calls: int) -> bool:
        """Has a call failed since?"""
        return self.injector.last > calls

    @contextmanager
    def _request(self, name: str) -> Iterator[None]:
        """A read, write or sync of a view; afterwards it is seen who is offline."""
        calls = len(self.injector.calls)
        try:
            yield
        except OSError as error:
            if not self._may_fail(name, calls, error):
                raise Lost(f"{name[-3:]} fails because of {self.injector.hit}: {error}") from error
            raise
        finally:
            self._see()

    def _see(self) -> None:
        if self.injector.hit is not None and not self.replied:
            self.replied = self.now
        for member in self.main.instance.sets.values():
            if member.state.offline & STAYS and not member.unnoted:
                self.lost.setdefault(member.name, self.now)
            else:
                self.lost.pop(member.name, None)

    @contextmanager
    def verb(self) -> Iterator[None]:
        """A verb fails only after a call has failed, or because of what is offline by then."""
        try:
            yield
        except (errors.IifuseError, OSError) as error:
            if self.injector.hit is None and not self.fails:
                raise
            if isinstance(error, errors.InternalError):
                raise Lost(f"a defect comes to light: {error}") from error
            self._see()
            raise Stopped from error
        self._see()

    # -- programs ---------------------------------------------------------------------------

    async def write(self, name: str, offset: int, length: int, host: str = "main") -> None:
        view = self.hosts[host].instance.views.get(name)
        if view is None:
            raise Stopped
        try:
            with self._request(name):
                await super().write(name, offset, length, host)
        except OSError:
            self._resolve(self.history.lines[name].puts, offset, host, name)

    def _resolve(self, puts: list[Put], offset: int, host: str, name: str) -> None:
        """A write that failed was done in part, by sectors: see which."""
        put = next(p for p in reversed(puts) if p.offset == offset and p.ended is None)
        puts.remove(put)
        try:
            found = self._read(name, host)
        except OSError:
            return  # it is offline
        before = self.history.exact(name, self.now, self._world())
        assert before is not None
        after = bytearray(before)
        after[offset : offset + len(put.data)] = put.data
        if not fits(found, [rows(before), rows(bytes(after))]):
            raise Lost(f"a failed write has left something else on {name[-3:]}")
        seen = found[offset : offset + len(put.data)]
        if seen != before[offset : offset + len(put.data)]:
            puts.append(Put(put.began, offset, seen, self.now))
        self.history.forget()  # it knows this position without the write

    def _world(self) -> tuple[int, ...]:
        return tuple(range(len(self.history.pits)))

    def _read(self, name: str, host: str = "main") -> bytes:
        """What a file shows; a failure that comes once is over then."""
        calls = len(self.injector.calls)
        try:
            return self.hosts[host].look(name)
        except OSError as error:
            if not self._may_fail(name, calls, error):
                raise Lost(f"{name[-3:]} cannot be read: {error}") from error
        return self.hosts[host].look(name)

    async def sync(self, name: str, host: str = "main") -> None:
        if name not in self.hosts[host].instance.views:
            raise Stopped
        began, calls = self.now, len(self.injector.calls)
        try:
            with self._request(name):
                await self.hosts[host].instance.views[name].sync()
        except OSError:
            return
        if self._is_lie(name, began, calls):
            raise Lost(f"a sync of {name[-3:]} succeeds after one that failed")
        self._line(name).syncs.append((began, self.now))

    def _is_lie(self, name: str, began: int, calls: int) -> bool:
        """After a failed sync of a volume no later one may succeed (F11)."""
        hit = self.injector.hit
        return (
            hit is not None and hit.what == "sync" and hit.path == name
            and self.injector.fault.number <= calls
        )  # fmt: skip

    early: list[Pit] | None = None
    """The points in time as they may be before the reply of a verb that fails in the end."""
    early_until: int = 0
    """The position of its reply."""

    async def writer(self, name: str, lane: int, count: int, host: str = "main") -> None:
        if name not in self.hosts[host].instance.views:
            raise Stopped
        await super().writer(name, lane, count, host)

    async def together(self, *calls: Callable[[], Awaitable[object]]) -> None:
        """All of them to their end, as nothing cancels a program or a verb."""
        stopped: list[Stopped] = []

        async def one(call: Callable[[], Awaitable[object]]) -> None:
            try:
                await call()
            except Stopped as stop:
                stopped.append(stop)

        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(one, call)
        if stopped:
            raise stopped[0]

    # -- verbs ------------------------------------------------------------------------------

    async def enable(self, kind: Kind, master: str, shadow: str, group: str | None = None) -> None:
        began = self.now
        try:
            await super().enable(kind, master, shadow, group)
        except Stopped:
            if shadow in self.main.instance.sets or shadow in self.main.instance.views:
                raise Lost(f"-e of {shadow[-3:]} failed and left a set") from None
            self._note_failed_enable(began, shadow)
            raise

    def _note_failed_enable(self, began: int, shadow: str) -> None:
        """Until its reply the set may come back: its header stood in the bitmap volume."""
        bitmap = f"{shadow}.b"
        header = next((n for n in range(began, self.now) if self._is_header(n, bitmap)), None)
        if header is None:
            del self.sets[shadow]
            return
        views = {shadow: self.sets[shadow]}
        self._line(self.sets[shadow])
        self.early = [*self.history.pits, Pit(header, NEVER, views, (shadow,))]
        self.early_until = self.now

    async def flip(self, verb: Verb, *shadows: str) -> None:
        began = self.now
        before = {s: self.main.set(s).header.pit.number for s in shadows}
        try:
            await super().flip(verb, *shadows)
        except Stopped:
            online = [s for s in shadows if not self.main.set(s).state.offline]
            moved = [s for s in online if self.main.set(s).header.pit.number > before[s]]
            if moved and len(moved) < len(online):
                raise Lost("of a group one set has the new PIT and another not") from None
            self._note_failed_pit(began, moved, self.moves(verb, shadows))
            raise

    def _note_failed_pit(self, began: int, moved: list[str], views: dict[str, str]) -> None:
        """A verb that made a point in time and failed then, or that failed and made none."""
        sets = tuple(s for s in self.sets if s in {*views, *views.values()})
        if moved:
            only = {v: s for v, s in views.items() if v in moved or s in moved}
            self._note_pit(began, moved, only)
            self.early = [
                *self.history.pits[:-1],
                replace(self.history.pits[-1], views=views, sets=sets),
            ]
        else:
            record = next((n for n in range(began, self.now) if self._is_record(n, sets)), None)
            if record is not None:
                self.early = [*self.history.pits, Pit(record, NEVER, views, sets)]
        self.early_until = self.now

    async def reset(self, shadow: str) -> None:
        began, number = self.now, self.main.set(shadow).header.pit.number
        try:
            await super().reset(shadow)
        except Stopped:
            moved = [shadow] if self.main.set(shadow).header.pit.number > number else []
            self._note_failed_pit(began, moved, {shadow: self.sets[shadow]})
            raise
        finally:
            self.resets.append((shadow, began, self.now))
        self.lost.pop(shadow, None)

    def was_lost(self, shadow: str, position: int) -> bool:
        """Was a set offline at a position, with no -R under way?"""
        busy = any(s == shadow and b <= position <= e for s, b, e in self.resets)
        return not busy and self.lost.get(shadow, NEVER) <= position

    def _is_record(self, position: int, shadows: Iterable[str]) -> bool:
        """Also a header that was written in pieces, or only in part."""
        event = self.disk.log[position]
        place = self.disk.path_of(event.file) if isinstance(event, Write) else ""
        if place not in {f"{s}.b" for s in shadows}:
            return super()._is_record(position, shadows)
        before, after = (self._header(event.file, n) for n in (position, position + 1))
        if after is None or (before is not None and after.sequence == before.sequence):
            return False
        return after.pending != 0 or after.pit > (before.pit if before else self._pit_before(event))

    def _header(self, file: int, position: int) -> fmt.Found | None:
        """The newest header of a bitmap volume, as its writes before a position have left it."""
        assert self.base is not None
        blob = bytearray(self.base.files.get(file, b"")[:24576].ljust(24576, b"\0"))
        for event in self.disk.log[:position]:
            if isinstance(event, Write) and event.file == file and event.offset < 24576:
                blob[event.offset : event.offset + len(event.data)] = event.data
        return fmt.newest(bytes(blob))

    async def disable(self, shadow: str, host: str = "main") -> None:
        if shadow not in self.hosts[host].instance.sets:
            raise Stopped
        await super().disable(shadow, host)

    # -- looking ----------------------------------------------------------------------------

    def check(self) -> None:
        """Every file shows what was promised, or EIO where its set is offline or waits."""
        if self.main.dead:
            return
        world = self._world()
        for name, host in self._views():
            promised = self.history.exact(name, self.now, world)
            offline = any(s.state.offline & Role.SHADOW for s in self._concerns(name))
            try:
                found = self._read(name, host)
            except OSError:
                if not (offline or self._waits(name) or self._dead(name)):
                    raise
                continue
            if name in self.sets and offline:
                raise Lost(f"{name[-3:]} is offline and shows something")
            if found != promised and name not in self.history.retired:
                assert promised is not None
                wrong = misfits(found, [rows(promised)])
                raise Lost(f"the running service shows another {name[-3:]}: {wrong}")

    def _views(self) -> list[tuple[str, str]]:
        return [(n, h) for h, host in self.hosts.items() for n in host.instance.views]

    def _waits(self, name: str) -> bool:
        """Was a volume that it needs not opened, and is it waited for?"""
        hit = self.injector.hit
        return hit is not None and hit.what == "open" and any(map(_lacks, self._concerns(name)))

    def _dead(self, name: str) -> bool:
        """Is a volume that the view reads gone?"""
        hit = self.injector.hit
        if hit is None or self.injector.fault.mode is not Mode.GONE:
            return False
        return hit.path in (name, self.sets.get(name), *(s.name for s in self._concerns(name)))


@dataclass
class Play:
    """A scenario that was played to its end or to the verb that failed."""

    recording: Recording
    rig: FaultRig
    stopped: bool


async def play(
    name: str, scenario: Scenario, seed: int, injector: Injector, nursery: trio.Nursery
) -> Play:
    """Everything is down in the recording; the engine still runs."""
    SYSTEM.disk = Disk()
    rig = FaultRig(seed, SYSTEM.disk, nursery, injector=injector)
    for host in rig.hosts.values():
        await host.up(nursery)
    stopped = False
    with trio.fail_after(SECONDS):
        try:
            await scenario(rig)
        except Stopped:
            stopped = True
    assert rig.base is not None, "the scenario never began"
    rig._see()
    made = (list(rig.disk.log), rig.history, dict(rig.sets), True, rig.first_pits)
    return Play(Recording(name, seed, rig.base, *made, rig.main.ordered), rig, stopped)
