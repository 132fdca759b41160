"""Repeats changes that a crash has cut short, from the bits on disk.

It also keeps sets from following a group command whose record has failed.
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

    `pending`: the header with that change (core.transition.unfinished). Returns the header, the
    shadow bitmap and the copy bitmap after it.
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
    """The group commands that sets have still to follow when their bitmap volumes are back."""
    absent = {member.key for member in list(instance.sets.values()) if member.lacks(Role.BITMAP)}
    return tuple(
        transition for transition in instance.transitions.standing
        if any(member.uuid in absent for member in transition.members)
    )  # fmt: skip


async def disown(instance: Instance, sets: Iterable[VolumeSet], transition: UUID) -> None:
    """Let no set follow a group command whose record has failed, as it may be on the disk.

    The database notes this for all sets at once. The headers note it as well, in case the database
    fails or is lost.
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
