"""A service without FUSE, control socket and SQLite: the real engine on a crash disk."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import trio
from crash_disk import Disk
from crash_schedule import pause
from programs_here import Here

from iifuse.core.header import FileId, Header, Stamp
from iifuse.core.state import Custody, Progress, Verb
from iifuse.core.times import Times
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.loop.loop import Loop
from iifuse.store.holders import Holder
from iifuse.store.setrow import SetRow
from iifuse.store.transitions import TransitionFile
from iifuse.verbs import pit, recovery, stop

BOOT = UUID(int=7)
"""While a recording is made, and for a service that was only killed."""


_REMEMBERED = ("progress", "custody", "sequence", "master_file", "shadow_file")


class MemoryDB:
    """The state database as store.statedb promises it: each change whole and durable at once.

    Whether SQLite and file systems keep that promise is the other explorer's question (fs_log).
    """

    def __init__(self, disk: Disk, host: str) -> None:
        self._disk, self._host = disk, host

    def _content(self) -> tuple[tuple[SetRow, ...], tuple[str, ...]]:
        pause()  # and not between this and the change, which are one statement
        return self._disk.dbs.get(self._host, ((), ()))

    def _put(self, rows: tuple[SetRow, ...], volumes: tuple[str, ...]) -> None:
        if (rows, volumes) != self._disk.dbs.get(self._host):
            self._disk.commit(self._host, (rows, volumes))

    def _change(self, shadow: str, **changes: Any) -> None:
        rows, volumes = self._content()
        self._put(
            tuple(replace(r, **changes) if r.shadow == shadow else r for r in rows), volumes
        )

    def sets(self) -> list[SetRow]:
        return list(self._content()[0])

    def add_set(self, row: SetRow) -> None:
        rows, volumes = self._content()
        self._put((*rows, row), volumes)

    def announce(self, coming: Mapping[str, tuple[Progress, Custody] | None]) -> None:
        rows, volumes = self._content()
        self._put(tuple(_announced(row, coming.get(row.shadow)) for row in rows), volumes)

    def remember(self, header: Header) -> None:
        rows, volumes = self._content()
        known = {n: getattr(header, n) for n in _REMEMBERED}
        self._put(
            tuple(
                replace(r, **known, entering=False) if r.uuid == header.uuid else r for r in rows
            ),
            volumes,
        )

    def use_bitmap(self, shadow: str, file: FileId) -> None:
        self._change(shadow, bitmap_file=file)

    def doubt(self, shadow: str, reason: str | None) -> None:
        self._change(shadow, doubt=reason)

    def move_sets(self, shadows: list[str], group: str | None) -> None:
        rows, volumes = self._content()
        self._put(
            tuple(replace(r, group=group) if r.shadow in shadows else r for r in rows), volumes
        )

    def begin_session(self, session: int, previous: dict[str, int]) -> None:
        rows, volumes = self._content()
        changed = (
            replace(r, session=session, previous=previous[r.shadow])
            if r.shadow in previous else r
            for r in rows
        )  # fmt: skip
        self._put(tuple(changed), volumes)

    def end_session_change(self, shadows: list[str]) -> None:
        rows, volumes = self._content()
        self._put(tuple(replace(r, previous=None) for r in rows), volumes)

    def closing(self, shadow: str, yes: bool) -> None:
        self._change(shadow, closing=yes)

    def remove_set(self, shadow: str) -> None:
        rows, volumes = self._content()
        self._put(tuple(r for r in rows if r.shadow != shadow), volumes)

    def disown(self, transition: UUID) -> None:
        self._disk.commit(f"{self._host}'s disowned", transition)

    def disowned(self) -> UUID | None:
        return self._disk.dbs.get(f"{self._host}'s disowned")

    def volumes(self) -> list[str]:
        return list(self._content()[1])

    def add_volumes(self, paths: Iterable[str]) -> None:
        rows, volumes = self._content()
        self._put(rows, (*volumes, *(p for p in paths if p not in volumes)))

    def remove_volumes(self, paths: Iterable[str]) -> None:
        rows, volumes = self._content()
        self._put(rows, tuple(v for v in volumes if v not in paths))

    def times(self, path: str) -> tuple[Times, Stamp, FileId]:
        return Times(), Stamp(), FileId()

    def keep_times(self, path: str, times: Times, *looks: object) -> None:
        pass

    def forget_times(self, path: str) -> None:
        pass

    def record(self, *line: object) -> None:
        pass

    def give_up(self, shadow: str, pit: int) -> None:
        pass

    def given_up(self, shadow: str) -> int:
        return 0

    def history(self, shadow: str) -> list[tuple[str, int | None]]:
        return []  # as one that was pruned

    def imports(self, uuid: UUID, export_number: int) -> dict[UUID, str]:
        return {}  # the ticket has them too

    def add_imports(self, uuid: UUID, export_number: int, bitmaps: dict[UUID, str]) -> None:
        pass

    def rest_of(self, shadow: str) -> int:
        return 0

    def former(self, path: str) -> list[tuple[str, str]]:
        return []


def _announced(row: SetRow, what: tuple[Progress, Custody] | None) -> SetRow:
    return row if what is None else replace(row, progress=what[0], custody=what[1])


class Hooks:
    """No mount: nothing to show, nobody has a file open."""

    in_place = False
    programs = Here()

    async def appear(self, view: View) -> None:
        pass

    async def vanish(self, view: View) -> None:
        pass

    def holders(self, view: View) -> list[Holder]:
        return []

    async def times_moved(self, views: list[View]) -> None:
        pass

    def sync_mounted(self, views: list[View]) -> None:
        pass


class Host:
    """One machine: a name, its state directory and, while it is up, an engine."""

    def __init__(self, disk: Disk, name: str) -> None:
        self.disk, self.name = disk, name
        self.directory = f"/state/{name}"
        self.ordered, self.boot = True, BOOT
        self.instance: Instance

    def database(self) -> Any:
        return MemoryDB(self.disk, self.name)

    async def up(self, nursery: trio.Nursery) -> None:
        self.instance = Instance(
            loop=Loop(),
            directory=self.directory,
            db=self.database(),
            transitions=TransitionFile.open(self.directory),
            hooks=Hooks(),
            nursery=nursery,
            boot_id=self.boot,
            ordered=self.ordered,
        )
        await recovery.start(self.instance)

    async def down(self) -> None:
        await stop.stop(self.instance)
        self.instance.transitions.close()
        self.instance.views.clear()

    def set(self, path: str) -> VolumeSet:
        return self.instance.sets[path]

    def look(self, path: str) -> bytes:
        """What a file of the mount shows at this moment."""
        view = self.instance.views[path]
        parts = view.segments(0, view.size_bytes)
        return b"".join(volume.read(offset, length) for volume, offset, length in parts)

    async def wait(self, path: str) -> None:
        copier = self.instance.running(self.set(path))
        if copier is not None:
            await copier.wait()

    async def abort(self, path: str) -> None:
        """As the control server does it."""
        member = self.set(path)
        await self.instance.stop_copy(member)
        if member.header.copying:
            await member.commit(copying=False)
            await self.instance.note(member, "-a")

    async def flip(self, verb: Verb, *paths: str) -> None:
        await pit.make(self.instance, verb, [self.set(p) for p in paths])
