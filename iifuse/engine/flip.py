"""One set's part of a point in time: its bitmaps and its header, from step to step."""

from dataclasses import dataclass, replace

from iifuse.core import plan
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.header import Header, Pit
from iifuse.core.plan import PitStep
from iifuse.core.sector import Region
from iifuse.core.state import NOTHING_OFFLINE, Change
from iifuse.core.transition import Transition
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile


@dataclass
class Room:
    """Memory for the bitmaps after a change, had before the gate closes: it comes slowly.

    `shadow` and `ready` are all zero. `copy`: to be overwritten, or already what it will be when
    `is_copy`: the old copy bitmap stays, or it is empty and the old shadow bitmap takes its place.
    """

    shadow: Bitmap
    ready: Bitmap
    copy: Bitmap
    is_copy: bool


def make_room(bits: Bits, change: Change) -> Room:
    """In a thread, while no copy of the set runs. Nothing of `bits` is changed.

    A copy bitmap that is empty now is so under the gate too: only a PIT sets copy bits.
    """
    chunks = bits.chunks
    ready = Bitmap(chunks)
    if change is Change.CLEAR:
        return Room(Bitmap(chunks), ready, bits.copy, is_copy=True)
    if not bits.copy.is_zero():
        return Room(Bitmap(chunks), ready, Bitmap(chunks), is_copy=False)
    if change.merges:
        return Room(bits.copy, ready, bits.shadow, is_copy=True)
    return Room(bits.copy, ready, Bitmap(chunks), is_copy=False)


@dataclass
class Flip:
    """One set's part of a PIT. `ready`: see Bits; None when it is not known."""

    member: VolumeSet
    change: Change
    header: Header
    copy: Bitmap
    shadow: Bitmap
    ready: Bitmap | None = None


def prepare(
    member: VolumeSet, change: Change, transition: Transition, room: Room | None = None
) -> Flip:
    """Under the gate, where bits do not change: so a thread may look at them."""
    bits = member.bits
    room = room or make_room(bits, change)
    pit = Pit(member.header.pit.number + 1, transition.pit_id, transition.time_ns)
    header = replace(
        member.header,
        pending=change,
        pending_pit=pit,
        transition_id=transition.id,
        offline=NOTHING_OFFLINE,
        offline_reason="",
    )
    copy = room.copy if room.is_copy else change.new_copy(bits.shadow, bits.copy, room.copy)
    return Flip(member, change, header, copy, room.shadow, room.ready)


def execute_change(step: PitStep, part: Flip, bitmap: BitmapFile | None = None) -> None:
    """One step of a set's change, for the service and for recovery. Blocks; raises OSError."""
    bitmap = bitmap or part.member.bitmap
    assert bitmap is not None
    match step:
        case plan.Pend():
            part.header = bitmap.write_header(part.header)
        case plan.Store(_, region):
            bits = part.copy if region is Region.COPY else part.shadow
            bitmap.write_sectors(bitmap.encode_change(part.header, region, bits))
        case plan.Commit():
            part.header = bitmap.write_header(part.header.completed())
