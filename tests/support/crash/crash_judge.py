"""Start the real recovery on an image and see whether every promise was kept."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import bitmap_format as fmt
import trio
from alternatives import fits, misfits, rows
from crash_disk import CHUNK, SYSTEM, Disk, Event, Image
from crash_history import History, Put, World, over
from crash_host import BOOT, Host
from crash_rig import HOSTS, Recording
from crash_schedule import run
from lost import Lost
from shown import IDLE, INDEPENDENT, Bits, Chunks, chunks, of_master, of_shadow, unrecorded
from stamps import SECTOR, stamped

from iifuse import errors
from iifuse.core.state import Custody, Progress, Verb
from iifuse.data.volumeset import VolumeSet
from iifuse.verbs import attach, enable, joining, reset

SECONDS = 60.0
"""No recovery and no copy of a few chunks takes so long, even here."""


@dataclass
class Case:
    """What is to be judged: an image, and which promises hold at the stop it comes from."""

    recording: Recording
    position: int
    image: Image
    after: dict[str, list[Put]] = field(default_factory=dict)
    """What was written after a kill and a restart, before the power failed as well."""
    synced: dict[str, bytes] = field(default_factory=dict)
    """What each file showed after a kill and a restart, if it was synced then."""
    synced_at: int = 0
    """So many events after the restart that was durable."""
    killed: bool = False
    """Only the service died: the page cache is as it was."""
    lost: bool = False
    """The state directory is gone as well: the sets are attached from their bitmaps."""

    @property
    def history(self) -> History:
        return self.recording.history


def judge(case: Case, *, go_on: bool, write: bool = False) -> list[Event]:
    """Recover, check, and (`go_on`) work on; what the recovery wrote. Raises Lost.

    `write`: let programs sync and write after the recovery; `case.synced` and `.after` say what.
    """
    SYSTEM.disk = Disk(case.image)
    return run(partial(_judge, case, go_on, write), case.position)


async def _judge(case: Case, go_on: bool, write: bool) -> list[Event]:
    hosts = hosts_of(case)
    for host in hosts if case.lost else ():
        _lose_state(host)
    async with started(hosts):
        for host in hosts if case.lost else ():
            await _attach_all(host)
        Check(case, hosts).all()
        if write:
            if case.recording.ordered:
                case.synced = await _sync_all(hosts)
            case.synced_at = len(SYSTEM.disk.log)
            case.after = {n: await _write_all(h, n) for h in hosts for n in h.instance.views}
        log = list(SYSTEM.disk.log)
        if go_on:
            await Future(case, hosts).all()
    return log


def hosts_of(case: Case, make: Callable[[Disk, str], Host] = Host) -> list[Host]:
    """The machines that find the image."""
    hosts = [make(SYSTEM.disk, name) for name in HOSTS]
    for host in hosts:
        host.ordered = case.recording.ordered
        host.boot = BOOT if case.killed else uuid4()
    return hosts


@asynccontextmanager
async def started(hosts: list[Host]) -> AsyncIterator[None]:
    """Their services run, for as long as somebody looks at them."""
    with trio.fail_after(SECONDS):
        async with trio.open_nursery() as nursery:
            for host in hosts:
                await _start(host, nursery)
            yield
            nursery.cancel_scope.cancel()


def _lose_state(host: Host) -> None:
    host.disk.dbs.pop(host.name, None)
    for name in [n for n in host.disk.names if n.startswith(host.directory)]:
        host.disk.rename(name, None)


async def _attach_all(host: Host) -> None:
    """One after the other; a bitmap of a set in use must not be refused."""
    ending = ".b" if host.name == HOSTS[0] else ".b2"
    for path in [n for n in host.disk.names if n.endswith(ending)]:
        found = fmt.read(host.disk.content(path))
        try:
            await attach.attach(host.instance, (path,), None)
        except errors.IifuseError as error:
            if found is not None and found.closure == 0:
                raise Lost(f"{path} cannot be attached: {error}") from error


async def _start(host: Host, nursery: trio.Nursery) -> None:
    try:
        await host.up(nursery)
    except Exception as error:
        raise Lost(f"the service does not start: {type(error).__name__}: {error}") from error


async def _sync_all(hosts: list[Host]) -> dict[str, bytes]:
    """A program syncs what others wrote to a service that was killed since; what it sees then."""
    seen = {}
    for host in hosts:
        for name, view in host.instance.views.items():
            with suppress(OSError):
                await view.sync()
                seen[name] = host.look(name)
    return seen


async def _write_all(host: Host, name: str) -> list[Put]:
    """A few sectors of each whole chunk."""
    view, puts = host.instance.views[name], []
    for chunk in range(view.size_bytes // CHUNK):
        at = chunk * CHUNK + (chunk + 3) * SECTOR
        puts.append(Put(len(SYSTEM.disk.log), at, stamped(0xA00 + chunk, at, 2 * SECTOR)))
        try:
            await view.write(at, puts[-1].data)
        except OSError:
            if not host.instance.sets[name].state.offline:
                raise
    return puts


class Check:
    """The state right after the recovery."""

    def __init__(self, case: Case, hosts: list[Host]) -> None:
        self.case, self.disk = case, SYSTEM.disk
        self.main, self.other = hosts
        self.views = {name: host for host in hosts for name in host.instance.views}

    def all(self) -> None:
        bitmaps = {s: self._bitmap(f"{s}.b") for s in self.case.recording.sets}
        shown = self._shown(bitmaps)
        self._compare_views(shown)
        self._fit_one_world(shown)
        for shadow in self.main.instance.sets:
            self._check_recorded(shadow, bitmaps[shadow])
        for host in (self.main, self.other):
            for row in host.instance.db.sets():
                self._expect_back(host, row.shadow)
            for member in host.instance.sets.values():
                self._expect_whole(member)

    def _bitmap(self, path: str) -> fmt.Found | None:
        return fmt.read(self.disk.content(path)) if path in self.disk.names else None

    def _expect_back(self, host: Host, shadow: str) -> None:
        member = host.instance.sets.get(shadow)
        if member is None:
            raise Lost(f"{shadow[-3:]} did not come back")
        lent = member.header.custody is Custody.EXPORTED or self._offline(shadow)
        if shadow not in host.instance.views and not lent:
            raise Lost(f"{shadow[-3:]} came back without its file")

    def _retired(self, shadow: str) -> bool:
        return self.case.history.retired.get(shadow, 1 << 60) < self.case.position

    def _offline(self, shadow: str) -> bool:
        """Or waited for."""
        member = self.main.instance.sets.get(shadow)
        return member is not None and bool(member.state.offline or member.missing)

    def _shown(self, bitmaps: dict[str, fmt.Found | None]) -> dict[str, bytes]:
        """View -> content, from the raw volumes and the bitmaps alone."""
        views: dict[str, Chunks] = {}
        families: dict[str, list[tuple[Bits, Chunks]]] = {}
        for shadow, master in self.case.recording.sets.items():
            family, found = families.setdefault(master, []), bitmaps[shadow]
            raw = self.disk.content(shadow) if shadow in self.disk.names else None
            if shadow in self.main.instance.sets and found is not None and raw is not None:
                below = chunks(self.disk.content(master))
                family.append((found.bits, chunks(raw)))
                views[shadow] = of_shadow(below, chunks(raw), found.bits)
            elif raw is not None:
                views[shadow] = [raw]
        for master, family in families.items():
            views[master] = of_master(chunks(self.disk.content(master)), family)
        return {name: b"".join(view) for name, view in views.items()}

    def _compare_views(self, shown: dict[str, bytes]) -> None:
        for name, host in self.views.items():
            if not self._offline(name) and self._look(host, name, shown[name]) != shown[name]:
                raise Lost(f"the bits on disk say that {name} shows something else")

    def _look(self, host: Host, name: str, shown: bytes) -> bytes:
        """With lost bits in a restore nobody may read the master until -R."""
        try:
            return host.look(name)
        except OSError:
            if self.case.lost and any(s.restoring for s in host.instance.sets.values()):
                return shown
            raise

    def _fit_one_world(self, shown: dict[str, bytes]) -> None:
        """All views together: of a group all members have the old PIT, or all the new one."""
        wrong: list[tuple[World, list[str], list[str]]] = []
        if self.case.lost:
            self._fit_some_world(shown)
            return
        for world in self.case.history.worlds(self.case.position):
            bad = [name for name in shown if self._misfit(name, shown[name], world)]
            late = [s for s in self.main.instance.sets if self._other_pit(s, world)]
            if not bad and not late:
                return
            wrong.append((world, bad, late))
        raise Lost("; ".join(text for each in wrong for text in self._texts(shown, *each)))

    def _texts(
        self, shown: dict[str, bytes], world: World, bad: list[str], late: list[str]
    ) -> list[str]:
        """Only for who is to read it: to compare sector by sector takes long."""
        texts = [f"PITs {world}: {name[-3:]} has another PIT number" for name in late]
        return texts + [self._explain(name, shown[name], world) for name in bad]

    def _fit_some_world(self, shown: dict[str, bytes]) -> None:
        """Each set by itself: who knew that they belong together is lost."""
        worlds = self.case.history.worlds(self.case.position)
        worlds += [world[:-1] for world in worlds if world]
        torn = {s.header.master for s in self.main.instance.sets.values() if s.restoring}
        for name in self.views.keys() - torn:
            members = [s for s in self.main.instance.sets if s == name]
            if not any(
                not self._misfit(name, shown[name], world)
                and not any(self._other_pit(s, world) for s in members)
                for world in worlds
            ):
                raise Lost("; ".join(self._explain(name, shown[name], w) for w in worlds))

    def _misfit(self, name: str, content: bytes, world: World) -> bool:
        if self._offline(name) or (self._retired(name) and name not in self.views):
            return False
        layers = self._legal(name, world)
        if layers is None:  # not enabled yet
            return name in self.views
        return not fits(content, layers)

    def _legal(self, name: str, world: World):
        layers = self.case.history.legal(name, self.case.position, world)
        if layers is None:
            return None
        if name in self.case.synced:
            layers = [rows(self.case.synced[name])]
        return [*layers, *(over(layers[-1], put) for put in self.case.after.get(name, []))]

    def _other_pit(self, shadow: str, world: World) -> bool:
        if self._offline(shadow):
            return False
        number = self.main.instance.sets[shadow].header.pit.number
        base = self.case.recording.first_pits.get(shadow, 0)
        return number != self.case.history.pit_number(shadow, world, base)

    def _explain(self, name: str, content: bytes, world: World) -> str:
        layers = self._legal(name, world)
        text = misfits(content, layers) if layers else "must not be there"
        return f"PITs {world}: {name[-3:]}: {text}"

    def _expect_whole(self, member: VolumeSet) -> None:
        recording = self.case.recording
        allowed = recording.may_be_offline or not (recording.ordered or self.case.killed)
        if member.state.offline and not (allowed or self.case.lost):
            raise Lost(f"{member.name[-3:]} went offline: {member.header.offline_reason}")

    def _check_recorded(self, shadow: str, found: fmt.Found | None) -> None:
        member = self.main.instance.sets[shadow]
        if found is None or member.state.offline or member.missing:
            return
        if found.progress == IDLE and found.copy:
            raise Lost(f"{shadow[-3:]} is idle with copy bits set")
        if found.kind != INDEPENDENT:
            return
        master = self.case.recording.sets[shadow]
        second = self._bitmap(f"{shadow}.b2") if found.custody == fmt.EXPORTED else None
        raw = (chunks(self.disk.content(name)) for name in (master, shadow))
        bits = found.shadow | found.copy | (second.shadow if second else 0)
        if wrong := unrecorded(*raw, bits):
            raise Lost(f"chunks {wrong} of {shadow[-3:]} differ with all bits clear")


class Future:
    """The recovered service goes on: copies end, a restore is finished, an update is made."""

    def __init__(self, case: Case, hosts: list[Host]) -> None:
        self.case, self.disk = case, SYSTEM.disk
        self.main, self.other = hosts

    async def all(self) -> None:
        before = {n: self.main.look(n) for n in self.main.instance.views if self._readable(n)}
        await self._wait_all()
        for name, content in before.items():
            if self._online(name) and self.main.look(name) != content:
                raise Lost(f"the copies changed what {name[-3:]} shows")
        await self._finish_all()
        for number, name in enumerate(sorted(self.main.instance.views)):
            await self._write(name, number)
        shadows = list(self.main.instance.sets)
        if shadows:
            await self.main.flip(Verb.UPDATE_SHADOW, *shadows)
            await self._wait_all()
        for shadow in shadows:
            self._expect_equal(shadow)

    def _readable(self, name: str) -> bool:
        torn = {s.header.master for s in self.main.instance.sets.values() if s.restoring}
        return self._online(name) and not (self.case.lost and name in torn)

    def _online(self, name: str) -> bool:
        member = self.main.instance.sets.get(name)
        return member is None or not (member.state.offline or member.missing)

    async def _wait_all(self) -> None:
        for shadow in self.main.instance.sets:
            await self.main.wait(shadow)

    async def _finish_all(self) -> None:
        for shadow, member in list(self.main.instance.sets.items()):
            if member.is_beyond_repair:
                await enable.disable(self.main.instance, member)
                continue
            if member.state.offline or member.missing:
                self._remove_stubs(shadow)
                if shadow in self.other.instance.sets:
                    await enable.disable(self.other.instance, self.other.set(shadow))
                await reset.reset(self.main.instance, member)
                await self.main.wait(shadow)
            if member.header.custody is Custody.EXPORTED:
                await self._bring_home(shadow)
            if member.header.progress is Progress.TO_MASTER:
                await self.main.flip(Verb.UPDATE_MASTER, shadow)
                await self.main.wait(shadow)

    def _remove_stubs(self, shadow: str) -> None:
        """Files that were being made; -R says of them that they are too small."""
        for name in (shadow, f"{shadow}.b"):
            if name in self.disk.names and len(self.disk.content(name)) < 24576:
                self.disk.rename(name, None)

    async def _bring_home(self, shadow: str) -> None:
        """Join what the other host noted; without it all chunks count as different."""
        member = self.main.set(shadow)
        if shadow in self.other.instance.sets:
            await enable.disable(self.other.instance, self.other.set(shadow))
        found = f"{shadow}.b2" in self.disk.names and fmt.read(self.disk.content(f"{shadow}.b2"))
        of_this = found and found.export == member.header.export_number
        if found and of_this and found.closure == 1:
            await joining.join(self.main.instance, member, f"{shadow}.b2", accept_unclosed=False)
        else:
            await reset.reset(self.main.instance, member)

    async def _write(self, name: str, number: int) -> None:
        view = self.main.instance.views[name]
        at = number % -(-view.size_bytes // CHUNK) * CHUNK
        await view.write(at, stamped(0xF000 + number, at, SECTOR))

    def _expect_equal(self, shadow: str) -> None:
        master = self.main.look(self.case.recording.sets[shadow])
        member = self.main.set(shadow)
        if self.main.look(shadow) != master:
            raise Lost(f"{shadow[-3:]} and its master differ after an update")
        if member.state.offline or member.header.progress is not Progress.IDLE:
            raise Lost(f"the update of {shadow[-3:]} did not end: {member.header.offline_reason}")
        if member.state.kind == INDEPENDENT and self.disk.content(shadow) != master:
            raise Lost(f"the raw {shadow[-3:]} differs after an update")
