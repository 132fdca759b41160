"""Watches the file systems of sparse shadows, because a full one costs the point in time.

A sparse shadow may be made even if its master's data does not fit on the file system. The user gets
a remark, but it may be intended, above all for a dependent set.
"""

import logging
from functools import partial
from typing import Final

import trio

from iifuse.core.state import Kind
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store import room
from iifuse.store.volume import Volume
from iifuse.units import format_size

log = logging.getLogger(__name__)

WARN_PERCENT: Final = (80, 90, 95)
EVERY_S: Final = 10.0


async def watch(instance: Instance) -> None:
    """Look at the file systems now and then, as long as the service runs."""
    while True:
        with instance.lookout.apart("sparse shadows", "the look at their file systems"):
            await _look(instance)
        await trio.sleep(EVERY_S)


async def _look(instance: Instance) -> None:
    sparse = {
        name: partial(_percent_used, member.shadow)
        for name, member in list(instance.sets.items())
        if member.shadow is not None and not member.shadow.is_device
    }
    for name, percent in (await instance.lookout.look(sparse)).items():
        if name in instance.sets:
            _tell(instance.sets[name], percent)


def _tell(member: VolumeSet, percent: int | None) -> None:
    before, member.space_percent = member.space_percent, percent
    if level(member.space_percent) > level(before):
        log.warning(
            "%s: its file system is %d%% full and the shadow is sparse; when it is full, %s",
            member.name, member.space_percent, _consequence(member),
        )  # fmt: skip


async def remarks(instance: Instance, member: VolumeSet) -> list[str]:
    """Remarks for the user if the file system of a sparse shadow is too small for the master."""
    shadow, master = member.shadow, instance.family(member).master
    if shadow is None or master is None:
        return []
    try:
        found = await instance.loop.blocking(partial(_lacking, shadow, master))
    except OSError:  # the next use of the shadow will report it
        return []
    if found is None or found[0] <= found[1]:
        return []
    most = "what is written may take" if member.state.kind is Kind.DEPENDENT else "its copy takes"
    text = (
        f"{member.name}: the shadow is sparse: {most} {format_size(found[0])}, and "
        f"{format_size(found[1])} are free on its file system; when it is full, "
        f"{_consequence(member)}; -o reserve with -e makes sure of the room beforehand"
    )
    return [text]


def _lacking(shadow: Volume, master: Volume) -> tuple[int, int] | None:
    """(bytes that the shadow may still need, free bytes); None: it has all its space.

    Runs in a thread.
    """
    free = room.free_bytes(shadow.fd) if shadow.is_sparse() else None
    if free is None:
        return None
    return room.data_bytes(master) - room.data_bytes(shadow), free


def _consequence(member: VolumeSet) -> str:
    breaks = member.policy.break_write
    return "writes to the master fail" if breaks else "it goes offline"


def _percent_used(shadow: Volume) -> int | None:
    try:
        return shadow.percent_used() if shadow.is_sparse() else None
    except OSError:  # it was closed or has failed: the next use of the shadow will report it
        return None


def level(percent: int | None) -> int:
    """How many of the warnings are due. `percent`: how full the file system is."""
    if percent is None:
        return 0
    return len([limit for limit in WARN_PERCENT if percent >= limit])
