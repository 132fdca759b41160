"""One set as its volumes tell at a start: what is read, and what of it is believed."""

import logging
from dataclasses import replace

from iifuse import errors
from iifuse.core.bits import Bits
from iifuse.core.header import BitmapRole, Header, Stamp
from iifuse.core.sector import Region
from iifuse.core.state import NOTHING_OFFLINE, Custody, Kind, Progress, Role
from iifuse.engine.dated import in_doubt
from iifuse.engine.engine import Engine
from iifuse.engine.family import Family
from iifuse.engine.opening import check_size
from iifuse.engine.rollforward import roll_forward
from iifuse.engine.trust import Trouble, check_known, distrust, has_hints
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.stamp import stamp
from iifuse.store.statedb import SetRow
from iifuse.store.volume import Volume, open_volume

log = logging.getLogger(__name__)


def load(engine: Engine, row: SetRow, family: Family | None) -> tuple[VolumeSet, Trouble]:
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
    header = in_doubt(header) if trouble else _with_times(engine, header)
    if row.master and family is None:
        trouble.append((_lost_with_master(header), "the master cannot be opened"))
    elif family and family.geometry != header.geometry:
        trouble.append((Role.MASTER | Role.SHADOW, _resized(header, family)))
    elif header.offline & Role.MASTER:
        header = replace(header, offline=header.offline & ~Role.MASTER)
        # It could not be opened at an earlier start; who knows who wrote it.
        reason = "its master was away and may have been written meanwhile"
        header = in_doubt(header)
        trouble += _doubt_all(bitmap, header, bits, reason)
    shadow = _load_shadow(header, trouble)
    written = _written_meanwhile(header, family.master if family else None, shadow)
    if written:
        header = in_doubt(header)
        trouble += _doubt_all(bitmap, header, bits, written)
    return VolumeSet(header, bits, shadow, bitmap, row.group), trouble


def _with_times(engine: Engine, header: Header) -> Header:
    """The header with its times in doubt if it could not say what its files have shown since.

    A power loss may have brought back an older content, which is noted as quiet only when it is
    durable: but not so with durability=process.
    """
    power_loss = not header.clean and header.boot_id != engine.boot_id
    if header.offline & Role.BITMAP or header.restored_offline:
        return in_doubt(header)
    return in_doubt(header) if power_loss and header.process_durability else header


def has_header(row: SetRow) -> bool:
    """In a thread: is the set of this row there, as far as its bitmap volume tells?"""
    try:
        volume = open_volume(row.bitmap, exclusive=False)
    except errors.IifuseError:
        return False
    try:
        return BitmapFile(volume).read_header().uuid == row.uuid
    except (errors.IifuseError, OSError):
        return False
    finally:
        volume.close()


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
    for what, then, volume in pairs:
        if volume is not None and then != Stamp() and then != stamp(volume):
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
    header = in_doubt(header)
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
