"""Open the volumes of a set again that were lost, or others in their place (`iiadm -R`)."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

from iifuse import errors
from iifuse.core import loss, sector
from iifuse.core import state as states
from iifuse.core.header import FileId, Header
from iifuse.core.missing import same_file
from iifuse.core.state import Custody, Kind, Progress, Role
from iifuse.data.family import Family
from iifuse.data.timedfile import in_doubt
from iifuse.data.volumeset import VolumeSet
from iifuse.host import astray, roles
from iifuse.host.instance import Instance
from iifuse.host.roles import Part
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import file_of
from iifuse.store.volume import Volume, close_all
from iifuse.verbs import recovery
from iifuse.verbs.opening import check_size, open_or_create
from iifuse.verbs.overwriting import needs_shadow

Lost = dict[Role, Volume]
"""The volumes that were offline, opened again."""


async def replace_lost(instance: Instance, member: VolumeSet, lost: Role) -> None:
    """Close and open again what is offline; all of it, or it raises.

    The gates are open while the volumes are: programs do not wait for a disk that may hang.
    """
    family = instance.family(member)
    closed = lost
    if member.shadow is not None and not member.state.offline & Role.SHADOW:
        closed &= ~Role.SHADOW  # a bitmap that is given up makes it worthless, and it is there
    parts = _parts(member.header, closed)
    check = partial(roles.check, instance, list(parts.items()), own=member)
    await instance.look_at_closed()
    await instance.lookout.ask(member.name, check)
    async with family.locks.everything():
        old = _take_out(member, closed)
    close = partial(close_all, old)  # their locks are in our own way
    await instance.lookout.ask(member.name, close)
    standing = instance.standing_at(family.path) if family.master is None else None
    volumes = await _open_lost(instance, member, family, standing, closed)
    try:
        async with family.locks.everything():
            await _put_in(instance, member, standing, lost, volumes)
    except BaseException:
        # Their locks would be in the way of the next -R.
        left = [v for v in volumes.values() if not instance.has_master(v)]
        await instance.loop.blocking(partial(close_all, left))
        raise


def _parts(header: Header, roles_: Role) -> dict[Part, str]:
    """What a set's volumes are to it, and where they are."""
    names = (
        (Role.MASTER, Part.MASTER, header.master), (Role.SHADOW, Part.SHADOW, header.shadow),
        (Role.BITMAP, Part.BITMAP, header.bitmap),
    )  # fmt: skip
    return {part: name for role, part, name in names if role & roles_}


def _take_out(member: VolumeSet, closed: Role) -> list[Volume]:
    """Of a set that nothing runs on: the old volumes, which have failed."""
    old = []
    if closed & Role.SHADOW and member.shadow is not None:
        old.append(member.shadow)
        member.shadow = None
    if closed & Role.BITMAP and member.bitmap is not None:
        old.append(member.bitmap.volume)
        member.log.bitmap = None
    return old


async def _put_in(
    instance: Instance, member: VolumeSet, standing: Family | None, lost: Role, volumes: Lost
) -> None:
    """What has been put in its place is taken out of `volumes`."""
    family = instance.family(member)
    for role, missing in list(member.missing.items()):  # its place is taken: no way back
        if role & lost:
            await member.wait_no_longer(role, f"{missing.why}, and was given up (-R)")
    if Role.SHADOW in volumes:
        member.shadow = volumes.pop(Role.SHADOW)
    if Role.BITMAP in volumes:
        member.log.bitmap = BitmapFile(volumes.pop(Role.BITMAP))
        await _rewrite_bitmap(instance, member)
    if Role.MASTER in volumes:
        await _adopt_master(instance, member, family, volumes[Role.MASTER], standing)
    await recovery.note_use(instance, [member])


async def _open_lost(
    instance: Instance, member: VolumeSet, family: Family, standing: Family | None, lost: Role
) -> Lost:
    """All of them, or none is open or made. Raises NoAnswer too."""
    header, ask = member.header, instance.lookout.ask
    found: Lost = {}
    undo = ExitStack()
    async with instance.loop.closing_in_thread(undo):
        ways = []
        if lost & Role.SHADOW:
            ways.append((Role.SHADOW, header.shadow, partial(_open_shadow, instance, header)))
        if lost & Role.BITMAP:
            ways.append((Role.BITMAP, header.bitmap, partial(_open_bitmap, instance, member)))
        if lost & Role.MASTER and family.master is None:
            way = partial(_open_master, instance, header, standing)
            ways.append((Role.MASTER, header.master, way))
        for role, path, way in ways:
            found[role], done = await ask(path, partial(_undoable, way), lambda new: new[1].close())
            undo.push(done)
        undo.pop_all()
    return found


def _undoable(way: Callable[[ExitStack], Volume]) -> tuple[Volume, ExitStack]:
    """In a thread: a volume, and what closes it and removes what was made for it."""
    with ExitStack() as undo:
        return way(undo), undo.pop_all()


def _open_shadow(instance: Instance, header: Header, undo: ExitStack) -> Volume:
    """A new one may take the place of a shadow that is copied anew, never of one that is needed."""
    if not needs_shadow(header):
        shadow = open_or_create(instance, header.shadow, header.size_bytes, undo, sparse=True)
    else:
        shadow = instance.open_volume(header.shadow)
        undo.callback(shadow.close)
        if not same_file(header.shadow_file, file_of(shadow)):
            raise errors.BadVolume(
                header.shadow,
                f"is another one than the shadow that holds {loss.point_in_time(header)}",
                "put the right one back",
            )
    check_size(shadow, header.size_bytes, "the shadow")
    return shadow


def _open_bitmap(instance: Instance, member: VolumeSet, undo: ExitStack) -> Volume:
    header = member.header
    need = sector.bitmap_bytes(header.geometry.chunks)
    bitmap = open_or_create(instance, header.bitmap, need, undo, sparse=False)
    check_size(bitmap, need, "the bitmap")
    _recalled(member, BitmapFile(bitmap))  # refused before anything is given up
    return bitmap


def _open_master(
    instance: Instance, header: Header, standing: Family | None, undo: ExitStack
) -> Volume:
    if standing is not None and standing.master is not None:
        master = standing.master
        astray.check(instance, master, "-R")
    else:
        master = instance.open_volume(header.master)
        undo.callback(master.close)
    _check_replacement(master, header.size_bytes)
    return master


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
        await sibling.wait_no_longer(Role.BITMAP, why)
    if not own:
        await sibling.take_offline(Role.SHADOW, why)
    elif sibling.state.progress is Progress.IDLE:
        why = sibling.header.offline_reason  # of a shadow that failed before
    sibling.bits.shadow.fill()
    await sibling.save_exact(mended=Role.MASTER, offline_reason=why)
