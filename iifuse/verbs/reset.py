"""Bring a set with offline volumes back (`iiadm -R`), with the copy that makes it true again.

Nothing that failed is believed: a shadow is copied anew, a bitmap is written anew, the point in
time of a dependent set is lost and a new one begins. See docs/decisions/overwriting.md.
"""

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Final

from iifuse import errors
from iifuse.core import loss, sector
from iifuse.core import state as states
from iifuse.core.bits import Bits
from iifuse.core.header import FileId, Header
from iifuse.core.missing import lost_of, same_file
from iifuse.core.state import NOTHING_OFFLINE, Change, Custody, Kind, Progress, Role, named
from iifuse.core.times import after
from iifuse.data.family import Family
from iifuse.data.timedfile import in_doubt
from iifuse.data.volumeset import VolumeSet
from iifuse.host import astray, roles
from iifuse.host.instance import Instance
from iifuse.host.roles import Part
from iifuse.host.shown import show_other_times
from iifuse.host.tickets import end_export
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import file_of
from iifuse.store.volume import Volume
from iifuse.units import command
from iifuse.verbs import pit, recovery
from iifuse.verbs.joining import reopen_lent
from iifuse.verbs.opening import check_size, open_or_create
from iifuse.verbs.overwriting import needs_shadow

_DIFFER: Final = "all chunks count as different"

Lost = dict[Role, Volume]
"""The volumes that were offline, opened again."""


async def reset(instance: Instance, member: VolumeSet) -> list[str]:
    """Bring the set back; remarks for the user. Raises BadVolume, Busy, Refused, StorageError.

    On an exported set: take the shadow back from an importer that is lost, all chunks different.
    """
    if any(missing.served for missing in member.missing.values()):
        member.check_whole("-R")
    lost = lost_of(member.state, member.missing)
    if member.header.custody is not Custody.EXPORTED and not lost:
        return [f"{member.name}: nothing is offline"]
    async with instance.notes.announced({member: None}):
        return await _reset(instance, member)


async def _reset(instance: Instance, member: VolumeSet) -> list[str]:
    member.check_answering()
    lost = lost_of(member.state, member.missing)
    is_stand_in = not member.header.pit.number
    if member.header.custody is Custody.EXPORTED:
        await _replace(instance, member, lost & Role.BITMAP)
        recalled = member.header if is_stand_in else None
        notes = await _take_back(instance, member)
        await show_other_times(instance, member, NOTHING_OFFLINE, recalled)
        return notes
    if member.is_beyond_repair:
        raise errors.Refused(
            member.name,
            "its bitmap was lost in the middle of a restore: nobody knows which chunks of the "
            "master are right",
            f"{states.how_to_do_without(member.name, member.state)}, and get the master's content "
            "from a backup",
        )
    family = instance.family(member)
    pit.check_siblings(family, member, "-R")
    _check_something_left(member, family, lost)
    await instance.stop_copy(member)
    view = instance.views.get(member.name)
    uncovered = astray.uncovered(instance, view, lost=bool(lost & Role.SHADOW))
    async with uncovered, family.locks.everything():
        lost = lost_of(member.state, member.missing)
        await _replace(instance, member, lost)
    recalled = member.header if is_stand_in else None
    if member.shadow is not None and member.name not in instance.views:
        await instance.show_shadow(member)
    notes = await _make_true(instance, member, lost)
    await show_other_times(instance, member, lost, recalled)
    member.bits_known = True
    return notes


def _check_something_left(member: VolumeSet, family: Family, lost: Role) -> None:
    """Neither of two lost volumes can be made true from the other; what is there may be needed."""
    whole = member.state.kind is Kind.INDEPENDENT and member.header.custody is Custody.LOCAL
    if whole and family.master is None and lost & Role.SHADOW:
        raise errors.Refused(
            member.name,
            "is not there and nor is its master: neither can be made true from the other",
            "bring one of them back, or reset another set of that master first; else "
            + states.how_to_do_without(member.name, member.state),
        )


def with_way_out(member: VolumeSet, error: errors.BadVolume) -> errors.BadVolume:
    """A volume cannot be used: what to do about it, and what to do if that cannot be."""
    way = states.how_to_do_without(member.name, member.state)
    again = f"repeat {command('iiadm -R', member.name)}"
    todo = f"{error.todo or 'mend it'} and {again}; if it is lost, {way}"
    return errors.BadVolume(error.subject, error.why, todo)


async def _take_back(instance: Instance, member: VolumeSet) -> list[str]:
    shadow = await instance.loop.blocking(partial(reopen_lent, instance, member))
    mended = member.state.offline & ~Role.MASTER  # the next -R fills that
    async with instance.family(member).locks.gate():
        member.bits.shadow.fill()
        try:
            times = after([member.header.shadow_times], time.time_ns())  # others may have written
            await member.save_exact(
                mended=mended, custody=Custody.LOCAL, shadow_times=times,
                shadow_file=file_of(shadow),
            )  # fmt: skip
        except OSError:
            await instance.loop.blocking(shadow.close)
            raise
        await member.renew_bits()
    member.shadow = shadow
    await recovery.note_use(instance, [member])
    await instance.show_shadow(member)
    await instance.loop.blocking(partial(end_export, instance, member.header))
    await instance.note(member, "reset", why=f"taken back from its importer, {_DIFFER}")
    name = member.name
    return [f"{name}: taken back, all its chunks count as different; {states.how_to_copy(name)}"]


# -- opening what was lost ------------------------------------------------------------------


async def _replace(instance: Instance, member: VolumeSet, lost: Role) -> None:
    """Close and open again what is offline; all of it, or it raises."""
    family = instance.family(member)
    standing = instance.standing_at(family.path) if family.master is None else None
    closed = lost
    if member.shadow is not None and not member.state.offline & Role.SHADOW:
        closed &= ~Role.SHADOW  # a bitmap that is given up makes it worthless, and it is there
    volumes = await instance.loop.blocking(
        partial(_open_lost, instance, member, family, standing, closed)
    )
    try:
        for role, missing in list(member.missing.items()):  # its place is taken: no way back
            if role & lost:
                await member.give_up(role, f"{missing.why}, and was given up (-R)")
        if Role.SHADOW in volumes:
            member.shadow = volumes.pop(Role.SHADOW)
        if Role.BITMAP in volumes:
            member.log.bitmap = BitmapFile(volumes.pop(Role.BITMAP))
            await _rewrite_bitmap(instance, member)
        if Role.MASTER in volumes:
            await _adopt_master(instance, member, family, volumes[Role.MASTER], standing)
    except BaseException:
        # Their locks would be in the way of the next -R.
        for volume in (v for v in volumes.values() if not instance.has_master(v)):
            await instance.loop.blocking(volume.close)
        raise
    await recovery.note_use(instance, [member])


def _open_lost(
    instance: Instance, member: VolumeSet, family: Family, standing: Family | None, lost: Role
) -> Lost:
    """In a thread. The old descriptors go first: their locks are in our own way."""
    header = member.header
    names = {Role.MASTER: header.master, Role.SHADOW: header.shadow, Role.BITMAP: header.bitmap}
    parts = {Role.MASTER: Part.MASTER, Role.SHADOW: Part.SHADOW, Role.BITMAP: Part.BITMAP}
    roles.check(instance, [(parts[role], names[role]) for role in parts if lost & role], own=member)
    need = sector.bitmap_bytes(header.geometry.chunks)
    found: Lost = {}
    with ExitStack() as undo:
        if lost & Role.SHADOW:
            _close(member.shadow)
            member.shadow = None
            found[Role.SHADOW] = _open_shadow(instance, header, undo)
            check_size(found[Role.SHADOW], header.size_bytes, "the shadow")
        if lost & Role.BITMAP:
            _close(member.bitmap.volume if member.bitmap else None)
            member.log.bitmap = None
            found[Role.BITMAP] = open_or_create(instance, header.bitmap, need, undo, sparse=False)
            check_size(found[Role.BITMAP], need, "the bitmap")
            _recalled(member, BitmapFile(found[Role.BITMAP]))  # refused before anything is given up
        if lost & Role.MASTER and family.master is None:
            if standing is not None and standing.master is not None:
                found[Role.MASTER] = standing.master
                astray.check(instance, standing.master, "-R")
            else:
                found[Role.MASTER] = instance.open_volume(header.master)
                undo.callback(found[Role.MASTER].close)
            _check_replacement(found[Role.MASTER], header.size_bytes)
        undo.pop_all()
    return found


def _open_shadow(instance: Instance, header: Header, undo: ExitStack) -> Volume:
    """A new one may take the place of a shadow that is copied anew, never of one that is needed."""
    if needs_shadow(header):
        shadow = instance.open_volume(header.shadow)
        undo.callback(shadow.close)
        if not same_file(header.shadow_file, file_of(shadow)):
            raise errors.BadVolume(
                header.shadow,
                f"is another one than the shadow that holds {loss.point_in_time(header)}",
                "put the right one back",
            )
        return shadow
    return open_or_create(instance, header.shadow, header.size_bytes, undo, sparse=True)


def _close(volume: Volume | None) -> None:
    if volume is not None:
        volume.close()


def _check_replacement(master: Volume, size_bytes: int) -> None:
    if master.size_bytes != size_bytes:
        raise errors.BadVolume(
            master.path,
            f"has {master.size_bytes} bytes, the master that it replaces had {size_bytes}",
            "make it of the same size",
        )


async def _rewrite_bitmap(instance: Instance, member: VolumeSet) -> None:
    """What is known in memory is written anew; the header stays offline until all is true.

    The doubt in the state database goes now that a durable header says as much, and not at the end:
    a bitmap volume that fails again meanwhile is doubted anew, and that has to stay.
    """
    assert member.bitmap is not None
    await instance.loop.blocking(partial(_recall, member, member.bitmap))
    member.amend(in_doubt(member.header))  # until the set is back and keeps times again
    await member.save_exact()
    member.log.is_unnoted = False
    await instance.loop.blocking(partial(instance.db.doubt, member.name, None))
    await instance.loop.blocking(
        partial(instance.db.closing, member.name, False)
    )  # one that was cut short, too
    await recovery.finish_transition(instance)  # a group command that it will not follow


def _recall(member: VolumeSet, bitmap: BitmapFile) -> None:
    member.amend(_recalled(member, bitmap))
    bitmap.erase_headers()


def _recalled(member: VolumeSet, bitmap: BitmapFile) -> Header:
    """Who the set is, from a header that was only away for a start; its bits stay unbelieved."""
    if member.header.pit.number:
        return member.header
    try:
        old = bitmap.read_header()
    except (errors.BadBitmap, OSError):
        old = None
    if old is not None and (old.uuid, old.role) == (member.key, member.header.role):
        return replace(
            member.header, pit=old.pit, export_number=old.export_number,
            import_id=old.import_id, joined=old.joined,
            master_times=old.master_times, shadow_times=old.shadow_times,
        )  # fmt: skip
    if member.header.custody is Custody.IMPORTED:
        raise errors.Refused(
            member.name,
            "its bitmap volume says no more which export it belongs to",
            "put the right one back; if it is lost, "
            f"{states.how_to_do_without(member.name, member.state)}, and reset it on the exporting "
            "host",
        )
    return member.header


async def _adopt_master(
    instance: Instance, member: VolumeSet, family: Family, master: Volume, standing: Family | None
) -> None:
    """A replacement: nothing that a sibling knows of the old master is true of it.

    `standing`: the family of the new one, if it is on the mount already.
    """
    for sibling in family.sets:
        if sibling is not member:
            await _forget_master(sibling)
    if standing is None:
        family.master, family.meant = master, FileId()
        for each in family.sets:
            async with each.header_lock:
                each.amend(in_doubt(each.header))  # its file shows another content
        await instance.show_master(family)
    else:
        async with standing.locks.gate():
            for one in list(family.sets):
                instance.move(one, standing)
    siblings = instance.family(member).sets
    for sibling in siblings:
        sibling.miss(Role.MASTER, None)
    await recovery.note_use(instance, siblings)


async def _forget_master(sibling: VolumeSet) -> None:
    why, own = "its master was replaced", sibling.state.kind is Kind.INDEPENDENT
    if sibling.lacks(Role.BITMAP):
        await sibling.give_up(Role.BITMAP, why)
    if not own:
        await sibling.take_offline(Role.SHADOW, why)
    elif sibling.state.progress is Progress.IDLE:
        why = sibling.header.offline_reason  # of a shadow that failed before
    sibling.bits.shadow.fill()
    await sibling.save_exact(mended=Role.MASTER, offline_reason=why)


# -- making it true -------------------------------------------------------------------------


async def _make_true(instance: Instance, member: VolumeSet, lost: Role) -> list[str]:
    header, name = member.header, member.name
    restoring = header.progress is Progress.TO_MASTER
    if restoring and lost & Role.MASTER and header.kind is Kind.DEPENDENT:
        await _give_up_restore(member)
    elif restoring and not lost & Role.MASTER:
        await _resume_restore(instance, member, lost)
        go_on = command("iiadm -u m", name)
        return [f"{name}: its restore stands aborted; {go_on} goes on with it"]
    if header.custody is Custody.IMPORTED:
        await _all_differ(instance, member, lost)
        return [f"{name}: all its chunks count as changed here"]
    if header.kind is Kind.INDEPENDENT and not lost & (Role.SHADOW | Role.MASTER):
        await _all_differ(instance, member, lost)
        return [f"{name}: all its chunks count as different; {states.how_to_copy(name)}"]
    change = _change(header.kind, lost)
    if change is Change.CLEAR:
        await _forget_bits(instance, member)
    recheck = partial(pit.check_siblings, instance.family(member), member, "-R")
    why = f"everything is copied: {named(lost)} was lost: {header.offline_reason or 'not there'}"
    await pit.change_all(instance, {member: change}, "reset", recheck, why)
    if member.header.copying:
        instance.start_copy(member)
    return [f"{name}: {_EFFECTS[change]}"]


async def _forget_bits(instance: Instance, member: VolumeSet) -> None:
    """A restore that failed as it began may have left copy bits, which Change.CLEAR keeps."""
    async with instance.family(member).locks.gate():
        member.bits = await instance.loop.blocking(partial(Bits.blank, member.bits.chunks))
        await member.save_exact(pending=Change.NONE)


_EFFECTS = {
    Change.CLEAR: "its old point in time is lost, a new one begins now",
    Change.FILL_TO_SHADOW: "the whole master is copied to it, as of now",
    Change.FILL_TO_MASTER: "the whole master is copied back from it and is usable now",
}


def _change(kind: Kind, lost: Role) -> Change:
    if kind is Kind.DEPENDENT:
        return Change.CLEAR
    return Change.FILL_TO_SHADOW if lost & Role.SHADOW else Change.FILL_TO_MASTER


async def _resume_restore(instance: Instance, member: VolumeSet, lost: Role) -> None:
    """Independent: what was written to restored chunks meanwhile was not noted, so all differ.

    Dependent: such writes failed (touch._is_lost), nothing was missed.
    """
    async with instance.family(member).locks.gate():
        if member.state.kind is Kind.INDEPENDENT:
            member.bits.shadow.fill()
            member.bits.shadow.drop(member.bits.copy)
        await member.save_exact(mended=lost)
        await member.renew_bits()
    await instance.note(member, "reset")


async def _give_up_restore(member: VolumeSet) -> None:
    """What a dependent shadow lacks was on the master that is lost; the set stays offline."""
    member.bits.copy.zero()
    await member.save_exact(progress=Progress.IDLE, copying=False)
    await member.renew_bits()


async def _all_differ(instance: Instance, member: VolumeSet, lost: Role) -> None:
    async with instance.family(member).locks.gate():
        member.bits.shadow.fill()
        member.bits.copy.zero()
        await member.save_exact(mended=lost, progress=Progress.IDLE, copying=False)
        await member.renew_bits()
    await instance.note(member, "reset", why=_DIFFER)
