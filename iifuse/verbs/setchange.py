"""One set's part of a point in time: its bitmaps and its header, from step to step."""

from dataclasses import dataclass, replace

from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.change import Commit, CommitPending, SetStep, WriteBitmap, copy_after
from iifuse.core.header import Header, Pit, Stamp
from iifuse.core.sector import Region
from iifuse.core.state import NOTHING_OFFLINE, Change, Progress
from iifuse.core.touch import Sync
from iifuse.core.transition import Transition
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.store.headerlog import HeaderLog


@dataclass
class Room:
    """Memory for the bitmaps after a change, had before the gate closes: it comes slowly.

    `shadow` and `ready` are all zero. `copy`: to be overwritten, or already what it will be when
    `is_copy`: the old copy bitmap stays, or it is empty and the old shadow bitmap takes its place.
    `had_bits`: was a bit set? So it stays until the change.
    """

    shadow: Bitmap
    ready: Bitmap
    copy: Bitmap
    is_copy: bool
    had_bits: bool = True


def allocate_bitmaps(bits: Bits, change: Change) -> Room:
    """In a thread, while no copy of the set runs. Nothing of `bits` is changed.

    A copy bitmap that is empty now is so under the gate too: only a PIT sets copy bits.
    """
    chunks = bits.chunks
    ready = Bitmap(chunks)
    copies, had_bits = not bits.copy.is_zero(), not bits.shadow.is_zero()
    if change is Change.CLEAR:
        return Room(Bitmap(chunks), ready, bits.copy, True, copies or had_bits)
    if copies:
        return Room(Bitmap(chunks), ready, Bitmap(chunks), is_copy=False)
    if change.merges:
        return Room(bits.copy, ready, bits.shadow, True, had_bits)
    return Room(bits.copy, ready, Bitmap(chunks), is_copy=False)


@dataclass
class SetChange:
    """What a change makes of one set. `ready`: see Bits; None when it is not known.

    `view`: the file that shows another content after it, if there is one.
    """

    change: Change
    header: Header
    copy: Bitmap
    shadow: Bitmap
    ready: Bitmap | None = None
    view: View | None = None


def prepare(
    member: VolumeSet,
    change: Change,
    transition: Transition,
    room: Room | None = None,
    target: View | None = None,
) -> SetChange:
    """Under the gate, where bits do not change: so a thread may look at them.

    `target`: the file whose content the PIT decides over; what it shows then is recorded in the
    same header.
    """
    bits = member.bits
    room = room or allocate_bitmaps(bits, change)
    view = None if target is None or _changes_nothing(member, room) else target
    record = view.as_field(view.times.written(transition.time_ns)) if view else {}
    pit = Pit(member.header.pit.number + 1, transition.pit_id, transition.time_ns)
    if change.progress is not Progress.TO_MASTER:  # else every sibling has to forget its stamp
        record |= {"shadow_stamp": Stamp()}
    header = replace(
        member.header,
        pending=change,
        pending_pit=pit,
        transition_id=transition.id,
        offline=NOTHING_OFFLINE,
        offline_reason="",
        **record,
    )
    copy = room.copy if room.is_copy else copy_after(change, bits.shadow, bits.copy, room.copy)
    return SetChange(change, header, copy, room.shadow, room.ready, view)


def _changes_nothing(member: VolumeSet, room: Room) -> bool:
    """Do both volumes show the same, so that the PIT changes no content?

    Not if a volume was lost: then bits do not tell.
    """
    return not (
        room.had_bits
        or member.state.offline
        or not member.bits.shadow.is_zero()  # until the gate closed
    )


def execute_change(step: SetStep, part: SetChange, log: HeaderLog) -> None:
    """One step of a set's change, for the service and for recovery. Blocks; raises OSError."""
    bitmap = log.bitmap
    assert bitmap is not None
    match step:
        case Sync():
            bitmap.volume.sync()
        case CommitPending():
            part.header = log.repair(part.header)
        case WriteBitmap(_, region):
            bits = part.copy if region is Region.COPY else part.shadow
            bitmap.write_sectors(bitmap.encode_change(part.header, region, bits))
        case Commit():
            part.header = log.repair(part.header.completed())
