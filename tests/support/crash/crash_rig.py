"""What a scenario is written with: verbs and writers whose promises are taken down as they run."""

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import bitmap_format as fmt
import trio
from crash_disk import CHUNK, SYSTEM, Disk, Event, Image, Sync, Write, installed
from crash_history import History, Line, Pit, Put
from crash_host import Host
from crash_schedule import run
from lost import Lost
from shown import moves
from stamps import SECTOR, stamped

from iifuse.core.sector import bitmap_bytes
from iifuse.core.state import Kind, Verb
from iifuse.verbs import enable, exchange, joining, reset
from iifuse.verbs.exchange import Borrowing
from iifuse.verbs.opening import NewSet

PLACE = "/srv/" + "a-long-name-" * 12
"""Long paths make a header of several sectors, which can be torn."""

HOSTS = ("main", "other")


def path(name: str) -> str:
    return PLACE + name


@dataclass
class Recording:
    """One run: where it began, everything that reached the disk, and what was promised."""

    name: str
    seed: int
    base: Image
    log: list[Event]
    history: History
    sets: dict[str, str]
    """Shadow path -> master path."""
    may_be_offline: bool
    first_pits: dict[str, int]
    """Shadow path -> PIT number at the beginning."""
    ordered: bool


@dataclass
class Rig:
    """A machine (and `other`, which shares its disk) on which a scenario plays."""

    seed: int
    disk: Disk
    nursery: trio.Nursery
    hosts: dict[str, Host] = field(default_factory=dict)
    history: History = field(default_factory=History)
    sets: dict[str, str] = field(default_factory=dict)
    base: Image | None = None
    first_pits: dict[str, int] = field(default_factory=dict)
    fails: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self._stamps = 0x10
        self.hosts = {name: Host(self.disk, name) for name in HOSTS}

    @property
    def main(self) -> Host:
        return self.hosts["main"]

    @property
    def now(self) -> int:
        return len(self.disk.log)

    # -- before the scenario ----------------------------------------------------------------

    def volume(self, name: str, chunks: int, tail: int = 0, *, hole: int | None = None) -> str:
        """Make a volume that is full of stamps; chunk `hole` is one."""
        self._stamps += 1
        size = chunks * CHUNK + tail
        data = bytearray(stamped(self._stamps, 0, size))
        if hole is not None:
            data[hole * CHUNK : (hole + 1) * CHUNK] = bytes(CHUNK)
        self.disk.create(path(name), bytes(data))
        return path(name)

    async def relax(self) -> None:
        """Go on with durability=process."""
        await self.main.down()
        self.main.ordered = False
        await self.main.up(self.nursery)

    def begin(self) -> None:
        """The scenario starts here: what was done so far is durable, and is the past."""
        self.base = self.disk.image()
        self.disk.log.clear()
        self.history = History()
        rows = self.disk.dbs.get("main", ((),))[0]
        self.first_pits = {row.shadow: self._pit(row.bitmap) for row in rows}
        for host in self.hosts.values():
            for name in host.instance.views:
                self.history.lines[name] = Line(host.look(name))
        for shadow, master in self.sets.items():
            for name in (shadow, master):
                if name in self.disk.names:
                    self._line(name)

    def _pit(self, bitmap: str) -> int:
        found = fmt.read(self.disk.content(bitmap))
        return found.pit if found else 0

    def _line(self, name: str) -> Line:
        if name not in self.history.lines:
            self.history.lines[name] = Line(self.disk.content(name))
        return self.history.lines[name]

    # -- programs ---------------------------------------------------------------------------

    async def write(self, name: str, offset: int, length: int, host: str = "main") -> None:
        self._stamps += 1
        data = stamped(self._stamps, offset, length)
        put = Put(self.now, offset, data)
        self._line(name).puts.append(put)
        await self.hosts[host].instance.views[name].write(offset, data)
        put.ended = self.now

    async def touch(self, name: str, *chunks: int, host: str = "main") -> None:
        """Write some sectors in the middle of chunks."""
        for chunk in chunks:
            await self.write(name, chunk * CHUNK + 5 * SECTOR, 3 * SECTOR, host)

    async def sync(self, name: str, host: str = "main") -> None:
        began = self.now
        await self.hosts[host].instance.views[name].sync()
        self._line(name).syncs.append((began, self.now))

    async def writer(self, name: str, lane: int, count: int, host: str = "main") -> None:
        """Random writes; sectors n with n % 4 == lane are this writer's own."""
        chance = random.Random(self.seed * 100 + lane)
        size = self.hosts[host].instance.views[name].size_bytes
        for _ in range(count):
            sector = chance.randrange(size // SECTOR // 4) * 4 + lane
            if (sector + 1) * SECTOR > size:
                continue
            await self.write(name, sector * SECTOR, SECTOR, host)
            if chance.random() < 0.25:
                await self.sync(name, host)
            for _ in range(chance.randrange(4)):
                await trio.lowlevel.checkpoint()

    async def together(self, *calls: Callable[[], Awaitable[object]]) -> None:
        async with trio.open_nursery() as nursery:
            for call in calls:
                nursery.start_soon(call)

    # -- verbs ------------------------------------------------------------------------------

    @contextmanager
    def verb(self) -> Iterator[None]:
        """A verb is under way. Here none fails."""
        yield

    async def enable(self, kind: Kind, master: str, shadow: str, group: str | None = None) -> None:
        began = self.now
        request = NewSet(kind, master, shadow, f"{shadow}.b", group)
        self.sets[shadow] = master
        if shadow in self.disk.names:
            self._line(shadow)  # as it is now: the copy may be quicker than its first writer
        with self.verb():
            await enable.enable(self.main.instance, request)
        header = next(n for n in range(began, self.now) if self._is_header(n, f"{shadow}.b"))
        durable = self._synced(header)
        self.history.pits.append(Pit(header, durable, {shadow: master}, (shadow,)))

    def _is_header(self, position: int, bitmap: str) -> bool:
        """Also one whose beginning was written by an earlier call, which was short."""
        event = self.disk.log[position]
        if not isinstance(event, Write) or self.disk.path_of(event.file) != bitmap:
            return False
        begun = (
            e for e in reversed(self.disk.log[:position])
            if isinstance(e, Write) and e.file == event.file
            and e.offset + len(e.data) == event.offset
        )  # fmt: skip
        head = next(begun, None)
        whole = event.data if head is None else head.data + event.data
        return event.offset < 24576 and bool(fmt.slot(event.data) or fmt.slot(whole))

    def _synced(self, record: int) -> int:
        """Where the sync stands that made a write durable."""
        number = self.disk.log[record].file
        return next(
            n for n in range(record, self.now)
            if isinstance(e := self.disk.log[n], Sync) and e.file == number and e.began > record
        )  # fmt: skip

    async def whole(self, kind: Kind, master: str, shadow: str, group: str | None = None) -> None:
        """Enable and wait for the first copy."""
        await self.enable(kind, master, shadow, group)
        await self.main.wait(shadow)

    async def flip(self, verb: Verb, *shadows: str) -> None:
        began = self.now
        resumed = verb.to_master and self.main.set(shadows[0]).state.is_aborted_restore
        with self.verb():
            await self.main.flip(verb, *shadows)
        if not resumed:
            self._note_pit(began, shadows, self.moves(verb, shadows))

    def moves(self, verb: Verb, shadows: Sequence[str]) -> dict[str, str]:
        return moves(verb.to_master, [(s, self.sets[s]) for s in shadows])

    async def reset(self, shadow: str) -> None:
        began = self.now
        with self.verb():
            await reset.reset(self.main.instance, self.main.set(shadow))
        self._note_pit(began, [shadow], {shadow: self.sets[shadow]})

    def _note_pit(self, began: int, shadows, views: dict[str, str]) -> None:
        """The first record since a position, and the sync that made it durable."""
        record = next((n for n in range(began, self.now) if self._is_record(n, shadows)), None)
        if record is None:
            return
        self.history.pits.append(Pit(record, self._synced(record), views, tuple(shadows)))

    def _is_record(self, position: int, shadows) -> bool:
        event = self.disk.log[position]
        if not isinstance(event, Write):
            return False
        place = self.disk.path_of(event.file)
        if place == f"{self.main.directory}/transitions":
            return True
        if place not in {f"{s}.b" for s in shadows} or event.offset >= 24576:
            return False
        found = fmt.slot(event.data)
        return found is not None and (found.pending != 0 or found.pit > self._pit_before(event))

    def _pit_before(self, event: Write) -> int:
        """The PIT number that the last header before a write showed."""
        assert self.base is not None
        found = fmt.read(self.base.files[event.file])
        number = found.pit if found else 0
        for earlier in self.disk.log:
            if earlier is event:
                return number
            if isinstance(earlier, Write) and earlier.file == event.file and earlier.offset < 24576:
                found = fmt.slot(earlier.data)
                number = found.pit if found else number
        return number

    async def disable(self, shadow: str, host: str = "main") -> None:
        self.history.retired[shadow] = self.now
        with self.verb():
            await enable.disable(self.hosts[host].instance, self.hosts[host].set(shadow))

    async def export(self, shadow: str) -> None:
        with self.verb():
            await exchange.export(self.main.instance, self.main.set(shadow))

    async def take_in(self, shadow: str) -> None:
        with self.verb():
            await exchange.take_in(self.hosts["other"].instance, Borrowing(shadow, f"{shadow}.b2"))

    async def give_back(self, shadow: str) -> None:
        other = self.hosts["other"]
        with self.verb():
            await enable.disable(other.instance, other.set(shadow))

    async def join(self, shadow: str) -> None:
        here = self.main
        with self.verb():
            await joining.join(
                here.instance, here.set(shadow), f"{shadow}.b2", accept_unclosed=False
            )

    def check(self) -> None:
        """Live, with nothing under way: every file shows exactly what was promised."""
        world = tuple(range(len(self.history.pits)))
        for host in self.hosts.values():
            for name in host.instance.views:
                promised = self.history.exact(name, self.now, world)
                if host.look(name) != promised:
                    raise Lost(f"the running service shows another {name[-3:]}")

    def bitmap(self, shadow: str, chunks: int) -> None:
        """Make the bitmap volume beforehand."""
        self.disk.create(f"{shadow}.b", bytes(bitmap_bytes(chunks)))


Scenario = Callable[[Rig], Awaitable[None]]


def record(name: str, scenario: Scenario, seed: int) -> Recording:
    """Play a scenario once."""
    with installed():
        return run(partial(_record, name, scenario, seed), seed, interleave=True)


async def _record(name: str, scenario: Scenario, seed: int) -> Recording:
    SYSTEM.disk = Disk()
    async with trio.open_nursery() as nursery:
        rig = Rig(seed, SYSTEM.disk, nursery)
        for host in rig.hosts.values():
            await host.up(nursery)
        await scenario(rig)
        nursery.cancel_scope.cancel()
    assert rig.base is not None, "the scenario never began"
    made = (rig.disk.log, rig.history, rig.sets, rig.fails, rig.first_pits, rig.main.ordered)
    return Recording(name, seed, rig.base, *made)
