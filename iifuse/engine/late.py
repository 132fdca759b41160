"""Volumes that are late come back by themselves; those that somebody replaced are noticed.

A volume that could not be opened is tried again, and when it is what it was the set goes on as if
the service had been started only now. The path of every open volume is compared with what is open:
what is written after somebody has moved another file there goes to one without a name.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Final

import trio

from iifuse import errors
from iifuse.core.header import Closure, FileId, Header
from iifuse.core.missing import Missing, same_file
from iifuse.core.state import Custody, Role
from iifuse.engine import limits, recovery
from iifuse.engine.astray import is_covered, look_at_open, open_at
from iifuse.engine.enable import after_last_set
from iifuse.engine.engine import Engine
from iifuse.engine.family import Family
from iifuse.engine.loading import Found, load_bitmap, look_at_volumes, with_times
from iifuse.engine.pit import in_order
from iifuse.engine.shown import rise_above
from iifuse.engine.threads import blocking
from iifuse.engine.unjoined import learn_at_start
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import Away, file_of, misfit, open_meant, probe
from iifuse.store.setrow import SetRow
from iifuse.store.volume import Volume

EVERY_S: Final = 2.0
OPEN_EVERY: Final = 4
"""Open volumes are looked at every so many times: fifty sets cost a hundredth of a core so."""
GATE_S: Final = 10.0
"""How long running writes are waited for before a volume is taken back."""


async def watch(engine: Engine) -> None:
    """Look now and then, for as long as the service lives."""
    for turn in count(1):
        await trio.sleep(EVERY_S)
        async with engine.admin:
            with trio.CancelScope(shield=True):
                await look(engine, also_open=turn % OPEN_EVERY == 0)


async def look(engine: Engine, *, also_open: bool = True) -> None:
    """Look once; nobody else may change sets meanwhile. Raises nothing.

    What fails of one set is that set's (`_returning`, Lookout), and the others have their look.
    """
    if also_open:
        with engine.lookout.apart("volumes", "the look at those that are open"):
            await look_at_open(engine)
    with engine.lookout.apart("volumes", "the look at those that are missing"):
        await _look_for_missing(engine)


# -- volumes that are not -------------------------------------------------------------------


async def _look_for_missing(engine: Engine) -> None:
    """Bitmaps first: they say which files are meant."""
    lacking = [s for s in engine.sets.values() if any(not m.served for m in s.missing.values())]
    absent = await _absent(engine)
    if not (lacking or absent):
        return
    there = await _probe(engine, lacking, absent)
    for member in lacking:
        if member.lacks(Role.BITMAP) and _meant(engine, member, Role.BITMAP) in there:
            with _returning(engine, member.name, "its bitmap", [member]):
                await _bring_bitmap(engine, member)
    for family in list(engine.families):
        path = family.path
        if path is not None and family.master is None and (path, family.meant) in there:
            with _returning(engine, path, "the master", family.sets):
                await _bring_master(engine, family)
    for member in lacking:
        if member.lacks(Role.SHADOW) and _meant(engine, member, Role.SHADOW) in there:
            with _returning(engine, member.name, "the shadow", [member]):
                await _bring_shadow(engine, member)
    for path in absent:
        if (path, FileId()) in there and path not in engine.views:
            with _returning(engine, path, "the volume", []):
                await _bring_volume(engine, path)


async def _absent(engine: Engine) -> list[str]:
    """Volumes of svadm that are not on the mount; none where that cannot be told just now."""
    absent: list[str] = []
    with engine.lookout.apart("svadm", "the look for its volumes"):
        alone = partial(recovery.volumes_alone, engine)
        waiting = await blocking(alone) if engine.volumes_wait else []
        absent = [path for path in waiting if path not in engine.views]
        engine.volumes_wait = bool(absent)
    return absent


Meant = tuple[str, FileId]
"""A path and which file is meant by it: sets of one path may mean different ones."""


async def _probe(engine: Engine, lacking: list[VolumeSet], absent: list[str]) -> set[Meant]:
    """What may be there of what is missing, as far as that can be told unopened."""
    parts = [(s, role, _meant(engine, s, role)) for s in lacking for role in s.missing]
    wanted = {meant for _, _, meant in parts} | {(path, FileId()) for path in absent}
    found = await engine.lookout.look({path: _way_to_probe(engine, path) for path, _ in wanted})
    wrong = {(p, meant): misfit(p, meant, found[p]) for p, meant in wanted if p in found}
    for member, role, part in parts:
        missing = wrong.get(part)
        if missing is not None and member.lacks(role):
            covered = part[0] if is_covered(engine, part[0]) else ""
            member.miss(role, replace(missing, covered=covered))
    return {part for part, missing in wrong.items() if missing is None}


def _way_to_probe(engine: Engine, path: str) -> Callable[[], FileId | Missing]:
    """Where our own file is mounted over it, what is open stands there: the path leads to us."""
    volume = open_at(engine, path) if is_covered(engine, path) else None
    return partial(probe, path) if volume is None else partial(file_of, volume)


def _meant(engine: Engine, member: VolumeSet, role: Role) -> Meant:
    header = member.header
    if role is Role.MASTER:
        return header.master, engine.family(member).meant
    return (header.shadow, header.shadow_file) if role is Role.SHADOW else (header.bitmap, FileId())


@asynccontextmanager
async def _gate(*families: Family) -> AsyncIterator[bool]:
    """No write runs; False where the running ones do not end."""
    drained = False
    async with AsyncExitStack() as stack:
        with limits.move_on_after(GATE_S):
            for family in in_order(families):
                await stack.enter_async_context(family.locks.gate())
            drained = True
        yield drained


@contextmanager
def _returning(
    engine: Engine, name: str, what: str, members: Iterable[VolumeSet]
) -> Iterator[None]:
    """What is missing is said to be until the files are on the mount, where people look.

    What fails in it is the affair of these sets alone.
    """
    members = list(members)
    for member in members:
        member.returning = dict(member.missing)
    try:
        with engine.lookout.apart(name, f"to take {what} back"):
            yield
    finally:
        for member in members:
            member.returning = {}


async def _bring_bitmap(engine: Engine, member: VolumeSet) -> None:
    row = next(row for row in await blocking(engine.db.sets) if row.shadow == member.name)
    found = Found()
    try:
        bitmap, header, bits = await blocking(partial(load_bitmap, engine, row, found.trouble))
    except Away as away:
        member.miss(Role.BITMAP, away.missing)
        return
    except (errors.IifuseError, OSError) as error:
        await member.give_up(Role.BITMAP, errors.words(error))
        return
    if header.closure is not Closure.OPEN:
        await _bring_closed(engine, member, row, (bitmap, header))
        return
    family = engine.family(member)
    async with _gate(family) as drained:
        if not drained or not member.lacks(Role.BITMAP):
            bitmap.volume.close()
            return
        member.header = with_times(engine, header, found.trouble)
        member.bits, member.bitmap = bits, bitmap
        member.miss(Role.BITMAP, None)
        await _place(engine, member, family, found)
    await _go_on(engine, [member])
    await _rise_above_all(engine, member, header)
    await recovery.finish_transition(engine)
    await learn_at_start(engine)
    if row.closing:  # its disable had not begun to close it
        await blocking(partial(engine.db.closing, row.shadow, False))


async def _rise_above_all(engine: Engine, member: VolumeSet, header: Header) -> None:
    """The files that were on the mount without a header which knows their times."""
    for view in list(engine.views.values()):
        if member in view.concerned():
            await rise_above(engine, view, view.times_in(header))


async def _bring_closed(
    engine: Engine, member: VolumeSet, row: SetRow, found: tuple[BitmapFile, Header]
) -> None:
    """The bitmap that is back says that its set is none any more: as at a start (recovery).

    While somebody has the shadow open it goes on to wait.
    """
    bitmap, header = found
    view, family = engine.views.get(member.name), engine.family(member)
    if view is not None and view.opens:
        bitmap.volume.close()
        return
    async with engine.closed([view], "close it first"):
        if view is not None:
            await engine.hide(view)
    await _rise_above_all(engine, member, header)
    async with family.locks.gate():
        family.sets.remove(member)
        del engine.sets[member.name]
    member.header, member.bitmap = header, bitmap
    if member.shadow is not None and not same_file(header.shadow_file, file_of(member.shadow)):
        member.shadow.close()
        member.shadow = None
    await recovery.forget_closed(engine, row, member)
    await after_last_set(engine, family)


async def _place(engine: Engine, member: VolumeSet, family: Family, found: Found) -> None:
    """Now that the header is there: are master and shadow those that it speaks of?"""
    imported = member.header.custody is Custody.IMPORTED
    master = None if imported else _master_of(member, family)
    await blocking(partial(look_at_volumes, member, master, found))
    if found.has_no_master:
        engine.move(member, recovery.family_without_master(engine, member))
    await recovery.settle(member, found)
    await recovery.put_in_use(engine, [member])


def _master_of(member: VolumeSet, family: Family) -> Volume | Missing:
    """It is not waited for where the header has it offline."""
    absent = member.missing.get(Role.MASTER) or Missing(f"{family.path} is not there")
    return family.master or absent


async def _bring_shadow(engine: Engine, member: VolumeSet) -> None:
    family, found = engine.family(member), Found()
    imported = member.header.custody is Custody.IMPORTED
    master = None if imported else _master_of(member, family)
    await blocking(partial(look_at_volumes, member, master, found))
    if Role.SHADOW in found.missing:
        member.miss(Role.SHADOW, found.missing[Role.SHADOW])
        return
    async with _gate(family) as drained:
        if not drained or not member.lacks(Role.SHADOW):
            if found.shadow is not None:
                found.shadow.close()
            return
        member.miss(Role.SHADOW, None)
        await recovery.settle(member, found)
        await recovery.note_use(engine, [member])
    await _go_on(engine, [member])


async def _bring_master(engine: Engine, family: Family) -> None:
    """The master of sets that wait is there again, or the service has it open already."""
    home = _home(engine, family)
    if home is not None and home.master is not None:
        await _join(engine, family, home, home.master)
        return
    assert family.path is not None
    size_bytes = family.geometry.size_bytes
    try:
        master = await blocking(partial(open_meant, family.path, family.meant, size_bytes))
    except Away as away:
        _miss_master(family, away.missing)
        return
    except errors.IifuseError as error:
        _miss_master(family, Missing(errors.words(error)))
        return
    try:
        if await _is_in_the_way(engine, family):
            master.close()
        elif master.size_bytes != size_bytes:
            await _join(engine, family, await engine.add_master(master), master)
        else:
            await _join(engine, family, family, master)
    except BaseException:
        if not engine.has_master(master):
            master.close()  # or its lock keeps it from coming back
        raise


def _miss_master(family: Family, missing: Missing) -> None:
    for member in family.sets:
        member.miss(Role.MASTER, missing)


def _home(engine: Engine, waits: Family) -> Family | None:
    """Where the sets of a family belong whose master came back for others already."""
    for family in engine.families:
        master = family.master
        if family.path != waits.path or master is None or family.astray:
            continue
        if same_file(waits.meant, file_of(master)) and family.geometry == waits.geometry:
            return family
    return None


async def _is_in_the_way(engine: Engine, family: Family) -> bool:
    """Is the file that stood in the master's place still needed? It goes where it is not."""
    for other in engine.families:
        if other is family or other.path != family.path or other.master is None:
            continue
        if other.sets or engine.views[other.master.path].opens:
            why = f"{family.path} is back, and what stood in its place is still in use"
            _miss_master(family, Missing(why))
            return True
        await engine.remove_master(other)
        break
    return False


async def _join(engine: Engine, family: Family, home: Family, master: Volume) -> None:
    """The sets of a family whose master is there; those that it does not fit stay without."""
    looks = {member: Found() for member in family.sets}
    for member, found in looks.items():
        await blocking(partial(look_at_volumes, member, master, found))
    async with _unsettled(engine, family, home), _gate(family, home) as drained:
        if not drained:
            for member, found in looks.items():
                if found.shadow is not None and found.shadow is not member.shadow:
                    found.shadow.close()
            if home is family:
                master.close()
            return
        family.master = master if home is family else None
        for member, found in looks.items():
            if not found.has_no_master:
                engine.move(member, home)
                member.miss(Role.MASTER, None)
            await recovery.settle(member, found)
        await recovery.note_use(engine, looks)
    await _go_on(engine, looks)


@asynccontextmanager
async def _unsettled(engine: Engine, family: Family, home: Family) -> AsyncIterator[None]:
    """A restore that comes back will write to a master that others have in use."""
    view = engine.master_view(home)
    if view is None or family.restoring is None:
        yield
        return
    async with engine.timekeeper.unsettled(view):
        yield


async def _go_on(engine: Engine, members: Iterable[VolumeSet]) -> None:
    for member in members:
        await recovery.show(engine, engine.family(member))
        if engine.running(member) is None:
            recovery.start_copies(engine, [member])


async def _bring_volume(engine: Engine, path: str) -> None:
    found = await recovery.open_master(engine, path)
    if isinstance(found, Family):
        await recovery.show(engine, found)
