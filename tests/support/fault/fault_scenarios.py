"""Scenarios for failing stores: those of the power failures, and what only failures care for."""

from functools import partial

from crash_rig import Rig, Scenario
from crash_scenarios import SCENARIOS, new_set

from iifuse.core.state import Kind, Verb

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT


async def process_sync(rig: Rig, kind: Kind) -> None:
    """durability=process: an fsync of the master syncs what first touches have left unsynced."""
    master, shadow = await new_set(rig, kind)
    await rig.relax()
    rig.begin()
    await rig.touch(master, 0, 3)
    await rig.sync(master)
    await rig.touch(shadow, 1)
    await rig.touch(master, 1)
    await rig.sync(shadow)
    await rig.sync(master)
    if kind is IND:  # a power failure ends what a dependent shadow has begun to restore
        await rig.flip(Verb.UPDATE_MASTER, shadow)
    await rig.touch(master, 2)
    await rig.sync(master)
    await rig.main.wait(shadow)
    rig.check()


async def process_stop(rig: Rig, kind: Kind) -> None:
    """durability=process: what is left unsynced is synced by a clean stop."""
    master, shadow = await new_set(rig, kind)
    await rig.relax()
    rig.begin()
    await rig.touch(master, 0, 3)
    await rig.touch(shadow, 1)
    await rig.main.down()
    await rig.main.up(rig.nursery)
    await rig.touch(master, 1)
    rig.check()


FAULT_SCENARIOS: dict[str, Scenario] = {
    **SCENARIOS,
    **{
        f"{f.__name__}-{kind.name[:3].lower()}": partial(f, kind=kind)
        for f in (process_sync, process_stop)
        for kind in Kind
    },
}
