"""Ends an aborted restore that cannot be finished (`iiadm --give-up`).

The master stays as it is: chunks that were not restored hold what they held before. The user gets a
list of them, and may find them in a backup. The master is served again. Volumes that are offline
stay offline until `-R`. The shadow still holds what was not restored of its point in time, and an
update would overwrite that. So the state database remembers it, and the update asks first.
"""

from dataclasses import replace
from functools import partial
from typing import Final

from iifuse import errors
from iifuse.core import change as orders
from iifuse.core import loss
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.state import Change, Custody, Role, how_to_end_copy
from iifuse.data.counting import counts
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import OPEN_TARGET, Instance
from iifuse.host.storage import storage_error
from iifuse.units import Run, command
from iifuse.verbs.setchange import SetChange, execute_change

LISTED_CHUNKS: Final = 1 << 20
"""The most chunks of one answer, so that their runs fit into it even in the worst case."""


def check(member: VolumeSet) -> None:
    """Raise Refused, CopyRunning or Busy unless a restore of the set stands aborted."""
    state = member.state
    if state.custody is not Custody.LOCAL or not state.restoring:
        raise errors.Refused(
            member.name, "no restore of it stands aborted", "there is nothing to give up"
        )
    if state.copying:
        todo = how_to_end_copy(member.name, state)
        raise errors.CopyRunning(member.name, "its restore runs", todo)
    member.check_answering()


async def give_up(instance: Instance, member: VolumeSet, *, sure: bool) -> list[str]:
    """Give the restore up. Returns remarks for the user.

    Raises what `check` raises, Question, Busy, StorageError.
    """
    check(member)
    known = member.bits_known and not member.lacks(Role.BITMAP)
    left = (await counts(member))[1] if known else member.bits.chunks
    loss.check([loss.of_give_up(member.header, left, known=known)], sure=sure)
    family = instance.family(member)
    view = instance.master_view(family)
    shadow = instance.views.get(member.name)
    async with instance.closed([view, shadow], OPEN_TARGET):
        await instance.loop.blocking(
            partial(instance.db.give_up, member.name, member.header.pit.number)
        )
        for file in filter(None, (view, shadow)):
            await instance.timekeeper.change(file)  # the record comes before the change
        if member.lacks(Role.BITMAP):
            why = "it is gone, and was given up with its restore"
            await member.wait_no_longer(Role.BITMAP, why)
        try:
            async with family.locks.everything():
                await _end(member)
        except errors.StorageError:
            await instance.loop.blocking(partial(instance.db.give_up, member.name, 0))
            raise
    for changed in filter(None, (view, shadow)):
        await instance.changed(changed)
    await instance.note(member, "restore given up", chunks=left, why="not restored")
    if member.bitmap is None:  # otherwise `note` has done this
        await instance.loop.blocking(partial(instance.db.remember, member.header))
    return [f"{member.name}: {_remark(member)}"]


def _remark(member: VolumeSet) -> str:
    text = "its restore is given up, the master stays as it is"
    reset = command("iiadm -R", member.name)
    return f"{text}; {reset} brings back what is offline" if member.state.offline else text


async def _end(member: VolumeSet) -> None:
    """Make the change durable, then in memory. If it fails, the restore still stands aborted."""
    try:
        async with member.header_lock:
            part = _part(member)
            await member.loop.blocking(partial(_execute, member, part))
            member.adopt(part.header)
    except OSError as error:
        await member.take_offline(Role.BITMAP, errors.words(error))
        await member.note_again()  # because some bits may have changed on the disk
        raise storage_error(error, "the restore still stands aborted") from error
    member.bits = await member.loop.blocking(partial(Bits, part.shadow, part.copy))


def _part(member: VolumeSet) -> SetChange:
    bits = member.bits
    shadow = orders.shadow_after(Change.GIVE_UP, bits.shadow, bits.copy)
    header = replace(member.header, pending=Change.GIVE_UP, pending_pit=member.header.pit)
    return SetChange(Change.GIVE_UP, header, Bitmap(bits.chunks), shadow)


def _execute(member: VolumeSet, part: SetChange) -> None:
    if member.bitmap is None:  # then only the state database has a note of it
        part.header = member.log.amend(part.header.completed())
        return
    for step in orders.give_up(member.key):
        execute_change(step, part, member.log)


def not_restored(member: VolumeSet, first: int, count: int) -> list[Run]:
    """The runs of chunks that an aborted restore has not restored, in a part of the set.

    The part is `count` chunks from `first` on. Raises what `check` raises.
    """
    check(member)
    stop = min(first + min(count, LISTED_CHUNKS), member.bits.chunks)
    if member.lacks(Role.BITMAP):
        return [(first, stop - first)] if first < stop else []
    return list(member.bits.copy.runs_in(first, stop))
