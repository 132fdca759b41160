"""Start and stop: every set comes back with its state, its group and its running copy.

A set that cannot come back whole comes back with volumes offline and the reason; it never stops
the others, and its master is served. Which bitmap volumes are believed: docs/decisions/recovery.md.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any

import trio

from iifuse import errors
from iifuse.core.header import Closure, Stamp
from iifuse.core.missing import Missing
from iifuse.core.state import Custody, Role
from iifuse.data.family import Family
from iifuse.data.timedfile import in_doubt
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.host.tickets import restore_ticket
from iifuse.host.trust import doubt_all, doubt_siblings
from iifuse.host.unjoined import learn_at_start
from iifuse.store.presence import file_of, is_absence
from iifuse.store.setrow import SetRow
from iifuse.store.stamp import stamp
from iifuse.store.volume import Volume
from iifuse.verbs.enable import finish_disable
from iifuse.verbs.loading import Found, has_header, load
from iifuse.verbs.rollforward import awaited

log = logging.getLogger(__name__)


async def start(instance: Instance) -> None:
    """Bring everything back that the state database names. Raises only on a defect.

    No file is shown before every set is back: a write that came earlier would be noted nowhere.
    """
    for path in await instance.loop.blocking(partial(volumes_alone, instance)):
        if isinstance(await open_master(instance, path), Missing):
            instance.volumes_wait = True
    instance.transitions.disown(await instance.loop.blocking(instance.db.disowned))
    await bring_back(instance, await instance.loop.blocking(instance.db.sets))
    await finish_transition(instance)
    await learn_at_start(instance)
    for family in instance.families:
        await show(instance, family)
    start_copies(instance, instance.sets.values())


def volumes_alone(instance: Instance) -> list[str]:
    """In a thread: the volumes of svadm, without those that are a set's shadow or bitmap by now.

    Opened as one with no set, such a volume would take writes that its set learns nothing of.
    """
    taken = {path for row in instance.db.sets() for path in (row.shadow, row.bitmap)}
    return [path for path in instance.db.volumes() if path not in taken]


def start_copies(instance: Instance, members: Iterable[VolumeSet]) -> None:
    """Let the copies go on that ran when the sets were last in use."""
    for member in members:
        if member.header.copying and not member.missing:
            instance.start_copy(member)


async def bring_back(instance: Instance, rows: Iterable[SetRow]) -> list[VolumeSet]:
    """Load sets and make their headers say that they are in use; nothing is shown yet."""
    found = [await _start_set(instance, row) for row in rows]
    members = [member for member in found if member is not None]
    await put_in_use(instance, members)
    return members


async def put_in_use(instance: Instance, members: Iterable[VolumeSet]) -> None:
    """Note in the headers of sets that could be written from now on that they are in use.

    The database knows a new session before the first header has it, and forgets the one before
    after the last has: a start that is cut short finds every header known. A set that nobody can
    write to stays as it is on disk, its bitmap volume above all, which may not even be there.
    """
    members = [s for s in members if not s.in_use and could_be_written(instance, s)]
    before = {s.name: s.header.session for s in members}
    try:
        await instance.loop.blocking(partial(instance.db.begin_session, instance.session, before))
    except errors.StorageError:
        log.exception("the state database cannot be written, sets keep the session they have")
    else:
        for member in members:
            member.amend(replace(member.header, session=instance.session))
    for member in members:
        if member.header.restored_offline:
            await doubt_siblings(member, instance.family(member).sets)
    for member in members:
        await open_for_use(instance, member)
        await _settle_ticket(instance, member)
        for what in member.recovered:
            await instance.note(member, "start", why=what)
        member.recovered.clear()
    await _quietly(instance, partial(instance.db.end_session_change, list(before)))


async def note_use(instance: Instance, members: Iterable[VolumeSet]) -> None:
    """Note which volumes are in use, after some have come back or are new."""
    members = list(members)
    for member in members:
        if member.in_use:
            await open_for_use(instance, member)
    await put_in_use(instance, members)
    for view in list(instance.views.values()):  # of a master that was in use the stamp is gone now
        if any(member in view.concerned() for member in members):
            instance.timekeeper.record_stamp_later(view)


def could_be_written(instance: Instance, member: VolumeSet) -> bool:
    """Is there a file on the mount, or about to be, a write to which the set has to note?"""
    if member.lacks(Role.BITMAP):
        return False
    return instance.family(member).master is not None or not (
        member.shadow is None or member.is_hidden
    )


async def _quietly(instance: Instance, call: Callable[[], None]) -> None:
    """Make a call whose failure is only logged, because a later start repeats it."""
    try:
        await instance.loop.blocking(call)
    except (errors.StorageError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect


async def show(instance: Instance, family: Family) -> None:
    """Put a family's files on the mount, those that are not there yet."""
    if family.master is not None and family.master.path not in instance.views:
        await instance.show_master(family)
    for member in family.sets:
        if member.shadow is not None and member.name not in instance.views:
            await instance.show_shadow(member)


async def stop(instance: Instance, limit_s: float = inf) -> bool:
    """Let copies rest, make everything durable, write exact bits, mark all clean, close.

    After `limit_s` seconds, sets whose volumes do not answer are left as by a crash. Returns False
    then.
    """
    ended = {family: trio.Event() for family in instance.families}
    for family, event in ended.items():
        trio.lowlevel.spawn_system_task(_stop_family, instance, family, event)
    with instance.loop.limits.move_on_after(limit_s):
        for event in ended.values():
            await event.wait()
    for family in (family for family, event in ended.items() if not event.is_set()):
        names = ", ".join(filter(None, [family.path, *(s.name for s in family.sets)]))
        log.error("%s: a volume does not answer; the next start looks at what was not saved", names)
    return all(event.is_set() for event in ended.values())


async def _stop_family(instance: Instance, family: Family, ended: trio.Event) -> None:
    try:
        for member in family.sets:
            await instance.stop_copy(member)
        async with family.locks.gate():
            for volume in [family.master, *(s.shadow for s in family.sets if not s.stuck)]:
                await _sync_last(volume, family)
            for member in family.sets:
                await _save(instance, member, family.master)
                await instance.notes.remember(member)
            if family.master is not None and not family.sets:
                await _keep_times(instance, family.master)
        await instance.loop.blocking(partial(_close, family))
    except Exception:
        log.exception("%s: defect at the end of the service", family.path)
    finally:
        ended.set()


async def _sync_last(volume: Volume | None, family: Family) -> None:
    """A shadow that fails is offline when it comes back, whatever a later sync says."""
    if volume is None:
        return
    try:
        await family.loop.blocking(volume.sync)
        await family.loop.blocking(
            volume.sync_times
        )  # else a power failure makes them differ from the stamp
    except OSError as error:
        log.error("%s: the last sync failed: %s", volume.path, error)  # noqa: TRY400
        for member in family.sets:
            await member.take_offline_by_path(volume.path, errors.words(error))


async def _save(instance: Instance, member: VolumeSet, master: Volume | None) -> None:
    """The stamp of a volume that was not here stays: by it we shall know it again."""
    if not member.in_use:
        return
    fields: dict[str, Any] = {}
    for volume, name in ((master, "master_stamp"), (member.shadow, "shadow_stamp")):
        if volume is not None:
            fields[name] = stamp(volume)
            view = instance.views.get(volume.path)
            fields |= view.as_field(view.last_times()) if view is not None else {}
    try:
        await member.save_exact(clean=not member.state.offline, **fields)
    except OSError:
        log.exception("%s: the exact bits could not be saved", member.name)


async def _keep_times(instance: Instance, master: Volume) -> None:
    """As its sets' headers do, if it had any."""
    view = instance.views[master.path]
    times, stamp = view.last_times(), view.stamp()
    await _quietly(
        instance, partial(instance.db.keep_times, view.path, times, stamp, file_of(master))
    )


def _close(family: Family) -> None:
    for member in family.sets:
        member.close()
    if family.master is not None:
        family.master.close()


# -- one set --------------------------------------------------------------------------------


async def _start_set(instance: Instance, row: SetRow) -> VolumeSet | None:
    if row.entering and not await instance.loop.blocking(partial(has_header, instance, row)):
        log.warning("%s: was being enabled or imported when the service ended", row.shadow)
        await _quietly(instance, partial(instance.db.remove_set, row.shadow))
        return None
    master = await open_master(instance, row.master) if row.master else None
    volume = master.master if isinstance(master, Family) else master
    member, found = await instance.loop.blocking(partial(load, instance, row, volume))
    if member.header.closure is not Closure.OPEN:
        member.shadow = found.shadow
        await forget_closed(instance, row, member)
        return None
    if row.closing and not found.knows_nothing_of_its_end:
        await _quietly(instance, partial(instance.db.closing, row.shadow, False))
    if isinstance(master, Family) and not found.has_no_master:
        instance.register(master, member)
    else:
        instance.register(family_without_master(instance, member), member)
    await settle(member, found)
    return member


async def settle(member: VolumeSet, found: Found) -> None:
    """What was found wrong with a set: some of it is noted durably, some is waited for."""
    member.shadow = found.shadow
    for part, missing in found.missing.items():
        member.miss(part, missing)
    if found.doubt:
        member.amend(in_doubt(member.header))
    if member.state.offline & Role.MASTER and not found.has_no_master:
        member.amend(replace(member.header, offline=member.state.offline & ~Role.MASTER))
    for role, reason in found.trouble:
        if not role:
            log.warning("%s: %s", member.name, reason)
            member.recovered.append(reason)
        await member.take_offline(role, reason)
    if found.doubt:
        await doubt_all(member, found.doubt)


async def forget_closed(instance: Instance, row: SetRow, member: VolumeSet) -> None:
    """The bitmap of a set says that it is none any more."""
    await _quietly(instance, partial(_forget_closed, instance, row, member))


def _forget_closed(instance: Instance, row: SetRow, member: VolumeSet) -> None:
    """In a thread: a disable that was cut short, or an end that this database never knew of.

    After the latter, a join while this service was down among them, the shadow may long be
    somebody else's: nothing of it is wiped.
    """
    if row.closing:
        for note in finish_disable(instance, member):
            log.info("%s", note)
        log.info("%s: the disable that was cut short is done", member.name)
        return
    log.warning("%s: was disabled or joined since this service last had it", member.name)
    instance.db.remove_set(member.name)
    member.close()


def family_without_master(instance: Instance, member: VolumeSet) -> Family:
    """Of an imported shadow, or of sets that miss the same master."""
    header = member.header
    path = header.master if header.custody is not Custody.IMPORTED else None
    for family in instance.families:
        waits = path is not None and family.path == path and family.master is None
        if waits and family.meant == header.master_file:
            return family
    family = Family(instance.loop, path, None, member.geometry, ordered=instance.ordered)
    family.meant = header.master_file
    instance.families.append(family)
    return family


def identities(master: Volume | None, shadow: Volume | None) -> dict[str, object]:
    """Which files are in use from now on; they get stamps when they are known to be quiet."""
    found: dict[str, object] = {}
    if master is not None:
        found |= {"master_file": file_of(master), "master_stamp": Stamp()}
    if shadow is not None:
        found |= {"shadow_file": file_of(shadow), "shadow_stamp": Stamp()}
    return found


async def open_for_use(instance: Instance, member: VolumeSet) -> None:
    """The header says unclean, and of which files, before anything can be written."""
    member.in_use = True
    await _quietly(instance, partial(_note_bitmap, instance, member))
    try:
        await member.commit(
            **identities(instance.family(member).master, member.shadow),
            clean=False,
            boot_id=instance.boot_id,
            process_durability=not instance.ordered,
            restored_offline=False,
        )
    except OSError as error:
        await member.take_offline(Role.BITMAP, errors.words(error))
    await instance.notes.remember(member)


async def _settle_ticket(instance: Instance, member: VolumeSet) -> None:
    try:
        member.ticket = await instance.loop.blocking(
            partial(restore_ticket, instance, member.header)
        )
    except OSError as error:
        log.error("%s: its ticket could not be written: %s", member.name, error)  # noqa: TRY400


def _note_bitmap(instance: Instance, member: VolumeSet) -> None:
    if member.bitmap is not None:
        instance.db.use_bitmap(member.name, file_of(member.bitmap.volume))


async def open_master(instance: Instance, path: str) -> Family | Missing:
    """The family of a master that is there, or why it is not."""
    for family in instance.families:
        if family.path == path and family.master is not None:
            return family
    try:
        volume = await instance.loop.blocking(partial(instance.open_volume, path, exclusive=False))
    except errors.IifuseError as error:
        log.error("%s: this master cannot be served: %s", path, error)  # noqa: TRY400
        return Missing(f"{error.subject} {error.why}", stranger=not is_absence(error))
    return instance.adopt(volume)


async def finish_transition(instance: Instance) -> None:
    """Forget a group's record once all its members have followed; a missing one may come later."""
    left = awaited(instance)
    if left != instance.transitions.standing:
        await instance.loop.blocking(partial(instance.transitions.finish, left))
