"""Which bits of a bitmap volume may be believed after a start."""

import logging
from collections.abc import Iterable

from iifuse import errors
from iifuse.core.bitmap import Bitmap, runs_of
from iifuse.core.bits import Bits
from iifuse.core.header import BitmapRole, Closure, FileId, Header
from iifuse.core.missing import same_file
from iifuse.core.state import NOTHING_OFFLINE, Kind, Progress, Role
from iifuse.engine.engine import Engine
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.setrow import SetRow
from iifuse.units import Run

log = logging.getLogger(__name__)

Trouble = list[tuple[Role, str]]
"""What has to go offline and why; or with no role, what was done about it."""

Damaged = tuple[list[Run], list[Run]]
"""Runs of chunks whose shadow bits, and whose copy bits, cannot be believed."""


def check_known(row: SetRow, header: Header, file: FileId) -> None:
    """Raise BadBitmap unless it is the bitmap volume that this service last had in use (F14).

    A bitmap of its import has the set's UUID too; an older copy of its own lacks bits. A copy that
    was made while the set was in use is known by its file: the header in it is the same.
    """
    role = BitmapRole.MAIN if row.master else BitmapRole.IMPORTED
    pairs = (
        ("set", header.uuid, row.uuid),
        ("role", header.role.name.lower(), role.name.lower()),
        ("size", header.size_bytes, row.size_bytes),
        ("kind", header.kind.name.lower(), row.kind.name.lower()),
        ("shadow", header.shadow, row.shadow),
        ("master", header.master, row.master or header.master),
    )
    for what, found, wanted in pairs:
        if found != wanted:
            why = f"belongs to another {what}: {found}, and the set has {wanted}"
            raise errors.BadBitmap(row.bitmap, why)
    known = header.session in (row.session, row.previous) and header.sequence >= row.sequence
    if not header.clean and not same_file(row.bitmap_file, file):
        known = False
    if header.closure is not Closure.CLOSED and not known:
        raise errors.BadBitmap(
            row.bitmap,
            "is not as this service left it: an older copy, or one that another service used since",
        )


def distrust(
    engine: Engine, header: Header, bits: Bits, damaged: Damaged, trouble: Trouble
) -> bool:
    """Damaged bits, and bits that a power loss may have overtaken. True: bits were set.

    `damaged`: runs of shadow bits and of copy bits. Raises BadBitmap for a dependent set that
    restores: nothing can be said of it.
    """
    reason = "sectors of its bitmap are damaged"
    if header.process_durability and not header.clean and header.boot_id != engine.boot_id:
        damaged = ([(0, bits.chunks)], [(0, bits.chunks)])
        reason = "the machine went down under durability=process"
    runs = damaged[0] + damaged[1]
    if not runs:
        return False
    if has_hints(header):
        trouble.append((NOTHING_OFFLINE, f"{reason}: these chunks count as changed"))
        bits.shadow.set_runs(runs)
        return True
    if header.kind is Kind.INDEPENDENT and not set(damaged[0]) & set(damaged[1]):
        trouble.append((NOTHING_OFFLINE, f"{reason}: the other bitmap stands in"))
        _stand_in(bits.shadow, bits.copy, damaged[0])
        _stand_in(bits.copy, bits.shadow, damaged[1])
        return True
    return _doubt(header, bits, runs, reason, trouble)


def _stand_in(lost: Bitmap, whole: Bitmap, runs: list[Run]) -> None:
    """During a copy no chunk has both bits: what the one does not claim may be the other's."""
    for first, count in runs:
        word = ~whole.word(first, count) & ((1 << count) - 1)
        lost.set_runs(runs_of(word, first))


def _doubt(header: Header, bits: Bits, runs: list[Run], reason: str, trouble: Trouble) -> bool:
    if header.progress is not Progress.TO_MASTER:
        trouble.append((Role.SHADOW, reason))
        return False
    if header.kind is Kind.DEPENDENT:
        raise errors.BadBitmap(header.bitmap, f"{reason} in the middle of a restore")
    bits.shadow.clear_runs(runs)
    bits.copy.set_runs(runs)  # restored anew; the master takes writes there after -R
    trouble.append((Role.BITMAP, reason))
    return True


def has_hints(header: Header) -> bool:
    """Do bits only say where the volumes may differ? Then more of them do no harm."""
    return header.kind is Kind.INDEPENDENT and header.progress is Progress.IDLE


async def doubt_siblings(restored: VolumeSet, sets: Iterable[VolumeSet]) -> None:
    """A restore of `restored` wrote to the master while no service preserved for its other sets."""
    for member in sets:
        if member is not restored:
            reason = f"its master was overwritten by 'iibitmap finish' of {restored.name}"
            await doubt_all(member, reason)


async def doubt_all(member: VolumeSet, reason: str) -> None:
    """The volumes of a set were, or may have been, written past us; nothing else runs on it.

    Idle and independent: all chunks differ. Else the point in time was in part on the master.
    """
    if not has_hints(member.header) or member.lacks(Role.BITMAP):
        await member.take_offline(Role.SHADOW, reason)
        return
    log.warning("%s: %s: all chunks count as different", member.name, reason)
    member.recovered.append(f"{reason}: all chunks count as different")
    member.bits.shadow.fill()
    try:
        await member.save_exact()
    except OSError as error:
        await member.take_offline(Role.BITMAP, errors.words(error))
    await member.renew_bits()
