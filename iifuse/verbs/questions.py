"""Questions before a verb on existing sets: may it overwrite something that is needed?"""

from collections.abc import Sequence
from functools import partial

from iifuse.core import loss
from iifuse.core.loss import Loss
from iifuse.core.missing import lost_of
from iifuse.core.state import Custody, Kind, Role, Verb
from iifuse.data.counting import counts
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.loop.lookout import PATIENT_S
from iifuse.verbs import overwriting, pit
from iifuse.verbs.enable import is_incomplete


async def before_update(
    instance: Instance, verb: Verb, sets: Sequence[VolumeSet], *, sure: bool
) -> None:
    """Raise Question before masters are overwritten.

    Before shadows are overwritten it asks only if a restore from them was given up. A verb that
    will be refused raises its refusal instead of a question.
    """
    if sure:
        return
    pit.check(instance, verb, sets)
    await pit.check_closed(instance, verb, sets)  # it would be refused after the question
    if verb.to_master:
        losses = [await _restored(verb, member) for member in sets]
    else:
        losses = [loss.of_given_up(s.header) for s in sets if await _was_given_up(instance, s)]
    loss.check(losses, sure=sure)


async def _restored(verb: Verb, member: VolumeSet) -> Loss:
    _, left, either = await counts(member)
    if member.state.is_aborted_restore:
        return loss.of_restore(member.header, left)
    full = verb is Verb.COPY_MASTER and member.state.kind is Kind.INDEPENDENT
    return loss.of_restore(member.header, member.bits.chunks if full else either)


async def _was_given_up(instance: Instance, member: VolumeSet) -> bool:
    """Was the restore of the set's present point in time given up?"""
    pit_number = await instance.loop.blocking(partial(instance.db.given_up, member.name))
    return pit_number != 0 and pit_number == member.header.pit.number


async def before_disable(instance: Instance, sets: Sequence[VolumeSet], *, sure: bool) -> None:
    """Raise Question before a disable that may lose something.

    It may wipe an incomplete shadow that is needed, or close a volume that has no name any more.
    """
    losses = [one for member in sets for one in await _disabled(instance, member)]
    loss.check(losses + await _closed(instance, sets), sure=sure)


async def _closed(instance: Instance, sets: Sequence[VolumeSet]) -> list[Loss]:
    """The open volumes that a disable of these sets would close and that have lost their names.

    A bitmap volume counts only for an import, because only it knows what was changed here. A master
    counts even if somebody has it open, so that it stays on the mount: that may change at any time.
    """
    losses: list[Loss] = []
    for member in sets:
        imported = member.header.custody is Custody.IMPORTED
        for role, path in ((Role.SHADOW, member.name), (Role.BITMAP, member.header.bitmap)):
            missing = member.missing.get(role)
            if missing is not None and missing.served and (role is Role.SHADOW or imported):
                losses.append(loss.of_nameless(path, missing.why))
    families = dict.fromkeys(instance.family(member) for member in sets)
    lost = [f for f in families if f.astray and set(f.sets) <= set(sets)]
    kept = await instance.loop.blocking(instance.db.volumes) if lost else []
    gone = [(f.path, f.astray) for f in lost if f.path and f.path not in kept]
    return losses + [loss.of_nameless(path, why) for path, why in gone]


async def _disabled(instance: Instance, member: VolumeSet) -> list[Loss]:
    if member.shadow is None or not is_incomplete(member.header):
        return []
    if member.is_beyond_repair:
        why = f"the restore of {member.header.master} from it is not finished"
    elif instance.family(member).master is None:
        why = f"its master {member.header.master} is not there"
    elif await _was_given_up(instance, member):
        why = f"the restore of {member.header.master} from it was given up"
    else:
        return []
    return [loss.of_wipe(member.header, why)]


async def before_reset(instance: Instance, sets: Sequence[VolumeSet], *, sure: bool) -> None:
    """Raise Question before `-R` overwrites what may be the only copy."""
    losses = [one for member in sets for one in await _reset(instance, member)]
    loss.check(losses, sure=sure)


async def _reset(instance: Instance, member: VolumeSet) -> list[Loss]:
    if member.header.custody is Custody.EXPORTED:
        return [loss.of_export(member.header)]
    header, lost = member.header, lost_of(member.state, member.missing)
    master = instance.family(member).master
    losses: list[Loss] = []
    paths = (Role.MASTER, header.master), (Role.SHADOW, header.shadow), (Role.BITMAP, header.bitmap)
    await instance.check_answering(*(path for role, path in paths if role & lost))
    if lost & Role.MASTER and header.kind is Kind.INDEPENDENT:
        look = partial(overwriting.standing_in, instance, header.master)
        holds = await instance.lookout.ask(header.master, look, limit_s=PATIENT_S)
        losses.append(loss.of_filled_master(header, holds))
    elif lost & Role.SHADOW and await _was_given_up(instance, member):
        losses.append(loss.of_given_up(header))
    elif _has_bits_of_a_lost_pit(member):
        losses.append(loss.of_lost_pit(header))
    elif awaited := _awaited(member):
        losses.append(loss.of_awaited(header, awaited))
    look_at_both = partial(overwriting.by_reset, instance, header, lost, master)
    return losses + await instance.lookout.ask(
        header.shadow, look_at_both, limit_s=PATIENT_S
    )


def _awaited(member: VolumeSet) -> str:
    """The missing volume that would bring back a dependent set's point in time; empty: none."""
    roles = (role for role in (Role.BITMAP, Role.SHADOW) if member.lacks(role))
    if member.state.kind is not Kind.DEPENDENT or member.restoring or member.state.offline:
        return ""
    return next((role.name.lower() for role in roles if role.name), "")


def _has_bits_of_a_lost_pit(member: VolumeSet) -> bool:
    """Has only the bitmap volume of a dependent set failed, and are its bits still in memory?"""
    failed = bool(member.state.offline & Role.BITMAP) and not member.restoring
    dependent = member.state.kind is Kind.DEPENDENT
    return failed and dependent and member.bits_known and member.shadow is not None
