"""Which bits of a bitmap volume may be believed after a start (docs/decisions/recovery.md)."""

import logging
from collections.abc import Iterable

from iifuse import errors
from iifuse.core.believe import (
    OFFLINE,
    Damage,
    Meaning,
    bits_may_be_lost,
    replace_lost_bits,
)
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.header import BitmapRole, Closure, FileId, Header
from iifuse.core.missing import same_file
from iifuse.core.state import NOTHING_OFFLINE, Role
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store.setrow import SetRow

log = logging.getLogger(__name__)

Trouble = list[tuple[Role, str]]
"""(volumes that have to go offline, why). With no volume, the text says what was repaired."""


def check_known(row: SetRow, header: Header, file: FileId) -> None:
    """Raise BadBitmap unless this is the bitmap volume that the service had in use last (F14).

    The bitmap of an import has the UUID of the set as well. An older copy of the right volume lacks
    bits. A copy that was made while the set was in use has the same header, and is recognised by
    its file.
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


def believe(
    instance: Instance, header: Header, bits: Bits, damage: Damage, trouble: Trouble
) -> bool:
    """Replace lost bits by safe ones (core.believe). True: bits were set.

    Raises BadBitmap for a dependent set in a restore, whose lost bits cannot be replaced.
    """
    reason = "sectors of its bitmap are damaged"
    if bits_may_be_lost(header, instance.boot_id):
        everything = range(len(bits.shadow.packed))
        damage = (everything, everything)
        reason = "the machine went down under durability=process"
    inside = Bitmap(bits.chunks)
    inside.fill()
    found = replace_lost_bits(header, bits.shadow.packed, bits.copy.packed, inside.packed, damage)
    if Meaning.MASTER_LOST in found:
        raise errors.BadBitmap(header.bitmap, f"{reason} in the middle of a restore")
    trouble += [(OFFLINE.get(means, NOTHING_OFFLINE), _told(reason, means)) for means in found]
    return bool(found & {Meaning.DIFFERENT, Meaning.OTHER_BITMAP_COUNTS, Meaning.RESTORED_ANEW})


def _told(reason: str, means: Meaning) -> str:
    if means is Meaning.DIFFERENT:
        return f"{reason}: these chunks count as changed"
    if means is Meaning.OTHER_BITMAP_COUNTS:
        return f"{reason}: the other bitmap stands in"
    return reason


async def doubt_siblings(restored: VolumeSet, sets: Iterable[VolumeSet]) -> None:
    """Doubt the other sets of a master: a restore has written to it without preserving for them."""
    for member in sets:
        if member is not restored:
            reason = f"its master was overwritten by 'iibitmap finish' of {restored.name}"
            await doubt_all(member, reason)


async def doubt_all(member: VolumeSet, reason: str) -> None:
    """Handle a set whose volumes were written, or may have been, behind the service's back.

    In an idle independent set all chunks count as different. Any other shadow goes offline, because
    a part of its point in time was on the master. Nothing else may run on the set.
    """
    if not member.state.bits_are_hints or member.lacks(Role.BITMAP):
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
