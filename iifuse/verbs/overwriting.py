"""What a command would overwrite on a volume that is added. It looks at what is there.

A copy of the master's own file system may be overwritten by a newer one without a question, night
after night. So may blank volumes, and bitmap volumes of disabled sets. The service asks about
everything else that it recognises. docs/decisions/overwriting.md says how.
"""

from collections.abc import Iterator
from glob import escape, iglob
from itertools import islice
from typing import Final
from uuid import UUID

from iifuse import errors
from iifuse.core import loss
from iifuse.core.header import MAGIC, SLOT_BYTES, SLOT_OFFSETS, BitmapRole, Closure, Header, newest
from iifuse.core.loss import Loss
from iifuse.core.missing import same_file
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Progress, Role
from iifuse.host.instance import Instance
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import file_of
from iifuse.store.programs import Programs
from iifuse.store.signature import Look, look, standing_at
from iifuse.store.volume import Volume

_BESIDE_MAX: Final = 64
"""The most files beside a volume that are searched for its bitmap volume."""


def by_shadow(instance: Instance, master: Volume, shadow: Volume, *, in_use: bool) -> list[Loss]:
    """What `-e` would overwrite on the shadow. Blocks; raises BadVolume.

    `in_use`: somebody has the master open, so its superblock may be older than its content.
    """
    programs = instance.hooks.programs
    found = look(shadow, programs)
    if found.is_empty:
        return []
    as_bitmap = _of_bitmap_volume(shadow)
    if as_bitmap:
        return as_bitmap
    own = look(master, programs)
    known = (master.path, shadow.path) in instance.db.former(shadow.path)
    why = (
        _of_former_part(instance, master.path, shadow.path)
        or _of_other_content(found, own, master.path, known=known)
        or _of_newer(found, own, master.path, in_use=in_use)
        or _of_blank_master(found, own, master.path, known=known)
    )
    return [Loss(shadow.path, f"this would overwrite it, and {why}")] if why else []


def _of_former_part(instance: Instance, master: str, shadow: str) -> str:
    """Had the volumes other roles before, by the database or by a bitmap volume beside them?

    Perhaps they are named in the wrong order, or belong to another set. Returns the rest of a
    sentence; empty: no.
    """
    for was_master, was_shadow in instance.db.former(shadow):
        if (was_master, was_shadow) == (master, shadow):
            return _of_given_up(instance, shadow)
        if was_master == shadow:
            return f"it was the master of {was_shadow} the last time; the order is MASTER SHADOW"
        return f"it was the shadow of another master the last time ({was_master})"
    for header in _headers_beside(master, shadow):
        if (header.master, header.shadow) == (shadow, master):
            return f"it was the master of {master} the last time; the order is MASTER SHADOW"
    return ""


def _of_given_up(instance: Instance, shadow: str) -> str:
    pit = instance.db.rest_of(shadow)
    if not pit:
        return ""
    return (
        f"it holds the rest of point in time {pit}, whose restore was given up: the master does "
        "not have all of it"
    )


def _headers_beside(*paths: str) -> Iterator[Header]:
    """The headers of bitmap volumes whose names begin with the name of a volume."""
    for path in paths:
        for name in islice(iglob(f"{escape(path)}.*"), _BESIDE_MAX):
            header = _header_of(name)
            if header is not None:
                yield header


def _header_of(path: str) -> Header | None:
    """The header in a file; None: it is no bitmap volume, or the service itself shows it there."""
    with standing_at(path) as volume:
        if volume is None or volume.is_device:
            return None
        try:
            blob = volume.read(0, min(len(SLOT_OFFSETS) * SLOT_BYTES, volume.size_bytes))
            return newest(path, [blob[at : at + SLOT_BYTES] for at in SLOT_OFFSETS])[0]
        except (OSError, errors.BadBitmap):
            return None


def _of_other_content(found: Look, own: Look, master: str, *, known: bool) -> str:
    """Does the shadow hold something that is no copy of the master? Empty: it does not.

    `known`: it was the shadow of this master before. That counts if there is no UUID.
    """
    if not found.kind or found.is_copy_of(own):
        return ""
    if known and (found.kind, found.uuid) == (own.kind, ""):
        return ""
    uuid = f" ({found.uuid})" if found.uuid else ""
    return f"it holds {found.kind}{uuid}, which is no earlier copy of {master}"


def _of_newer(found: Look, own: Look, master: str, *, in_use: bool) -> str:
    if in_use or found.written is None or own.written is None or found.written <= own.written:
        return ""
    return f"its {found.kind} was written later than that of {master}; the order is MASTER SHADOW"


def _of_blank_master(found: Look, own: Look, master: str, *, known: bool) -> str:
    """Would a blank master overwrite a shadow that holds data? Perhaps the order is wrong."""
    if known or found.blank or not own.blank:
        return ""
    return f"it holds data, while {master} is blank; the order is MASTER SHADOW"


def by_bitmap(
    instance: Instance, bitmap: Volume, own: UUID | None = None, *, resets: bool = False
) -> list[Loss]:
    """What `-e`, `-I` or `-R` would overwrite on the bitmap volume. Blocks; raises BadVolume.

    `own`: the set whose earlier bits may be overwritten without a question. `resets`: the path was
    that of the set's bitmap all the time, so the volume is blank, or damaged, or another one.
    """
    found = look(bitmap, instance.hooks.programs)
    if found.is_empty:
        return []
    as_bitmap = _of_bitmap_volume(bitmap, own, resets=resets)
    if as_bitmap or _is_bitmap_volume(bitmap):
        return as_bitmap
    if found.kind or (resets and not found.blank):
        what = f"it holds {found.kind or 'data that are no bitmap volume'}"
    elif instance.db.former(bitmap.path):
        what = "it was the master or the shadow of a set the last time"
    else:
        return []
    return [Loss(bitmap.path, f"this would make a bitmap volume of it, and {what}")]


def by_reset(instance: Instance, header: Header, lost: Role, master: Volume | None) -> list[Loss]:
    """What `-R` would overwrite at the paths of the volumes that are lost."""
    found: list[Loss] = []
    if lost & Role.SHADOW and master is not None and not needs_shadow(header):
        with standing_at(header.shadow) as shadow:
            if shadow:
                found += _in_place_of_shadow(instance.hooks.programs, shadow, master, header)
    if lost & Role.BITMAP:
        with standing_at(header.bitmap) as bitmap:
            found += by_bitmap(instance, bitmap, header.uuid, resets=True) if bitmap else []
    return found


def needs_shadow(header: Header) -> bool:
    """Does the set need the content of its shadow? Then no other file may take its place."""
    return header.progress is Progress.TO_MASTER or header.custody is Custody.IMPORTED


def _in_place_of_shadow(
    programs: Programs, shadow: Volume, master: Volume, header: Header
) -> list[Loss]:
    found = look(shadow, programs)
    if found.is_empty:
        return []
    as_bitmap = _of_bitmap_volume(shadow)
    same = same_file(header.shadow_file, file_of(shadow))
    why = ""
    if not as_bitmap:
        why = _of_other_content(found, look(master, programs), master.path, known=same)
    if not why and not same:
        why = f"it is another one than the shadow that held {loss.point_in_time(header)}"
    return as_bitmap + ([Loss(shadow.path, f"this would overwrite it, and {why}")] if why else [])


def standing_in(instance: Instance, path: str) -> str:
    """What is recognised at a path, for people; empty: nothing. Blocks."""
    with standing_at(path) as volume:
        return look(volume, instance.hooks.programs).kind if volume else ""


def _is_bitmap_volume(volume: Volume) -> bool:
    slots = (volume.read(at, min(8, volume.size_bytes - at)) for at in SLOT_OFFSETS
             if at < volume.size_bytes)  # fmt: skip
    return MAGIC in slots


def _of_bitmap_volume(
    volume: Volume, own: UUID | None = None, *, resets: bool = False
) -> list[Loss]:
    """What would be lost if this is a bitmap volume whose set may still need it."""
    if not _is_bitmap_volume(volume):
        return []
    bitmap = BitmapFile(volume)
    try:
        header = bitmap.read_header()
        why = "" if header.uuid == own else _needed(bitmap, header)
    except errors.BadBitmap as error:
        if resets:
            return []
        why = f"it is a bitmap volume that cannot be read ({error.why})"
    return [Loss(volume.path, f"this would overwrite it, and {why}")] if why else []


def _needed(bitmap: BitmapFile, header: Header) -> str:
    """Why the set of a bitmap volume may need it; empty: it does not."""
    if header.role is BitmapRole.IMPORTED:
        if header.closure is Closure.JOINED or brought_nothing(bitmap, header):
            return ""
        return f"it holds the changes of an import of {header.shadow} that was not joined"
    if header.closure is Closure.OPEN:
        return (
            f"it is the bitmap volume of a set that was not disabled "
            f"({header.master}, {header.shadow}, {loss.point_in_time(header)})"
        )
    return ""


def brought_nothing(bitmap: BitmapFile, header: Header) -> bool:
    """Is the bitmap closed, and has the import changed nothing?"""
    bits, damaged = bitmap.read_bits(header, Region.SHADOW)
    return header.closure is Closure.CLOSED and not damaged and bits.is_zero()
