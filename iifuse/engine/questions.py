"""What a verb would overwrite of sets that are there; it is asked about before the verb begins."""

from collections.abc import Sequence

from iifuse.core import loss
from iifuse.core.loss import Loss
from iifuse.core.state import Custody, Kind, Role, Verb
from iifuse.engine import pit
from iifuse.engine.counting import counts
from iifuse.engine.engine import Engine
from iifuse.engine.volumeset import VolumeSet


async def before_flip(
    engine: Engine, verb: Verb, sets: Sequence[VolumeSet], *, sure: bool
) -> None:
    """Raise Question before masters are overwritten; what is refused anyhow asks nothing."""
    if sure or not verb.to_master:
        return
    pit.check(engine, verb, sets)
    loss.check([await _restored(verb, member) for member in sets], sure=sure)


async def _restored(verb: Verb, member: VolumeSet) -> Loss:
    _, left, either = await counts(member)
    if member.state.resumes:
        return loss.of_restore(member.header, left)
    full = verb is Verb.COPY_MASTER and member.state.kind is Kind.INDEPENDENT
    return loss.of_restore(member.header, member.bits.chunks if full else either)


async def before_reset(engine: Engine, sets: Sequence[VolumeSet], *, sure: bool) -> None:
    """Raise Question before `-R` overwrites what may be the only copy."""
    losses = [one for member in sets for one in await _reset(engine, member)]
    loss.check(losses, sure=sure)


async def _reset(engine: Engine, member: VolumeSet) -> list[Loss]:  # noqa: ARG001 - soon
    if member.header.custody is Custody.EXPORTED:
        return [loss.of_export(member.header)]
    if member.state.offline & Role.MASTER and member.state.kind is Kind.INDEPENDENT:
        return [loss.of_restore(member.header, member.bits.chunks)]
    return []
