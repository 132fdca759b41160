"""What an update or a copy would copy, and why so much (`--dry-run`). It changes nothing."""

from collections.abc import Sequence
from functools import partial

from iifuse.core import state
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.loss import point_in_time
from iifuse.core.state import Change, Kind, Progress, Verb
from iifuse.data.counting import counts
from iifuse.data.volumeset import VolumeSet
from iifuse.host import unjoined
from iifuse.host.instance import Instance
from iifuse.verbs import pit

Cost = tuple[str, str, str, int, int, str]
"""(shadow, source, target, chunks, bytes, why) for a set."""


async def costs(instance: Instance, verb: Verb, sets: Sequence[VolumeSet]) -> list[Cost]:
    """The cost for each set. Raises what the verb would raise before it changes anything."""
    pit.check(instance, verb, sets)
    await pit.check_closed(instance, verb, sets)
    return [await _cost(instance, verb, member) for member in sets]


async def _cost(instance: Instance, verb: Verb, member: VolumeSet) -> Cost:
    header = member.header
    waiting = await instance.loop.blocking(partial(unjoined.look, instance, header))
    chunks, why = await _amount(verb, member, waiting)
    there, back = (header.master, header.shadow), (header.shadow, header.master)
    source, target = back if verb.to_master else there
    size = min(chunks * CHUNK_BYTES, header.size_bytes)
    return header.shadow, source, target, chunks, size, why


async def _amount(verb: Verb, member: VolumeSet, waiting: Sequence[str]) -> tuple[int, str]:
    """How many chunks would be copied, and why: (chunks, reason for people)."""
    _, left, either = await counts(member)
    change = state.change_for(verb, member.state.kind)
    if verb.to_master and member.state.is_aborted_restore:
        return left, "the rest of the restore that was aborted"
    if change is Change.CLEAR:
        return 0, "a dependent shadow reads from its master what has not changed"
    if waiting and change.with_every_chunk is not change:
        return member.bits.chunks, f"all: the import with {', '.join(waiting)} is not joined"
    if change.with_every_chunk is change:
        return member.bits.chunks, f"all: {verb} copies every chunk"
    return either, _differing(member)


def _differing(member: VolumeSet) -> str:
    since = f"those that were written on either side since {point_in_time(member.header)}"
    if member.state.kind is Kind.DEPENDENT:
        return f"those that were preserved or written since {point_in_time(member.header)}"
    if member.state.progress is Progress.TO_SHADOW:
        return f"{since}, and those that its copy has still to bring"
    return since
