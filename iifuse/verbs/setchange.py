"""What a point in time does to one set: its bitmaps and its header, step by step."""

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
class NewBitmaps:
    """Memory for the bitmaps after a change. It is allocated before the gate closes.

    `shadow` and `ready` are all zero. `copy`: if `is_copy` is set, this is the new copy bitmap
    already: either the old one stays, or it was empty and the old shadow bitmap takes its place.
    Otherwise it is memory to be overwritten. `had_bits`: was a bit set when this was made?
    """

    shadow: Bitmap
    ready: Bitmap
    copy: Bitmap
    is_copy: bool
    had_bits: bool = True


def allocate_bitmaps(bits: Bits, change: Change) -> NewBitmaps:
    """Allocate the new bitmaps. Runs in a thread, while no copy of the set runs.

    `bits` are not changed. A copy bitmap that is empty now is still empty under the gate, because
    only a PIT sets copy bits.
    """
    chunks = bits.chunks
    ready = Bitmap(chunks)
    copies, had_bits = not bits.copy.is_zero(), not bits.shadow.is_zero()
    if change is Change.CLEAR:
        return NewBitmaps(Bitmap(chunks), ready, bits.copy, True, copies or had_bits)
    if copies:
        return NewBitmaps(Bitmap(chunks), ready, Bitmap(chunks), is_copy=False)
    if change.merges:
        return NewBitmaps(bits.copy, ready, bits.shadow, True, had_bits)
    return NewBitmaps(bits.copy, ready, Bitmap(chunks), is_copy=False)


@dataclass
class SetChange:
    """What a change makes of one set. `ready`: see Bits; None: it is not known.

    `view`: the file that shows another content after the change; None: there is none.
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
    new: NewBitmaps | None = None,
    target: View | None = None,
) -> SetChange:
    """Work out the new header and bitmaps. Runs in a thread under the gate, where bits are stable.

    `target`: the file that shows the content of the PIT. Its new times are in the same header.
    """
    bits = member.bits
    new = new or allocate_bitmaps(bits, change)
    view = None if target is None or _changes_nothing(member, new) else target
    record = view.as_field(view.times.written(transition.time_ns)) if view else {}
    pit = Pit(member.header.pit.number + 1, transition.pit_id, transition.time_ns)
    if change.progress is not Progress.TO_MASTER:  # a restore removes the stamp in all headers
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
    copy = new.copy if new.is_copy else copy_after(change, bits.shadow, bits.copy, new.copy)
    return SetChange(change, header, copy, new.shadow, new.ready, view)


def _changes_nothing(member: VolumeSet, new: NewBitmaps) -> bool:
    """Are both volumes the same, so that the PIT changes no content? After a loss nobody knows."""
    had_bits = new.had_bits or not member.bits.shadow.is_zero()  # some came until the gate closed
    return not had_bits and not member.state.offline


def execute_change(step: SetStep, part: SetChange, log: HeaderLog) -> None:
    """Do one step of a set's change, for a verb or at a start. Blocks; raises OSError."""
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
