"""Changes that a crash cut short: their steps are run again, from the bits on disk."""

import logging
from dataclasses import replace

from iifuse import errors
from iifuse.core import plan
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.header import Header, Pit
from iifuse.core.state import Change, Role
from iifuse.engine.engine import Engine
from iifuse.engine.pit import Flip, execute_change
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.transitions import Transition

log = logging.getLogger(__name__)


def roll_forward(
    engine: Engine, bitmap: BitmapFile, header: Header, shadow: Bitmap, copy: Bitmap
) -> tuple[Header, Bitmap, Bitmap]:
    """Repeat the steps of a change whose record is durable (invariant 6)."""
    if header.offline & (Role.SHADOW | Role.BITMAP):  # its bits are in doubt; -R begins anew
        return header, shadow, copy
    pending = _pending(engine.transitions.transition, header)
    if pending.pending is Change.NONE:
        return header, shadow, copy
    log.info("%s: PIT %d is completed", header.shadow, pending.pending_pit.number)
    change = pending.pending
    part = Flip(
        VolumeSet(header, Bits(shadow, copy), None, bitmap),
        change,
        pending,
        change.new_copy(shadow, copy),
        Bitmap(shadow.chunks),
    )
    for step in plan.whole_change(header.uuid, change):
        if isinstance(step, plan.Sync):
            bitmap.volume.sync()
        else:
            execute_change(step, part)
    return part.header, part.shadow, part.copy


def _pending(transition: Transition | None, header: Header) -> Header:
    """The header with what is pending: by itself, or by the record of a group command."""
    members = transition.members if transition else ()
    member = next((m for m in members if m.uuid == header.uuid), None)
    if transition is None or member is None or header.pit.number >= member.new_pit:
        return header
    if header.pit.number != member.old_pit:
        raise errors.BadBitmap(
            header.bitmap,
            f"is at PIT {header.pit.number}, the group command that was cut short made "
            f"{member.new_pit} of {member.old_pit}",
        )
    return replace(
        header,
        pending=Change(member.change),
        pending_pit=Pit(member.new_pit, transition.pit_id, transition.time_ns),
        transition_id=transition.id,
    )
