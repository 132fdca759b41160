"""Volumes that are late come back by themselves; those that somebody replaced are noticed.

A volume that could not be opened is tried again, and when it is what it was the set goes on as if
the service had been started only now. The path of every open volume is compared with what is open:
what is written after somebody has moved another file there goes to one without a name. The rules:
docs/decisions/replaced-volumes.md.
"""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from iifuse import errors
from iifuse.core.header import Closure, FileId, Header
from iifuse.core.missing import Missing, same_file
from iifuse.core.state import Custody, Role
from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.host.astray import is_covered, look_at_open, open_at
from iifuse.host.instance import Instance
from iifuse.host.shown import show_later_times
from iifuse.host.unjoined import learn_at_start
from iifuse.host.verblocks import NEW, RECORD
from iifuse.loop.lookout import BULK_S
from iifuse.store.headerlog import HeaderLog
from iifuse.store.presence import Away, file_of, misfit, open_meant, probe
from iifuse.store.setrow import SetRow
from iifuse.store.volume import Volume
from iifuse.verbs import loading, recovery
from iifuse.verbs.enable import after_last_set
from iifuse.verbs.pit import in_order

GATE_S: Final = 10.0
"""How long running writes are waited for before a volume is taken back."""


def waits(member: VolumeSet) -> bool:
    """Is a volume of it missing?"""
    return any(not missing.served for missing in member.missing.values())


async def look(instance: Instance, claim: AbstractSet[str] | None = None) -> None:
    """Look at what is open, and for what is missing of masters that nobody else works on.

    None: nobody works on anything.
    """
    await look_at_open_volumes(instance)
    await look_for_missing(instance, claim)


async def look_at_open_volumes(instance: Instance) -> None:
    """Raises nothing."""
    with instance.lookout.apart("volumes", "the look at those that are open"):
        await look_at_open(instance)


async def look_for_missing(instance: Instance, claim: AbstractSet[str] | None) -> None:
    """Look for missing volumes. This never raises: a failure concerns only its own set."""
    with instance.lookout.apart("volumes", "the look at those that are missing"):
        await _look_for_missing(instance, claim)


# -- volumes that are not -------------------------------------------------------------------


async def _look_for_missing(instance: Instance, claim: AbstractSet[str] | None) -> None:
    """Bitmaps first: they say which files are meant."""
    lacking = [
        member for member in list(instance.sets.values())
        if waits(member) and (claim is None or instance.claim_of(member) in claim)
    ]  # fmt: skip
    absent = await _absent(instance) if claim is None or NEW in claim else []
    if not (lacking or absent):
        return
    there = await _probe(instance, lacking, absent)
    with instance.verb_locks.at_once({RECORD} - (claim or set())) as may_forget:
        for member in lacking if may_forget else []:  # beside a group command it waits
            if member.lacks(Role.BITMAP) and _meant(instance, member, Role.BITMAP) in there:
                with _returning(instance, member.name, "its bitmap", [member]):
                    await _bring_bitmap(instance, member)
    for family in list(instance.families):
        path = family.path
        if path is not None and family.master is None and (path, family.meant) in there:
            with _returning(instance, path, "the master", family.sets):
                await _bring_master(instance, family)
    for member in lacking:
        if member.lacks(Role.SHADOW) and _meant(instance, member, Role.SHADOW) in there:
            with _returning(instance, member.name, "the shadow", [member]):
                await _bring_shadow(instance, member)
    for path in absent:
        if (path, FileId()) in there and path not in instance.views:
            with _returning(instance, path, "the volume", []):
                await _bring_volume(instance, path)


async def _absent(instance: Instance) -> list[str]:
    """Volumes of svadm that are not on the mount; none where that cannot be told just now."""
    absent: list[str] = []
    with instance.lookout.apart("svadm", "the look for its volumes"):
        alone = partial(recovery.volumes_alone, instance)
        waiting = await instance.loop.blocking(alone) if instance.volumes_wait else []
        absent = [path for path in waiting if path not in instance.views]
        instance.volumes_wait = bool(absent)
    return absent


Meant = tuple[str, FileId]
"""A path and which file is meant by it: sets of one path may mean different ones."""


async def _probe(instance: Instance, lacking: list[VolumeSet], absent: list[str]) -> set[Meant]:
    """What may be there of what is missing, as far as that can be told unopened."""
    parts = [(s, role, _meant(instance, s, role)) for s in lacking for role in s.missing]
    wanted = {meant for _, _, meant in parts} | {(path, FileId()) for path in absent}
    found = await instance.lookout.look({path: _way_to_probe(instance, path) for path, _ in wanted})
    wrong = {(p, meant): misfit(p, meant, found[p]) for p, meant in wanted if p in found}
    for member, role, part in parts:
        missing = wrong.get(part)
        if missing is not None and member.lacks(role):
            covered = part[0] if is_covered(instance, part[0]) else ""
            member.miss(role, replace(missing, covered=covered))
    return {part for part, missing in wrong.items() if missing is None}


def _way_to_probe(instance: Instance, path: str) -> Callable[[], FileId | Missing]:
    """Where our own file is mounted over it, what is open stands there: the path leads to us."""
    volume = open_at(instance, path) if is_covered(instance, path) else None
    return partial(probe, path) if volume is None else partial(file_of, volume)


def _meant(instance: Instance, member: VolumeSet, role: Role) -> Meant:
    header = member.header
    if role is Role.MASTER:
        return header.master, instance.family(member).meant
    return (header.shadow, header.shadow_file) if role is Role.SHADOW else (header.bitmap, FileId())


@asynccontextmanager
async def _gate(*families: Family) -> AsyncIterator[bool]:
    """No write runs; False where the running ones do not end."""
    drained = False
    async with AsyncExitStack() as stack:
        with families[0].loop.limits.move_on_after(GATE_S):
            for family in in_order(families):
                await stack.enter_async_context(family.locks.gate())
            drained = True
        yield drained


@contextmanager
def _returning(
    instance: Instance, name: str, what: str, members: Iterable[VolumeSet]
) -> Iterator[None]:
    """Let volumes count as missing for people until the files are on the mount.

    An error inside concerns only these sets.
    """
    members = list(members)
    for member in members:
        member.returning = dict(member.missing)
    try:
        with instance.lookout.apart(name, f"to take {what} back"):
            yield
    finally:
        for member in members:
            member.returning = {}


async def _bring_bitmap(instance: Instance, member: VolumeSet) -> None:
    rows = await instance.loop.blocking(instance.db.sets)
    row = next(row for row in rows if row.shadow == member.name)
    found = loading.Found()
    try:
        load = partial(loading.load_bitmap, instance, row, found.trouble)
        await instance.check_answering(row.bitmap)
        log, bits = await instance.lookout.ask(row.bitmap, load, loading.close_late, BULK_S)
    except Away as away:
        member.miss(Role.BITMAP, away.missing)
        return
    except errors.NoAnswer as error:
        member.miss(Role.BITMAP, loading.missing_by(error))
        return
    except (errors.IifuseError, OSError) as error:
        await member.wait_no_longer(Role.BITMAP, errors.words(error))
        return
    header = log.header
    if header.closure is not Closure.OPEN:
        await _bring_closed(instance, member, row, log)
        return
    family = instance.family(member)
    async with _gate(family) as drained:
        if not drained or not member.lacks(Role.BITMAP):
            await instance.loop.blocking(partial(loading.close, log))
            return
        member.log, member.bits = log, bits
        member.amend(loading.with_times(instance, header, found.trouble))
        member.miss(Role.BITMAP, None)
        await _place(instance, member, family, found)
    await _go_on(instance, [member])
    await _rise_above_all(instance, member, header)
    await recovery.finish_transition(instance)
    await learn_at_start(instance)
    if row.closing:  # its disable had not begun to close it
        await instance.loop.blocking(partial(instance.db.closing, row.shadow, False))


async def _rise_above_all(instance: Instance, member: VolumeSet, header: Header) -> None:
    """The files that were on the mount without a header which knows their times."""
    for view in list(instance.views.values()):
        if member in view.concerned():
            await show_later_times(instance, view, view.times_in(header))


async def _bring_closed(
    instance: Instance, member: VolumeSet, row: SetRow, log: HeaderLog
) -> None:
    """Take a set apart whose bitmap has come back closed, as a start does (recovery).

    While somebody has the shadow open, the set goes on waiting.
    """
    header = log.header
    view, family = instance.views.get(member.name), instance.family(member)
    if view is not None and view.opens:
        await instance.loop.blocking(partial(loading.close, log))
        return
    async with instance.closed([view], "close it first"):
        if view is not None:
            await instance.hide(view)
    await _rise_above_all(instance, member, header)
    async with family.locks.gate():
        family.sets.remove(member)
        del instance.sets[member.name]
    member.log = log
    member.adopt(header)
    if member.shadow is not None and not same_file(header.shadow_file, file_of(member.shadow)):
        shadow, member.shadow = member.shadow, None
        await instance.loop.blocking(shadow.close)
    await recovery.forget_closed(instance, row, member)
    await after_last_set(instance, family)


async def _place(
    instance: Instance, member: VolumeSet, family: Family, found: loading.Found
) -> None:
    """Now that the header is there: are master and shadow those that it speaks of?"""
    imported = member.header.custody is Custody.IMPORTED
    master = None if imported else _master_of(member, family)
    await loading.look_at_volumes(instance, member, master, found)
    if found.has_no_master:
        instance.move(member, recovery.family_without_master(instance, member))
    await recovery.settle(member, found)
    await recovery.put_in_use(instance, [member])


def _master_of(member: VolumeSet, family: Family) -> Volume | Missing:
    """It is not waited for where the header has it offline."""
    absent = member.missing.get(Role.MASTER) or Missing(f"{family.path} is not there")
    return family.master or absent


async def _bring_shadow(instance: Instance, member: VolumeSet) -> None:
    family, found = instance.family(member), loading.Found()
    imported = member.header.custody is Custody.IMPORTED
    master = None if imported else _master_of(member, family)
    await loading.look_at_volumes(instance, member, master, found)
    if Role.SHADOW in found.missing:
        member.miss(Role.SHADOW, found.missing[Role.SHADOW])
        return
    async with _gate(family) as drained:
        if not drained or not member.lacks(Role.SHADOW):
            if found.shadow is not None:
                await instance.loop.blocking(found.shadow.close)
            return
        member.miss(Role.SHADOW, None)
        await recovery.settle(member, found)
        await recovery.note_use(instance, [member])
    await _go_on(instance, [member])


async def _bring_master(instance: Instance, family: Family) -> None:
    """The master of sets that wait is there again, or the service has it open already."""
    home = _home(instance, family)
    if home is not None and home.master is not None:
        await _join(instance, family, home, home.master)
        return
    assert family.path is not None
    size_bytes = family.geometry.size_bytes
    try:
        opening = partial(open_meant, instance.open_volume, family.path, family.meant, size_bytes)
        master = await instance.lookout.ask(family.path, opening, Volume.close, BULK_S)
    except Away as away:
        _miss_master(family, away.missing)
        return
    except errors.NoAnswer as error:
        _miss_master(family, loading.missing_by(error))
        return
    except errors.IifuseError as error:
        _miss_master(family, Missing(errors.words(error)))
        return
    try:
        if await _is_in_the_way(instance, family):
            await instance.loop.blocking(master.close)
        elif master.size_bytes != size_bytes:
            await _join(instance, family, await instance.add_master(master), master)
        else:
            await _join(instance, family, family, master)
    except BaseException:
        if not instance.has_master(master):
            await instance.loop.blocking(master.close)  # or its lock keeps it from coming back
        raise


def _miss_master(family: Family, missing: Missing) -> None:
    for member in family.sets:
        member.miss(Role.MASTER, missing)


def _home(instance: Instance, waits: Family) -> Family | None:
    """Where the sets of a family belong whose master came back for others already."""
    for family in instance.families:
        master = family.master
        if family.path != waits.path or master is None or family.astray:
            continue
        if same_file(waits.meant, file_of(master)) and family.geometry == waits.geometry:
            return family
    return None


async def _is_in_the_way(instance: Instance, family: Family) -> bool:
    """Is the file that stood in the master's place still needed? It goes where it is not."""
    for other in instance.families:
        if other is family or other.path != family.path or other.master is None:
            continue
        if other.sets or instance.views[other.master.path].opens:
            why = f"{family.path} is back, and what stood in its place is still in use"
            _miss_master(family, Missing(why))
            return True
        await instance.remove_master(other)
        break
    return False


async def _join(instance: Instance, family: Family, home: Family, master: Volume) -> None:
    """The sets of a family whose master is there; those that it does not fit stay without."""
    looks = {member: loading.Found() for member in family.sets}
    for member, found in looks.items():
        await loading.look_at_volumes(instance, member, master, found)
    async with _unsettled(instance, family, home), _gate(family, home) as drained:
        if not drained:
            for member, found in looks.items():
                if found.shadow is not None and found.shadow is not member.shadow:
                    await instance.loop.blocking(found.shadow.close)
            if home is family:
                await instance.loop.blocking(master.close)
            return
        family.master = master if home is family else None
        if home is not family:
            for member, found in looks.items():
                await loading.doubt_again(instance, member, master, found)
        for member, found in looks.items():
            if not found.has_no_master:
                instance.move(member, home)
                member.miss(Role.MASTER, None)
            await recovery.settle(member, found)
        await recovery.note_use(instance, looks)
    await _go_on(instance, looks)


@asynccontextmanager
async def _unsettled(instance: Instance, family: Family, home: Family) -> AsyncIterator[None]:
    """A restore that comes back will write to a master that others have in use."""
    view = instance.master_view(home)
    if view is None or family.restoring is None:
        yield
        return
    async with instance.timekeeper.counted_as_written(view):
        yield


async def _go_on(instance: Instance, members: Iterable[VolumeSet]) -> None:
    for member in members:
        await recovery.show(instance, instance.family(member))
        if instance.running(member) is None:
            recovery.start_copies(instance, [member])


async def _bring_volume(instance: Instance, path: str) -> None:
    found = await recovery.open_master(instance, path)
    if isinstance(found, Family):
        await recovery.show(instance, found)
