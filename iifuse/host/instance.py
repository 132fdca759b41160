"""All sets, families and views of one service, and where to find them."""

import logging
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final, Protocol
from uuid import UUID

import trio

from iifuse import errors
from iifuse.core.geometry import Geometry
from iifuse.core.header import Header
from iifuse.core.naming import suggestion
from iifuse.data.copier import Copier
from iifuse.data.family import Family
from iifuse.data.view import MasterView, ShadowView, View
from iifuse.data.volumeset import VolumeSet
from iifuse.host.history import History
from iifuse.host.notes import Notes
from iifuse.host.timekeeper import Timekeeper
from iifuse.host.verblocks import VerbLocks
from iifuse.loop.lookout import Lookout
from iifuse.loop.loop import Loop
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.headerlog import HeaderLog
from iifuse.store.holders import Holder, named, ways_out
from iifuse.store.identity import Identity
from iifuse.store.presence import hear, probe
from iifuse.store.programs import Programs
from iifuse.store.statedb import StateDB
from iifuse.store.transitions import TransitionFile
from iifuse.store.transport import DeclaredPlaces
from iifuse.store.volume import Volume, open_volume

log = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 2.0
"""How long a command waits for open handles to go: the kernel releases them asynchronously."""


OPEN_TARGET: Final = "what an open file shows may not change, so close it first"


class Hooks(Protocol):
    """What an instance needs of the layers above it."""

    in_place: bool
    """Are files also mounted over the regular files that they stand for?"""

    @property
    def programs(self) -> Programs:
        """Runs programs of the host that look at volumes."""

    async def appear(self, view: View) -> None:
        """A file comes to the mount."""

    async def vanish(self, view: View) -> None:
        """A file leaves the mount."""

    def holders(self, view: View) -> list[Holder]:
        """Programs and loop devices that have the file open. Blocks."""

    async def times_moved(self, views: list[View]) -> None:
        """Content has changed behind the kernel's back: it forgets the times that it knows."""

    def sync_mounted(self, views: list[View]) -> None:
        """Sync files through the mount: dirty pages of mmap and page cache arrive. Blocks."""


class Instance:
    """The registries; what people order stands in `iifuse/verbs`.

    `sets` is keyed by shadow path, `views` by volume path, `copiers`, those that have not ended,
    by set UUID. `verb_locks`: which verbs run side by side.
    """

    def __init__(
        self,
        *,
        loop: Loop,
        directory: str,
        db: StateDB,
        transitions: TransitionFile,
        hooks: Hooks,
        nursery: trio.Nursery,
        boot_id: UUID,
        ordered: bool = True,
        declared: DeclaredPlaces | None = None,
    ) -> None:
        self.loop: Final = loop
        self.directory, self.db, self.transitions = directory, db, transitions
        self.hooks, self.nursery = hooks, nursery
        self.boot_id, self.ordered, self._declared = boot_id, ordered, declared or DeclaredPlaces()
        self.session = 1 + secrets.randbelow((1 << 32) - 1)
        """In every header and in the state database, so that an older copy of a bitmap is known."""
        self.verb_locks = VerbLocks()
        self.families: list[Family] = []
        self.sets: dict[str, VolumeSet] = {}
        self.views: dict[str, View] = {}
        self.copiers: dict[UUID, Copier] = {}
        self.timekeeper = Timekeeper(db, loop, ordered=ordered)
        self.notes, self.history = Notes(db, loop), History(db, loop)
        self.lookout = Lookout(loop)
        self.volumes_wait = False
        """Was a volume of svadm absent when it was last looked for?"""

    def open_volume(self, path: str, *, exclusive: bool = True) -> Volume:
        """Open and lock a volume, and know whether it is remote. Blocks; see store.volume."""
        volume = open_volume(path, exclusive=exclusive)
        volume.remote = self._declared.why_remote(path, volume.remote)
        return volume

    async def check_answering(self, *paths: str) -> None:
        """Raise NoAnswer for the first path that does not answer when it is opened and read."""
        for path in paths:
            await self.lookout.ask(path, partial(hear, path))

    async def look_at_closed(self) -> None:
        """Learn which volumes of sets that are not open do not answer, so that nobody waits there.

        Of those that are missing the watcher knows it; an exported shadow, or an offline volume, is
        looked at by nobody else.
        """
        closed = [s.header.bitmap for s in self.sets.values() if s.bitmap is None]
        closed += [s.name for s in self.sets.values() if s.shadow is None]
        closed += [f.path for f in self.families if f.master is None and f.path is not None]
        await self.lookout.look({path: partial(probe, path) for path in closed})

    def header_log(self, header: Header, bitmap: BitmapFile | None) -> HeaderLog:
        """That of a set; what its bitmap volume does not take is noted in the state database."""
        return HeaderLog(header, bitmap, partial(self.db.doubt, header.shadow))

    # -- finding ----------------------------------------------------------------------------

    def register(self, family: Family, member: VolumeSet) -> None:
        """The set is there from now on: its family tracks it."""
        member.tell = self.history.tell
        family.sets.append(member)
        self.sets[member.name] = member
        self._expect_stamp(family)

    def _expect_stamp(self, family: Family) -> None:
        """Let a new set's header get the stamp of its master."""
        view = self.master_view(family)
        if view is not None:
            self.timekeeper.record_stamp_later(view)

    def move(self, member: VolumeSet, family: Family) -> None:
        """Its master is the one of another family from now on; no write may run on either."""
        old = self.family(member)
        if old is family:
            return
        old.sets.remove(member)
        family.sets.append(member)
        if member.name in self.views:
            self.views[member.name].family = family
        self._expect_stamp(family)
        if not old.sets and old.master is None:
            self.families.remove(old)

    def standing_at(self, path: str | None) -> Family | None:
        """The family whose master is open under a path."""
        found = (f for f in self.families if f.path == path and f.master is not None)
        return next(found, None)

    def master_view(self, family: Family) -> View | None:
        """The file of a family's master, if both are there."""
        return self.views.get(family.master.path) if family.master is not None else None

    def has_master(self, volume: Volume) -> bool:
        """Is it the open master of a family?"""
        return any(family.master is volume for family in self.families)

    def members(self, group: str) -> list[VolumeSet]:
        """The sets of a group. Raises NotFound when there is none."""
        found = [s for s in list(self.sets.values()) if s.group == group]
        if not found:
            hint = suggestion(group, {s.group for s in list(self.sets.values()) if s.group})
            raise errors.NotFound(
                group, "no such group", f"{hint} 'iiadm -g -L' lists all".strip()
            )
        return found

    def family(self, member: VolumeSet) -> Family:
        """The family of a set. Raises NotFound for one that was disabled meanwhile."""
        for family in self.families:
            if member in family.sets:
                return family
        raise errors.NotFound(member.name, "no such set any more")

    def master_family(self, path: str, identity: Identity) -> Family | None:
        """The family whose master a path leads to, under whatever name."""
        for family in list(self.families):  # in a thread, and beside other verbs
            master = family.master
            if master is None:
                continue
            if master.path == path or master.identity.is_same(identity):
                return family
        return None

    def claim_of(self, member: VolumeSet) -> str:
        """What a verb on a set claims. Sets that wait for one master have the same."""
        return self.family(member).path or member.name

    def running(self, member: VolumeSet) -> Copier | None:
        """The copier of a set, if it runs."""
        copier = self.copiers.get(member.key)
        return copier if copier is not None and not copier.at_rest else None

    # -- files ------------------------------------------------------------------------------

    async def show(self, view: View) -> None:
        """Put a file on the mount."""
        await self.timekeeper.begin(view)
        self.views[view.path] = view
        view.gone = False
        await self.hooks.appear(view)

    async def hide(self, view: View) -> None:
        """Take a file off the mount."""
        view.gone = True
        del self.views[view.path]
        self.timekeeper.forget(view)
        await self.hooks.vanish(view)

    async def changed(self, view: View, time_ns: int = 0) -> None:
        """The content of a file is another one, or may be. `time_ns`: see Timekeeper.moved."""
        await self.timekeeper.change(view, time_ns)
        await self.hooks.times_moved([view])

    async def show_master(self, family: Family) -> None:
        """Put the master's file on the mount."""
        assert family.master is not None
        await self.show(MasterView(family.master.path, family))

    async def show_shadow(self, member: VolumeSet) -> None:
        """Put the shadow's file on the mount."""
        assert member.shadow is not None
        await self.show(ShadowView(member, self.family(member)))

    @asynccontextmanager
    async def closed(self, views: Iterable[View | None], why: str) -> AsyncIterator[None]:
        """While this is held, none of the files is open or can be opened.

        A verb on several sets holds all of them while it goes from one to the next.

        Waits for open handles to go; raises Busy, which names who holds them. Who comes to a
        closed door waits inside a handler of the file system, of which there is a bounded number:
        nothing that needs the mount to answer may be awaited under this.
        """
        doors = [view for view in views if view is not None and not _is_ours(view.door)]
        clock = self.loop.limits
        deadline = clock.now() + CLOSE_SECONDS
        while True:
            for view in doors:
                if not await view.wait_closed(max(0.0, deadline - clock.now())):
                    raise await self._busy(view, why)
            async with AsyncExitStack() as stack:
                for view in doors:
                    await stack.enter_async_context(view.door)
                if any(view.opens for view in doors):
                    continue  # somebody was quicker
                yield
                return

    async def _busy(self, view: View, why: str) -> errors.Busy:
        found = await self.loop.blocking(partial(self.hooks.holders, view))
        by = named(found) or f"{view.opens} open handles (a mapping, or another host)"
        ways = ways_out(found)
        return errors.Busy(view.path, f"is open: {by}", f"{why}: {ways}" if ways else why)

    # -- families ---------------------------------------------------------------------------

    def adopt(self, volume: Volume) -> Family:
        """A family for a master; its file is not on the mount yet."""
        geometry = Geometry(volume.size_bytes)
        family = Family(self.loop, volume.path, volume, geometry, ordered=self.ordered)
        self.families.append(family)
        return family

    async def add_master(self, volume: Volume) -> Family:
        """A family for a master that was not under control, and its file."""
        family = self.adopt(volume)
        try:
            await self.show_master(family)
        except BaseException:
            self.families.remove(family)
            raise
        return family

    async def remove_master(self, family: Family) -> None:
        """Close a master that no set needs and take its file off the mount."""
        assert family.master is not None
        await self.hide(self.views[family.master.path])
        self.families.remove(family)
        await self.loop.blocking(family.master.close)

    # -- copies -----------------------------------------------------------------------------

    def start_copy(self, member: VolumeSet) -> None:
        """Start the background copy that the header says is running, if nobody has."""
        if self.running(member) is not None:
            return
        copier = Copier(
            self.family(member), member, self._copy_finished, self.notes.copy_is_done,
            self._copy_failed,
        )  # fmt: skip
        self.copiers[member.key] = copier
        self.nursery.start_soon(self._run_copy, copier, name=f"copy {member.name}")

    async def _run_copy(self, copier: Copier) -> None:
        """Run a copier. Then forget it: it would keep the bits of a disabled set in memory."""
        key = copier.member.key
        await copier.run()
        if self.copiers.get(key) is copier:
            del self.copiers[key]

    async def stop_copy(self, member: VolumeSet) -> None:
        """Let a running copy come to rest; its bits and header stay."""
        copier = self.running(member)
        if copier is not None:
            await copier.stop()

    async def abort(self, member: VolumeSet) -> None:
        """End a running copy; it stands aborted."""
        copier = self.running(member)
        await self.stop_copy(member)
        if member.header.copying:
            await member.end_copy()
            await self.note(member, "copy aborted", **(copier.figures if copier else {}))

    async def _copy_finished(self, member: VolumeSet) -> None:
        await self.note(member, "copied", **self.copiers[member.key].figures)

    async def _copy_failed(self, member: VolumeSet, why: str) -> None:
        await self.note(member, "copy failed", why=why, **self.copiers[member.key].figures)

    async def note(self, member: VolumeSet, what: str, **more: Any) -> None:
        """Let the history (`more`: see Event) and the state database know; it fails nothing."""
        why = f": {more['why']}" if more.get("why") else ""
        log.info("%s: %s (point in time %d)%s", member.name, what, member.header.pit.number, why)
        self.history.tell(member.header, what, **more)
        await self.history.note()
        await self.notes.remember(member)


def _is_ours(door: trio.Lock) -> bool:
    return door.statistics().owner is trio.lowlevel.current_task()
