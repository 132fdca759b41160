"""Start and stop: every set comes back with its state, its group and its running copy.

A set that cannot come back whole comes back with volumes offline and the reason; it never stops
the others, and its master is served.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from iifuse import errors
from iifuse.core.bits import Bits
from iifuse.core.header import BitmapRole, Closure, Header, Stamp
from iifuse.core.sector import Region
from iifuse.core.state import NOTHING_OFFLINE, Custody, Kind, Progress, Role
from iifuse.engine.enable import finish_disable
from iifuse.engine.engine import Engine
from iifuse.engine.family import Family
from iifuse.engine.opening import check_size
from iifuse.engine.rollforward import roll_forward
from iifuse.engine.threads import blocking
from iifuse.engine.tickets import restore_ticket
from iifuse.engine.trust import Trouble, check_known, distrust, doubt_siblings, has_hints
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.statedb import SetRow
from iifuse.store.volume import Volume, open_volume

log = logging.getLogger(__name__)


async def start(engine: Engine) -> None:
    """Bring everything back that the state database names. Raises only on a defect.

    No file is shown before every set is back: a write that came earlier would be noted nowhere.
    """
    for path in await blocking(engine.db.volumes):
        await _open_master(engine, path)
    await bring_back(engine, await blocking(engine.db.sets))
    await _finish_transition(engine)
    for family in engine.families:
        await show(engine, family)
    start_copies(engine, engine.sets.values())


def start_copies(engine: Engine, members: Iterable[VolumeSet]) -> None:
    """Let the copies go on that ran when the sets were last in use."""
    for member in members:
        if member.header.copying:
            engine.start_copy(member)


async def bring_back(engine: Engine, rows: Iterable[SetRow]) -> list[VolumeSet]:
    """Load sets and make their headers say that they are in use; nothing is shown yet.

    The database knows a new session before the first header has it, and forgets the one before
    after the last has: a start that is cut short finds every header known.
    """
    found = [await _start_set(engine, row) for row in rows]
    members = [member for member in found if member is not None]
    before = {s.name: s.header.session for s in members}
    try:
        await blocking(partial(engine.db.begin_session, engine.session, before))
    except errors.StorageError:
        log.exception("the state database cannot be written, sets keep the session they have")
    else:
        for member in members:
            member.header = replace(member.header, session=engine.session)
    for member in members:
        if member.header.restored_offline:
            await doubt_siblings(member, engine.family(member).sets)
    for member in members:
        await _open_for_use(engine, member)
        for what in member.recovered:
            await engine.note(member, f"start: {what}")
    await _quietly(engine.db.end_session_change)
    return members


async def _quietly(call: Callable[[], None]) -> None:
    """For what a later start makes up for."""
    try:
        await blocking(call)
    except (errors.StorageError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect


async def show(engine: Engine, family: Family) -> None:
    """Put a family's files on the mount, those that are not there yet."""
    if family.master is not None and family.master.path not in engine.views:
        await engine.show_master(family)
    for member in family.sets:
        if member.shadow is not None and member.name not in engine.views:
            await engine.show_shadow(member)


async def stop(engine: Engine) -> None:
    """Let copies rest, make everything durable, write exact bits, mark all clean, close."""
    for member in engine.sets.values():
        await engine.stop_copy(member)
    for family in engine.families:
        async with family.locks.gate():
            for volume in [family.master, *(s.shadow for s in family.sets if not s.stuck)]:
                await _sync_last(volume, family)
            for member in family.sets:
                await _save(member, family.master)
                await _remember(engine, member)
        await blocking(partial(_close, family))


async def _sync_last(volume: Volume | None, family: Family) -> None:
    """A shadow that fails is offline when it comes back, whatever a later sync says."""
    if volume is None:
        return
    try:
        await blocking(volume.sync)
    except OSError as error:
        log.error("%s: the last sync failed: %s", volume.path, error)  # noqa: TRY400
        for member in family.sets:
            await member.lose(volume.path, str(error))


async def _save(member: VolumeSet, master: Volume | None) -> None:
    try:
        await member.save_exact(
            clean=not member.state.offline,
            master_stamp=_stamp(master),
            shadow_stamp=_stamp(member.shadow),
        )
    except OSError:
        log.exception("%s: the exact bits could not be saved", member.name)


async def _remember(engine: Engine, member: VolumeSet) -> None:
    """What the header says, which decides what may be shown should the bitmap be missing."""
    if member.bitmap is None:
        return
    try:
        await blocking(partial(engine.db.remember, member.header))
    except errors.StorageError as error:
        log.error("%s: %s", member.name, error)  # noqa: TRY400 - a disk's error, not a defect


def _stamp(volume: Volume | None) -> Stamp:
    """What a file looks like; a device gives no sign of having been written."""
    if volume is None or volume.is_device:
        return Stamp()
    found = volume.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _close(family: Family) -> None:
    for member in family.sets:
        member.close()
    if family.master is not None:
        family.master.close()


# -- one set --------------------------------------------------------------------------------


async def _start_set(engine: Engine, row: SetRow) -> VolumeSet | None:
    family = await _open_master(engine, row.master) if row.master else None
    member, trouble = await blocking(partial(_load, engine, row, family))
    if member.header.closure is not Closure.OPEN:
        await _quietly(partial(_forget_closed, engine, row, member))
        return None
    if row.closing:
        await _quietly(partial(engine.db.closing, row.shadow, False))
    if family is None or family.geometry != member.geometry:
        family = _family_without_master(engine, row, member)
        if row.master and not any(role & Role.MASTER for role, _ in trouble):
            trouble.insert(0, (Role.MASTER, "the master cannot be used"))
    engine.register(family, member)
    for role, reason in trouble:
        if not role:
            log.warning("%s: %s", member.name, reason)
        await member.take_offline(role, reason)
        member.recovered.append(reason)
    return member


def _forget_closed(engine: Engine, row: SetRow, member: VolumeSet) -> None:
    """In a thread: a disable that was cut short, or an end that this database never knew of.

    After the latter, a join while this service was down among them, the shadow may long be
    somebody else's: nothing of it is wiped.
    """
    if row.closing:
        finish_disable(engine, member)
        log.info("%s: the disable that was cut short is done", member.name)
        return
    log.warning("%s: was disabled or joined since this service last had it", member.name)
    engine.db.remove_set(member.name)
    member.close()


def _family_without_master(engine: Engine, row: SetRow, member: VolumeSet) -> Family:
    """Of an imported shadow, or of a master that cannot be used; siblings share it."""
    for family in engine.families:
        if family.path == row.master is not None and family.master is None:
            return family
    family = Family(row.master, None, member.geometry, ordered=engine.ordered)
    engine.families.append(family)
    return family


async def _open_for_use(engine: Engine, member: VolumeSet) -> None:
    """The header says unclean before anything can be written."""
    try:
        await member.commit(
            clean=False,
            boot_id=engine.boot_id,
            process_durability=not engine.ordered,
            restored_offline=False,
        )
    except OSError as error:
        await member.take_offline(Role.BITMAP, str(error))
    await _remember(engine, member)
    if member.header.custody is Custody.EXPORTED:
        try:
            await blocking(partial(restore_ticket, engine, member.header))
        except OSError:
            log.exception("%s: its ticket could not be written", member.name)


async def _open_master(engine: Engine, path: str) -> Family | None:
    for family in engine.families:
        if family.path == path and family.master is not None:
            return family
    try:
        volume = await blocking(partial(open_volume, path, exclusive=False))
    except errors.IifuseError as error:
        log.error("%s: this master cannot be served: %s", path, error)  # noqa: TRY400
        return None
    return engine.adopt(volume)


def _load(engine: Engine, row: SetRow, family: Family | None) -> tuple[VolumeSet, Trouble]:
    """In a thread: the set as its volumes tell, and what is wrong with it."""
    trouble: Trouble = []
    if row.doubt is not None:
        return _without_bitmap(row, row.doubt)
    try:
        bitmap, header, bits = _load_bitmap(engine, row, trouble)
    except (errors.IifuseError, OSError) as error:
        member, trouble = _without_bitmap(row, str(error))
        member.unnoted = not _doubted(engine, row, str(error))
        return member, trouble
    if row.master and family is None:
        trouble.append((_lost_with_master(header), "the master cannot be opened"))
    elif family and family.geometry != header.geometry:
        trouble.append((Role.MASTER | Role.SHADOW, _resized(header, family)))
    elif header.offline & Role.MASTER:
        header = replace(header, offline=header.offline & ~Role.MASTER)
        # It could not be opened at an earlier start; who knows who wrote it.
        reason = "its master was away and may have been written meanwhile"
        trouble += _doubt_all(bitmap, header, bits, reason)
    shadow = _load_shadow(header, trouble)
    written = _written_meanwhile(header, family.master if family else None, shadow)
    if written:
        trouble += _doubt_all(bitmap, header, bits, written)
    return VolumeSet(header, bits, shadow, bitmap, row.group), trouble


def _doubted(engine: Engine, row: SetRow, reason: str) -> bool:
    """From now on writes are not noted in the bitmap; was that noted? Else they get EIO."""
    try:
        engine.db.doubt(row.shadow, reason)
    except errors.StorageError:
        log.critical("%s: that %s can be noted nowhere, writes fail now", row.shadow, reason)
        return False
    return True


def _written_meanwhile(header: Header, master: Volume | None, shadow: Volume | None) -> str | None:
    """Why a volume must have been written behind our back since the last clean stop, if so."""
    if not header.clean:
        return None
    pairs = (("master", header.master_stamp, master), ("shadow", header.shadow_stamp, shadow))
    for what, stamp, volume in pairs:
        if volume is not None and stamp != Stamp() and stamp != _stamp(volume):
            return f"the {what} was written or replaced while the service was down"
    return None


def _doubt_all(bitmap: BitmapFile, header: Header, bits: Bits, reason: str) -> Trouble:
    """The volumes were or may have been written past us: any chunk may differ."""
    if not has_hints(header):
        return [(Role.SHADOW, reason)]
    bits.shadow.fill()
    bitmap.write_region(header, Region.SHADOW, bits.shadow)
    return [(NOTHING_OFFLINE, f"{reason}: all chunks count as different")]


def _resized(header: Header, family: Family) -> str:
    return (
        f"the master has {family.geometry.size_bytes} bytes and the set is of "
        f"{header.size_bytes}; disable the set (-d) and enable it anew"
    )


def _lost_with_master(header: Header) -> Role:
    """A shadow that is whole stays readable without its master."""
    whole = header.kind is Kind.INDEPENDENT and header.progress is not Progress.TO_SHADOW
    return Role.MASTER if whole else Role.MASTER | Role.SHADOW


def _without_bitmap(row: SetRow, reason: str) -> tuple[VolumeSet, Trouble]:
    """What is safe to show of a set whose bits are not known.

    Idle and independent: all chunks differ. An independent set that restored: the restore is begun
    anew, the master shows its point in time, and takes writes again after -R. A dependent one that
    restored: nobody knows which chunks of the master are right, so none is shown. Else nobody
    knows what the shadow holds.
    """
    header = Header(
        uuid=row.uuid, kind=row.kind, size_bytes=row.size_bytes,
        master=row.master or "", shadow=row.shadow, bitmap=row.bitmap, custody=row.custody,
        role=BitmapRole.MAIN if row.master else BitmapRole.IMPORTED,
        session=row.session, sequence=row.sequence,
    )  # fmt: skip
    bits = Bits.blank(header.geometry.chunks)
    trouble: Trouble = [(Role.BITMAP, reason)]
    if row.progress is Progress.TO_MASTER:
        header = replace(header, progress=Progress.TO_MASTER)
        bits.copy.fill()
    independent = row.kind is Kind.INDEPENDENT
    if independent and row.progress is Progress.IDLE:
        bits.shadow.fill()
    elif not (independent and row.progress is Progress.TO_MASTER):
        trouble.append((Role.SHADOW, reason))
    shadow = _load_shadow(header, trouble)
    member = VolumeSet(header, bits, shadow, None, row.group)
    member.bits_known = False
    return member, trouble


def _load_shadow(header: Header, trouble: Trouble) -> Volume | None:
    if header.custody is Custody.EXPORTED:
        return None
    try:
        shadow = open_volume(header.shadow, exclusive=False)
    except errors.IifuseError as error:
        trouble.append((Role.SHADOW, str(error)))
        return None
    try:
        check_size(shadow, header.size_bytes, "the shadow")
        shadow.sync()  # what a killed service wrote there must be durable before its bits count
    except (errors.IifuseError, OSError) as error:
        trouble.append((Role.SHADOW, str(error)))
        shadow.close()
        return None
    return shadow


def _load_bitmap(engine: Engine, row: SetRow, trouble: Trouble) -> tuple[BitmapFile, Header, Bits]:
    """Header and bits, a pending change repeated. Raises BadBitmap, BadVolume, OSError."""
    volume = open_volume(row.bitmap, exclusive=False)
    try:
        bitmap = BitmapFile(volume)
        volume.sync()
        header = bitmap.read_header()
        check_known(row, header)
        shadow, damaged_shadow = bitmap.read_bits(header, Region.SHADOW)
        copy, damaged_copy = bitmap.read_bits(header, Region.COPY)
        before = header.pit.number
        header, shadow, copy = roll_forward(engine, bitmap, header, shadow, copy)
        if header.pit.number != before:
            done = f"point in time {header.pit.number}, which was cut short, is completed"
            trouble.append((NOTHING_OFFLINE, done))
        damaged = (damaged_shadow, damaged_copy)
        changed = distrust(engine, header, Bits(shadow, copy), damaged, trouble)
        # After a sync that failed the page cache may show bits that never reached the disk.
        if changed or not (header.clean or any(damaged)):
            bitmap.write_region(header, Region.SHADOW, shadow)
            bitmap.write_region(header, Region.COPY, copy)
        elif header.clean and not any(damaged):
            bitmap.believe(header, Region.SHADOW, shadow)
            bitmap.believe(header, Region.COPY, copy)
    except BaseException:
        volume.close()
        raise
    return bitmap, header, Bits(shadow, copy)


async def _finish_transition(engine: Engine) -> None:
    """Forget a group's record once all its members have followed; a missing one may come later."""
    transition = engine.transitions.transition
    if transition is None:
        return
    here = {s.key: s for s in engine.sets.values() if s.bitmap is not None}
    if all(m.uuid in here for m in transition.members):
        await blocking(engine.transitions.finish)
