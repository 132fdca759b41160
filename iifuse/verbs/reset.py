"""Bring a set with offline volumes back (`iiadm -R`), with the copy that makes it true again.

Nothing that failed is believed: a shadow is copied anew, a bitmap is written anew, the point in
time of a dependent set is lost and a new one begins. See docs/decisions/overwriting.md.
"""

import time
from functools import partial
from typing import Final

from iifuse import errors
from iifuse.core import state as states
from iifuse.core.bits import Bits
from iifuse.core.missing import lost_of
from iifuse.core.state import NOTHING_OFFLINE, Change, Custody, Kind, Progress, Role, named
from iifuse.core.times import after
from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.host import astray
from iifuse.host.instance import Instance
from iifuse.host.shown import show_other_times
from iifuse.host.tickets import end_export
from iifuse.loop.lookout import PATIENT_S
from iifuse.store.presence import file_of
from iifuse.store.volume import Volume
from iifuse.units import command
from iifuse.verbs import pit, recovery
from iifuse.verbs.joining import reopen_lent
from iifuse.verbs.replacing import replace_lost

_DIFFER: Final = "all chunks count as different"

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
        await replace_lost(instance, member, lost & Role.BITMAP)
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
    async with uncovered:
        lost = lost_of(member.state, member.missing)
        await replace_lost(instance, member, lost)
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


def with_way_out(
    member: VolumeSet, error: errors.BadVolume | errors.NoAnswer
) -> errors.BadVolume | errors.NoAnswer:
    """A volume cannot be used: what to do about it, and what to do if that cannot be."""
    way = states.how_to_do_without(member.name, member.state)
    again = f"repeat {command('iiadm -R', member.name)}"
    todo = f"{error.todo or 'mend it'} and {again}; if it is lost, {way}"
    return type(error)(error.subject, error.why, todo)


async def _take_back(instance: Instance, member: VolumeSet) -> list[str]:
    reopen = partial(reopen_lent, instance, member)
    shadow = await instance.lookout.ask(member.name, reopen, Volume.close, PATIENT_S)
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
