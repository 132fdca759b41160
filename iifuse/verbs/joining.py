"""Merges the bitmap of an import, and takes the shadow back (`iiadm -J`)."""

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial

from iifuse import errors
from iifuse.core.bitmap import Bitmap
from iifuse.core.header import BitmapRole, Closure, Header
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Role, how_to_end_custody
from iifuse.core.times import Times, after
from iifuse.data.volumeset import VolumeSet
from iifuse.host import lentshadow, roles, unjoined
from iifuse.host.instance import Instance
from iifuse.host.roles import Part
from iifuse.host.tickets import end_export, ticket_of
from iifuse.loop.lookout import PATIENT_S
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.headerlog import HeaderLog
from iifuse.store.presence import file_of
from iifuse.store.volume import Volume
from iifuse.units import command
from iifuse.verbs.opening import check_size


async def join(
    instance: Instance, member: VolumeSet, path: str, *, accept_unclosed: bool
) -> list[str]:
    """Merge a secondary bitmap. No data moves, and there is no new PIT.

    The next update copies the chunks of both bitmaps. Returns remarks about other imports of this
    export that are not joined yet. After a failed check or an error the set is as it was, perhaps
    with extra bits, which do no harm. Raises Refused, BadSecondary, NotClosed, BadVolume, Busy,
    StorageError.
    """
    joining = await _open_in_time(instance, member, path, accept_unclosed)
    async with instance.loop.closing_in_thread(joining.undo):
        async with instance.notes.announced({member: None}):
            await unjoined.learn(instance, member)  # this must be durable before the set is local
            await _merge(instance, member, joining.secondary, joining.changes)
        if joining.shadow is not None:
            joining.shadow_undo.pop_all()
            member.shadow = joining.shadow
            await member.note(shadow_file=file_of(joining.shadow))
            await instance.show_shadow(member)
        await instance.loop.blocking(partial(_end, instance, member, joining.secondary))
    changed = await instance.loop.blocking(joining.changes.count)
    await instance.note(member, "join", chunks=changed, why=f"changed there, as {path} says")
    await unjoined.learn(instance, member)
    return [
        f"{member.name}: an import with the bitmap {other} is not joined yet: until it is, updates "
        "copy everything"
        for other in member.unjoined
    ]


async def check_join(
    instance: Instance, member: VolumeSet, path: str, *, accept_unclosed: bool
) -> None:
    """Everything that `join` checks; nothing is changed."""
    joining = await _open_in_time(instance, member, path, accept_unclosed)
    await instance.loop.blocking(joining.undo.close)


@dataclass
class _Joining:
    """What a join has open; `undo` closes it. `shadow`: None if it is open already."""

    undo: ExitStack
    secondary: BitmapFile
    changes: Bitmap
    shadow: Volume | None
    shadow_undo: ExitStack


async def _open_in_time(
    instance: Instance, member: VolumeSet, path: str, accept_unclosed: bool
) -> _Joining:
    await instance.look_at_closed()
    await instance.check_answering(path, member.name)
    opening = partial(_open, instance, member, path, accept_unclosed)
    return await instance.lookout.ask(path, opening, lambda late: late.undo.close(), PATIENT_S)


def _open(instance: Instance, member: VolumeSet, path: str, accept_unclosed: bool) -> _Joining:
    with ExitStack() as undo:
        secondary, changes = _open_secondary(instance, member, path, accept_unclosed, undo)
        shadow, shadow_undo = None, undo.enter_context(ExitStack())
        if member.header.custody is Custody.EXPORTED:
            shadow = reopen_lent(instance, member)
            shadow_undo.callback(shadow.close)
        joining = _Joining(undo, secondary, changes, shadow, shadow_undo)
        _check_fingerprint(instance, member, joining)
        joining.undo = undo.pop_all()
        return joining


def _check_fingerprint(instance: Instance, member: VolumeSet, joining: _Joining) -> None:
    """Check the fingerprint of the shadow, unless other imports may have written to it."""
    shadow = joining.shadow or member.shadow
    this = joining.secondary.read_header().import_id
    if shadow is None or unjoined.are_known(instance, member.header, this):
        return
    noted = joining.changes.copy()
    noted.merge(member.bits.shadow)
    path = joining.secondary.volume.path
    lentshadow.check_join(shadow, ticket_of(instance, member.header), noted, path)


def _open_secondary(
    instance: Instance, member: VolumeSet, path: str, accept_unclosed: bool, undo: ExitStack
) -> tuple[BitmapFile, Bitmap]:
    header = member.header
    member.check_whole("-J")
    _check_exported(member)
    roles.check(instance, [(Part.BITMAP, path)])
    volume = instance.open_volume(path, exclusive=False)
    undo.callback(volume.close)
    volume.drop_cache()
    secondary = BitmapFile(volume)
    try:
        other = secondary.read_header()
        check_secondary(path, header, other, accept_unclosed=accept_unclosed)
        changes, damaged = secondary.read_bits(other, Region.SHADOW)
    except (errors.BadBitmap, OSError) as error:
        why = f"cannot be read as a bitmap ({errors.words(error)})"
        raise errors.BadSecondary(path, why) from error
    if damaged:
        raise errors.BadSecondary(path, "its bits are damaged (checksum)")
    return secondary, changes


def _check_exported(member: VolumeSet) -> None:
    header = member.header
    if header.custody is Custody.IMPORTED:
        raise errors.Refused(
            member.name,
            "is an import itself, not exported",
            how_to_end_custody(member.name, member.state),
        )
    if header.custody is Custody.EXPORTED and header.offline & Role.BITMAP:
        raise errors.Refused(
            member.name,
            "-J is not possible: its own bitmap volume has failed, and what was written to the "
            "master since the export is not known",
            how_to_end_custody(member.name, member.state),
        )
    if not header.export_number:
        raise errors.Refused(member.name, "is not exported", "only an exported set can be joined")


def check_secondary(path: str, main: Header, other: Header, *, accept_unclosed: bool) -> None:
    """Raise BadSecondary or NotClosed unless `other` is an import of this set's last export."""
    if other.role is not BitmapRole.IMPORTED:
        raise errors.BadSecondary(path, "is not the bitmap of an imported shadow")
    if other.uuid == main.uuid and other.import_id in main.joined:
        since = "" if other.pit.id == main.pit.id else ", and the set was updated since"
        raise errors.AlreadyJoined(path, f"this import was joined already{since}")
    pairs = (
        ("set", str(other.uuid), str(main.uuid)),
        ("PIT", other.pit.number, main.pit.number),
        ("PIT id", str(other.pit.id), str(main.pit.id)),
        ("export", other.export_number, main.export_number),
        ("size", other.size_bytes, main.size_bytes),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise errors.BadSecondary(
                path,
                f"is of another {what}: {theirs}, and {main.shadow} is at {ours}",
                _way_out(main),
            )
    if other.closure is Closure.OPEN and not accept_unclosed:
        raise errors.NotClosed(
            path,
            "was not closed on the host that imported the shadow",
            f"disable it there with {command('iiadm -d', other.shadow)}; if that host is lost, -n "
            "accepts the bitmap as it is",
        )


def _way_out(main: Header) -> str:
    """What to do when a bitmap is not of the last export, for people."""
    if main.custody is Custody.EXPORTED:
        return (
            "find the bitmap of this export, or give up what was written there: "
            f"{command('iiadm -R', main.shadow)} takes the shadow back with all chunks different"
        )
    return (
        "find the bitmap of its last export; if the shadow was written elsewhere and is to be as "
        f"its master again, {command('iiadm -c s', main.shadow)} copies everything"
    )


def reopen_lent(instance: Instance, member: VolumeSet) -> Volume:
    """Open a shadow that comes back from another host, and drop its cached pages. Blocks."""
    roles.check(instance, [(Part.SHADOW, member.name)], own=member)
    volume = instance.open_volume(member.name)
    try:
        check_size(volume, member.header.size_bytes, "the shadow")
        volume.drop_cache()
    except BaseException:
        volume.close()
        raise
    return volume


async def _merge(
    instance: Instance, member: VolumeSet, secondary: BitmapFile, changes: Bitmap
) -> None:
    """Merge the bits, sync them, commit the header. The gate is held, as all bits are written."""
    other = await instance.loop.blocking(secondary.read_header)
    joined = (*member.header.joined, other.import_id)
    theirs = Times() if changes.is_zero() else other.shadow_times
    view = instance.views.get(member.name)  # there is one if another import was joined before
    if view is not None and theirs != Times():
        await instance.changed(view, theirs.next_ns)
    async with instance.family(member).locks.gate():
        member.bits.shadow.merge(changes)
        times = member.header.shadow_times
        if view is None and theirs != Times():
            times = after([times, theirs], time.time_ns())
        try:
            await member.save_exact(custody=Custody.LOCAL, joined=joined, shadow_times=times)
        except OSError as error:
            raise errors.StorageError(
                member.header.bitmap, errors.words(error), "nothing was joined"
            ) from error
        await member.renew_bits()


def _end(instance: Instance, member: VolumeSet, secondary: BitmapFile) -> None:
    """Note in the bitmap, if it can be written, and in the ticket that the import is joined."""
    with suppress(OSError, errors.BadBitmap):
        header = secondary.read_header()
        HeaderLog(header, secondary).commit(closure=Closure.JOINED)
    end_export(instance, member.header)
