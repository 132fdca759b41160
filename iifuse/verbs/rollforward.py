"""Changes that a crash cut short: their steps are run again, from the bits on disk.

And those whose record failed, which no set is to follow.
"""

import logging
from collections.abc import Iterable
from functools import partial
from uuid import UUID

from iifuse import errors
from iifuse.core.bitmap import Bitmap
from iifuse.core.change import copy_after, shadow_after, whole_change
from iifuse.core.header import Header
from iifuse.core.state import Role
from iifuse.core.transition import Transition
from iifuse.data.timedfile import in_doubt
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store.headerlog import HeaderLog
from iifuse.verbs.setchange import SetChange, execute_change

logger = logging.getLogger(__name__)


def roll_forward(
    log: HeaderLog, pending: Header, shadow: Bitmap, copy: Bitmap
) -> tuple[Header, Bitmap, Bitmap]:
    """Repeat the steps of a change whose record is durable (invariant 6). Blocks; raises OSError.

    `pending`: the header with that change (core.transition.unfinished).
    """
    change = pending.pending
    pending = in_doubt(pending)  # one of its files shows another content
    part = SetChange(
        change,
        pending,
        copy_after(change, shadow, copy),
        shadow_after(change, shadow, copy),
    )
    for step in whole_change(pending.uuid, change):
        execute_change(step, part, log)
    return part.header, part.shadow, part.copy


def awaited(instance: Instance) -> tuple[Transition, ...]:
    """The group commands that a set has still to follow when its bitmap volume is there again."""
    absent = {member.key for member in list(instance.sets.values()) if member.lacks(Role.BITMAP)}
    return tuple(
        transition for transition in instance.transitions.standing
        if any(member.uuid in absent for member in transition.members)
    )  # fmt: skip


async def disown(instance: Instance, sets: Iterable[VolumeSet], transition: UUID) -> None:
    """A record that failed may stand on the disk all the same: no set is to follow it.

    The database says so for all of them at once. The headers say it too, should the database
    fail, or be lost.
    """
    try:
        await instance.loop.blocking(partial(instance.db.disown, transition))
    except errors.StorageError as error:
        logger.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect
    for member in sets:
        try:
            await member.commit(transition_id=transition)
        except OSError as error:
            await member.take_offline(Role.BITMAP, errors.words(error))
