"""Changes that a crash cut short: their steps are run again, from the bits on disk.

And those whose record failed, which no set is to follow.
"""

import logging
from collections.abc import Iterable
from functools import partial
from uuid import UUID

from iifuse import errors
from iifuse.core import plan
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.change import copy_after, shadow_after
from iifuse.core.header import Header
from iifuse.core.state import Role
from iifuse.core.transition import Transition, unfinished
from iifuse.engine.dated import in_doubt
from iifuse.engine.engine import Engine
from iifuse.engine.flip import Flip, execute_change
from iifuse.engine.threads import blocking
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile

log = logging.getLogger(__name__)


def roll_forward(
    engine: Engine, bitmap: BitmapFile, header: Header, shadow: Bitmap, copy: Bitmap
) -> tuple[Header, Bitmap, Bitmap]:
    """Repeat the steps of a change whose record is durable (invariant 6)."""
    pending = unfinished(engine.transitions.standing, header)
    if pending is None:
        return header, shadow, copy
    change = pending.pending
    pending = in_doubt(pending)  # one of its files shows another content
    part = Flip(
        VolumeSet(header, Bits(shadow, copy), None, bitmap),
        change,
        pending,
        copy_after(change, shadow, copy),
        shadow_after(change, shadow, copy),
    )
    for step in plan.whole_change(header.uuid, change):
        if isinstance(step, plan.Sync):
            bitmap.volume.sync()
        else:
            execute_change(step, part)
    return part.header, part.shadow, part.copy


def awaited(engine: Engine) -> tuple[Transition, ...]:
    """The group commands that a set has still to follow when its bitmap volume is there again."""
    absent = {member.key for member in engine.sets.values() if member.lacks(Role.BITMAP)}
    return tuple(
        transition for transition in engine.transitions.standing
        if any(member.uuid in absent for member in transition.members)
    )  # fmt: skip


async def disown(engine: Engine, sets: Iterable[VolumeSet], transition: UUID) -> None:
    """A record that failed may stand on the disk all the same: no set is to follow it.

    The database says so for all of them at once. The headers say it too, should the database
    fail, or be lost.
    """
    try:
        await blocking(partial(engine.db.disown, transition))
    except errors.StorageError as error:
        log.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect
    for member in sets:
        try:
            await member.commit(transition_id=transition)
        except OSError as error:
            await member.take_offline(Role.BITMAP, errors.words(error))
