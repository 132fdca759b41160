"""Start: every set comes back with its state, its group and its running copy.

A set that cannot come back whole comes back with volumes offline and the reason; it never stops
the others, and its master is served. Which bitmap volumes are believed: docs/decisions/recovery.md.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from functools import partial

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
from iifuse.loop.lookout import BULK_S
from iifuse.loop.together import side_by_side
from iifuse.store.presence import file_of
from iifuse.store.setrow import SetRow
from iifuse.store.volume import Volume
from iifuse.verbs.enable import finish_disable
from iifuse.verbs.loading import Found, has_header, load, look_at_volumes, missing_by
from iifuse.verbs.rollforward import awaited

log = logging.getLogger(__name__)

async def start(instance: Instance) -> None:
    """Bring everything back that the state database names. Raises only on a defect.

    No file is shown before every set is back: a write that came earlier would be noted nowhere.
    """
    alone = await instance.loop.blocking(partial(volumes_alone, instance))
    await side_by_side([partial(_hear_one, instance, path) for path in alone])
    for path in alone:
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
    """Load sets and make their headers say that they are in use; nothing is shown yet.

    The volumes of all sets are heard at the same time, so that those which do not answer cost the
    others one time limit; they come back later by themselves. The rest goes one after the other: a
    set whose path leads to a volume of another one does not get it before that one.
    """
    rows = list(rows)
    await _hear(instance, rows)
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
        await _restore_ticket(instance, member)
        for what in member.recovered:
            await instance.note(member, "start", why=what)
        member.recovered.clear()
    await quietly(instance, partial(instance.db.end_session_change, list(before)))


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


async def quietly(instance: Instance, call: Callable[[], None]) -> None:
    """For what a later start makes up for."""
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


# -- one set --------------------------------------------------------------------------------


async def _hear(instance: Instance, rows: Iterable[SetRow]) -> None:
    """Learn which volumes do not answer, from all of them at the same time."""
    names = {name for row in rows for name in (row.master, row.shadow, row.bitmap) if name}
    await side_by_side([partial(_hear_one, instance, name) for name in names])


async def _hear_one(instance: Instance, path: str) -> None:
    with suppress(errors.NoAnswer):  # which is said when it is wanted
        await instance.check_answering(path)


async def _start_set(instance: Instance, row: SetRow) -> VolumeSet | None:
    """Whoever has the set's master has the set from now on. None: it is none any more."""
    if row.entering and not await _has_header(instance, row):
        return None
    master = await open_master(instance, row.master) if row.master else None
    member, found = await load(instance, row)
    volume = master.master if isinstance(master, Family) else master
    await look_at_volumes(instance, member, volume, found)
    if member.header.closure is not Closure.OPEN:
        await _finish_closed(instance, row, member, found)
        return None
    if row.closing and not found.knows_nothing_of_its_end:
        await quietly(instance, partial(instance.db.closing, row.shadow, False))
    if isinstance(master, Family) and not found.has_no_master:
        instance.register(master, member)
    else:
        instance.register(family_without_master(instance, member), member)
    await settle(member, found)
    return member


async def _finish_closed(
    instance: Instance, row: SetRow, member: VolumeSet, found: Found
) -> None:
    member.shadow = found.shadow
    if row.closing and found.shadow_is_silent:
        log.error("%s: the next start finishes its disable, the shadow is silent", member.name)
        await instance.loop.blocking(member.close)
    else:
        await forget_closed(instance, row, member)


async def _has_header(instance: Instance, row: SetRow) -> bool:
    """Where that cannot be told now, its bits are never believed: nobody notes what is written."""
    look = partial(has_header, instance, row)
    try:
        is_there = await instance.lookout.ask(row.bitmap, look, limit_s=BULK_S)
    except (errors.NoAnswer, errors.Busy, errors.InUse) as error:
        log.error("%s: the next start looks whether its enable was finished", error)  # noqa: TRY400
        why = "its enable was cut short, and what was written since is noted nowhere"
        await instance.loop.blocking(partial(instance.db.doubt, row.shadow, why))
        return False
    if not is_there:
        log.warning("%s: was being enabled or imported when the service ended", row.shadow)
        await quietly(instance, partial(instance.db.remove_set, row.shadow))
    return is_there


async def settle(member: VolumeSet, found: Found) -> None:
    """What was found wrong with a set: some of it is noted durably, some is waited for."""
    old, member.shadow = member.shadow, found.shadow
    if old is not None and old is not found.shadow:
        await member.loop.blocking(old.close)
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
    await quietly(instance, partial(_forget_closed, instance, row, member))


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
    await quietly(instance, partial(_note_bitmap, instance, member))
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


async def _restore_ticket(instance: Instance, member: VolumeSet) -> None:
    try:
        if member.header.export_number:
            await instance.check_answering(member.name)
        member.ticket = await instance.loop.blocking(
            partial(restore_ticket, instance, member.header)
        )
    except errors.NoAnswer as error:
        log.error("%s: its ticket was not looked at: %s", member.name, error)  # noqa: TRY400
    except OSError as error:
        log.error("%s: its ticket could not be written: %s", member.name, error)  # noqa: TRY400


def _note_bitmap(instance: Instance, member: VolumeSet) -> None:
    if member.bitmap is not None:
        instance.db.use_bitmap(member.name, file_of(member.bitmap.volume))


async def open_master(instance: Instance, path: str) -> Family | Missing:
    """The family of a master that is there, or why it is not."""
    standing = instance.standing_at(path)
    if standing is not None:
        return standing
    try:
        opening = partial(instance.open_volume, path, exclusive=False)
        return instance.adopt(await instance.lookout.ask(path, opening, Volume.close))
    except errors.IifuseError as error:
        log.error("%s: this master cannot be served: %s", path, error)  # noqa: TRY400
        return missing_by(error)


async def finish_transition(instance: Instance) -> None:
    """Forget a group's record once all its members have followed; a missing one may come later."""
    left = awaited(instance)
    if left != instance.transitions.standing:
        await instance.loop.blocking(partial(instance.transitions.finish, left))
