"""`iibitmap check`: what is wrong with a bitmap volume, and what that means."""

import msgspec

from iifuse.core.believe import Meaning, meaning
from iifuse.core.header import Closure
from iifuse.core.sector import Region
from iifuse.core.state import Change, Progress
from iifuse.units import chunks_in, command, count, stop_of

from . import common
from .iibitmap_dump import roles
from .iibitmap_read import BitmapReading


class Checked(msgspec.Struct, frozen=True):
    """What was found. `wrong`: what a service would have to repair. `notes`: other remarks."""

    bitmap: str
    wrong: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    readable: bool = True


def check(found: BitmapReading) -> Checked:
    """Check the header and the bits. Nothing is written."""
    wrong = [*_slots(found), *_bits(found), *_header(found)]
    return Checked(found.volume.path, tuple(wrong), tuple(_notes(found)))


def _slots(found: BitmapReading) -> list[str]:
    meaning = (
        "the other slot counts; harmless after a power loss, "
        "but if the disk is bad the set may be in a later state than it says"
    )
    return [
        f"header slot {number}: {why}: {meaning}" for number, why in enumerate(found.slots) if why
    ]


def _bits(found: BitmapReading) -> list[str]:
    wrong = []
    size, meaning = found.volume.size_bytes, _meaning(found)
    if size < found.need_bytes:
        wrong.append(f"is cut short: it has {size} bytes and needs {found.need_bytes}")
    for region in Region:
        name = region.name.lower()
        if damaged := found.damaged(region):
            chunks = chunks_in(damaged)
            wrong.append(f"the {name} bits of {count(chunks, 'chunk')} are damaged: {meaning}")
        if found.stray_bits(region):
            wrong.append(f"{name} bits are set past the last chunk: they are ignored")
    return wrong


def _meaning(found: BitmapReading) -> str:
    reset = _reset(found)
    return {
        Meaning.NOTHING: "harmless: a point in time that was cut short clears them",
        Meaning.DIFFERENT: "these chunks count as different; the next update copies them",
        Meaning.OTHER_BITMAP_COUNTS: (
            "the other bitmap stands in, and some chunks are copied in vain"
        ),
        Meaning.RESTORED_ANEW: f"the restore brings them anew; {reset} goes on with it",
        Meaning.SHADOW_LOST: f"nobody knows what the shadow holds there; {reset} begins anew",
        Meaning.MASTER_LOST: "nobody knows on which volume they are right; get the master from a "
        "backup",
    }[meaning(found.header, both=_both(found))]


def _reset(found: BitmapReading) -> str:
    return command("iiadm -R", found.header.shadow)


def _both(found: BitmapReading) -> bool:
    """Are bits of the same chunks damaged in both bitmaps?"""
    shadow, copy = found.damaged(Region.SHADOW), found.damaged(Region.COPY)
    return any(
        one[0] < stop_of(other) and other[0] < stop_of(one) for one in shadow for other in copy
    )


def _header(found: BitmapReading) -> list[str]:
    header, wrong = found.header, []
    if found.distrusted:
        wrong.append(
            "the machine went down under durability=process: no bit can be believed, "
            "all chunks count as different"
        )
    if header.offline:
        names = " and ".join(roles(header.offline))
        reason = common.printable(header.offline_reason) or "no reason is given"
        wrong.append(f"{names} offline: {reason}; {_reset(found)} brings the set back")
    return wrong


def _notes(found: BitmapReading) -> list[str]:
    header, notes = found.header, []
    if header.pending is not Change.NONE:
        name = header.pending.name.lower()
        notes.append(f"a point in time was cut short ({name}); the service completes it")
    elif header.progress is not Progress.IDLE:
        where = "shadow" if header.progress is Progress.TO_SHADOW else "master"
        left = chunks_in(found.runs(Region.COPY))
        notes.append(f"a copy to the {where} is not complete: {count(left, 'chunk')} to come")
    if header.closure is not Closure.OPEN:
        notes.append("is closed: the set was disabled")
    elif not header.clean:
        notes.append("was not closed in order: more chunks may be marked than differ")
    if header.restored_offline:
        notes.append("a restore was finished offline; a start tells the other sets of its master")
    return notes
