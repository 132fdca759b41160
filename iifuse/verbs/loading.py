"""One set as its volumes tell at a start: what is read, and what of it is believed."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from iifuse import errors
from iifuse.core.bits import Bits
from iifuse.core.header import BitmapRole, Closure, Header
from iifuse.core.missing import Missing, same_file, without_bits
from iifuse.core.sector import Region
from iifuse.core.state import NOTHING_OFFLINE, Custody, Progress, Role
from iifuse.core.transition import unfinished
from iifuse.data.timedfile import in_doubt
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.host.trust import Trouble, believe, check_known
from iifuse.loop.lookout import BULK_S
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.headerlog import HeaderLog
from iifuse.store.presence import STRANGER, Away, file_of, is_absence, misfit, open_meant, probe
from iifuse.store.setrow import SetRow
from iifuse.store.stamp import written_since
from iifuse.store.volume import Volume
from iifuse.units import command
from iifuse.verbs.opening import check_size
from iifuse.verbs.rollforward import roll_forward

logger = logging.getLogger(__name__)


@dataclass
class Found:
    """How master and shadow of a set were found."""

    shadow: Volume | None = None
    missing: dict[Role, Missing] = field(default_factory=dict)
    trouble: Trouble = field(default_factory=list)
    shadow_is_silent: bool = False
    """Does the shadow not answer? It is missing then, too."""
    doubt: str | None = None
    """Why the volumes were, or may have been, written past us: any chunk may differ."""

    @property
    def has_no_master(self) -> bool:
        """Has the set to do without the master that stands there?"""
        return Role.MASTER in self.missing or any(role & Role.MASTER for role, _ in self.trouble)

    @property
    def knows_nothing_of_its_end(self) -> bool:
        """Is the bitmap away, which alone can tell whether a disable has come to its end?"""
        return Role.BITMAP in self.missing


Loaded = tuple[VolumeSet, Found]


async def load(instance: Instance, row: SetRow) -> Loaded:
    """The set as its bitmap volume tells, and what is wrong with it; see `look_at_volumes`.

    A bitmap volume that did not answer when all were heard is waited for; others may take their
    time.
    """
    found = Found()
    if row.doubt is not None:
        return _without_bitmap(instance, row, row.doubt, found), found
    read = partial(load_bitmap, instance, row, found.trouble)
    try:
        log, bits = await instance.lookout.ask(row.bitmap, read, close_late, BULK_S)
    except (Away, errors.NoAnswer) as error:
        found = Found()
        away = error.missing if isinstance(error, Away) else missing_by(error)
        return _awaiting_bitmap(instance, row, away, found), found
    except (errors.IifuseError, OSError) as error:
        found = Found()
        member = _without_bitmap(instance, row, errors.words(error), found)
        doubt = partial(doubted, instance, row, errors.words(error))
        member.log.is_unnoted = not await instance.loop.blocking(doubt)
        return member, found
    log.amend(with_times(instance, log.header, found.trouble))
    return VolumeSet(instance.loop, log, bits, None, row.group), found


def close_late(loaded: tuple[HeaderLog, Bits]) -> None:
    """The same of one that was loaded too late."""
    close(loaded[0])


def close(log: HeaderLog) -> None:
    """Give up the bitmap volume of a set that is not to be. Blocks."""
    if log.bitmap is not None:
        log.bitmap.volume.close()


def _awaiting_bitmap(
    instance: Instance, row: SetRow, missing: Missing, found: Found
) -> VolumeSet:
    header = _stand_in(row)
    bits = Bits.blank(header.geometry.chunks)
    if header.state.restoring:
        bits.copy.fill()  # the master shows nothing then that the shadow may have to show
    found.missing[Role.BITMAP] = missing
    return VolumeSet(instance.loop, instance.header_log(header, None), bits, None, row.group)


def with_times(instance: Instance, header: Header, trouble: Trouble) -> Header:
    """The header with its times in doubt if it could not say what its files have shown since.

    A power loss may have brought back an older content, which is noted as quiet only when it is
    durable: but not so with durability=process.
    """
    power_loss = not header.clean and header.boot_id != instance.boot_id
    if trouble or header.offline & Role.BITMAP or header.restored_offline:
        return in_doubt(header)
    return in_doubt(header) if power_loss and header.process_durability else header


def has_header(instance: Instance, row: SetRow) -> bool:
    """In a thread: has the set whose enable or import had begun got its header?

    Another one with its UUID may be there: that of an import of an earlier export. Raises Busy and
    InUse where that cannot be told now.
    """
    try:
        volume = instance.open_volume(row.bitmap, exclusive=False)
    except (errors.Busy, errors.InUse):  # nobody can tell now
        raise
    except errors.IifuseError:
        return False
    try:
        header = BitmapFile(volume).read_header()
    except (errors.IifuseError, OSError):
        return False
    finally:
        volume.close()
    known = header.uuid == row.uuid and header.session in (row.session, row.previous)
    return known and header.closure is Closure.OPEN


def doubted(instance: Instance, row: SetRow, reason: str) -> bool:
    """From now on writes are not noted in the bitmap; was that noted? Else they get EIO."""
    try:
        instance.db.doubt(row.shadow, reason)
    except errors.StorageError:
        logger.critical("%s: that %s can be noted nowhere, writes fail now", row.shadow, reason)
        return False
    return True


async def look_at_volumes(
    instance: Instance,
    member: VolumeSet,
    master: Volume | Missing | None,
    found: Found,
) -> None:
    """Open the shadow if it is not, and find out whether both are what they were.

    `master`: None for an imported shadow. The set itself is left as it is.
    """
    header = member.header
    if master is not None and not _is_master(header, master, found):
        master = None
    elif header.offline & Role.MASTER:
        found.doubt = "its master was away and may have been written meanwhile"
    # Of a volume that is in use already the stamp moves with what is written through us.
    if isinstance(master, Volume) and _is_new(member, Role.MASTER):
        found.doubt = found.doubt or await _doubt_of_master(instance, header, master)
    await _look_at_shadow(instance, member, found)


async def _doubt_of_master(instance: Instance, header: Header, master: Volume) -> str | None:
    look = partial(written_meanwhile, header, master, None)
    return await _answered(instance, master, "master", look)


async def _doubt_of_shadow(instance: Instance, header: Header, shadow: Volume) -> str | None:
    look = partial(written_meanwhile, header, None, shadow)
    return await _answered(instance, shadow, "shadow", look)


async def _answered(
    instance: Instance, volume: Volume, what: str, look: Callable[[], str | None]
) -> str | None:
    """Why a volume may have been written; one that does not answer may have been."""
    try:
        return await instance.lookout.ask(volume.path, look)
    except errors.NoAnswer:
        return f"the {what} does not say whether it was written while the service was down"


async def doubt_again(
    instance: Instance, member: VolumeSet, master: Volume, found: Found
) -> None:
    """What was written to the master since it was looked at is noted for nobody.

    Under the gate of a master that others have in use, before the set comes to it.
    """
    if not found.has_no_master and _is_new(member, Role.MASTER):
        found.doubt = found.doubt or await _doubt_of_master(instance, member.header, master)


async def _look_at_shadow(instance: Instance, member: VolumeSet, found: Found) -> None:
    """Open it, if it is not. While it does not answer it counts as not there."""
    shadow = member.shadow
    if member.header.custody is Custody.EXPORTED:
        return
    if shadow is not None and same_file(member.header.shadow_file, file_of(shadow)):
        found.shadow = shadow
        if _is_new(member, Role.SHADOW):
            found.doubt = found.doubt or await _doubt_of_shadow(instance, member.header, shadow)
        return
    look = partial(_find_shadow, instance, member)
    try:
        seen = await instance.lookout.ask(member.name, look, _close_shadow, BULK_S)
    except errors.NoAnswer as error:
        seen = Found(missing={Role.SHADOW: missing_by(error)})
        found.shadow_is_silent = True
    found.shadow, found.doubt = seen.shadow, found.doubt or seen.doubt
    found.missing |= seen.missing
    found.trouble += seen.trouble


def _close_shadow(late: Found) -> None:
    if late.shadow is not None:
        late.shadow.close()


def missing_by(error: errors.IifuseError) -> Missing:
    """A volume that could not be opened, as something to wait for."""
    return Missing(f"{error.subject} {error.why}", stranger=not is_absence(error))


def _is_new(member: VolumeSet, role: Role) -> bool:
    return not member.in_use or member.lacks(role)


def _is_master(header: Header, master: Volume | Missing, found: Found) -> bool:
    size_bytes = header.size_bytes
    if isinstance(master, Missing):
        found.missing[Role.MASTER] = master
    elif not same_file(header.master_file, file_of(master)):
        found.missing[Role.MASTER] = Missing(f"{master.path} {STRANGER}", stranger=True)
    elif master.is_device and master.size_bytes != size_bytes:
        why = f"{master.path} has {master.size_bytes} bytes, and the set is of {size_bytes}"
        found.missing[Role.MASTER] = Missing(why, stranger=True)
    elif master.size_bytes != size_bytes:
        found.trouble.append((Role.MASTER | Role.SHADOW, _resized(header, master)))
    else:
        return True
    return False


def written_meanwhile(header: Header, master: Volume | None, shadow: Volume | None) -> str | None:
    """Why a volume must have been written behind our back since we had it last, if so."""
    what = written_since(header, master, shadow)
    return f"the {what} was written or replaced while the service was down" if what else None


def _resized(header: Header, master: Volume) -> str:
    return (
        f"the master has {master.size_bytes} bytes and the set is of "
        f"{header.size_bytes}; disable the set with {command('iiadm -d', header.shadow)} and "
        "enable it anew"
    )


def _stand_in(row: SetRow) -> Header:
    """What the state database knows of a set whose bitmap volume is not there."""
    header = Header(
        uuid=row.uuid, kind=row.kind, size_bytes=row.size_bytes,
        master=row.master or "", shadow=row.shadow, bitmap=row.bitmap, custody=row.custody,
        role=BitmapRole.MAIN if row.master else BitmapRole.IMPORTED,
        session=row.session, sequence=row.sequence, progress=row.progress,
        master_file=row.master_file, shadow_file=row.shadow_file,
    )  # fmt: skip
    return in_doubt(header)


def _without_bitmap(instance: Instance, row: SetRow, reason: str, found: Found) -> VolumeSet:
    """What is safe to show of a set whose bits are not known (`without_bits`)."""
    header = _stand_in(row)
    roles, bits = without_bits(header.state, header.geometry.chunks)
    if row.progress is not Progress.TO_MASTER:
        header = replace(header, progress=Progress.IDLE)
    found.trouble.append((roles, reason))
    member = VolumeSet(instance.loop, instance.header_log(header, None), bits, None, row.group)
    member.bits_known = False
    return member


def _find_shadow(instance: Instance, member: VolumeSet) -> Found:
    """In a thread: the shadow, open, or what is wrong with it."""
    found, header = Found(), member.header
    if member.shadow is not None:  # opened before its bitmap told which one is meant
        member.shadow.close()
    found.shadow = _open_shadow(instance, header, found)
    if _is_new(member, Role.SHADOW):
        found.doubt = written_meanwhile(header, None, found.shadow)
    return found


def _open_shadow(instance: Instance, header: Header, found: Found) -> Volume | None:
    try:
        shadow = open_meant(
            instance.open_volume, header.shadow, header.shadow_file, header.size_bytes
        )
    except Away as away:
        found.missing[Role.SHADOW] = away.missing
        return None
    except errors.IifuseError as error:
        found.trouble.append((Role.SHADOW, errors.words(error)))
        return None
    try:
        check_size(shadow, header.size_bytes, "the shadow")
        shadow.sync()  # what a killed service wrote there must be durable before its bits count
    except (errors.IifuseError, OSError) as error:
        found.trouble.append((Role.SHADOW, errors.words(error)))
        shadow.close()
        return None
    return shadow


def _open_bitmap(instance: Instance, row: SetRow) -> Volume:
    """Raises Away where it is not there; what else is wrong with it, the set cannot wait for."""
    try:
        return instance.open_volume(row.bitmap, exclusive=False)
    except errors.IifuseError as error:
        absent = is_absence(error)
        if absent or misfit(row.bitmap, row.bitmap_file, probe(row.bitmap)):
            raise Away(missing_by(error)) from error
        raise


def load_bitmap(
    instance: Instance, row: SetRow, trouble: Trouble
) -> tuple[HeaderLog, Bits]:
    """Header and bits, a pending change repeated. Raises Away, BadBitmap, BadVolume, OSError.

    A file that is not believed and is not the one that the set had says nothing of that one, which
    may be back: Away.
    """
    volume = _open_bitmap(instance, row)
    try:
        bitmap = BitmapFile(volume)
        volume.sync()
        header = bitmap.read_header()
        check_known(row, header, file_of(volume))
        log = instance.header_log(header, bitmap)
        shadow, damaged_shadow = bitmap.read_bits(header, Region.SHADOW)
        copy, damaged_copy = bitmap.read_bits(header, Region.COPY)
        damaged = (damaged_shadow, damaged_copy)
        pending = unfinished(instance.transitions.standing, header)
        changed = believe(instance, pending or header, Bits(shadow, copy), damaged, trouble)
        if pending is not None:  # from the bits that count
            header, shadow, copy = roll_forward(log, pending, shadow, copy)
            done = f"point in time {header.pit.number}, which was cut short, is completed"
            trouble.append((NOTHING_OFFLINE, done))
        # After a sync that failed the page cache may show bits that never reached the disk.
        if changed or not (header.clean or any(damaged)):
            bitmap.write_region(header, Region.SHADOW, shadow)
            bitmap.write_region(header, Region.COPY, copy)
        elif header.clean and not any(damaged):
            bitmap.believe(header, Region.SHADOW, shadow)
            bitmap.believe(header, Region.COPY, copy)
    except errors.BadBitmap as error:
        is_meant = same_file(row.bitmap_file, file_of(volume))
        volume.close()
        if is_meant:
            raise
        raise Away(Missing(errors.words(error), stranger=True)) from error
    except BaseException:
        volume.close()
        raise
    return log, Bits(shadow, copy)
