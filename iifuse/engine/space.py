"""Watch the file systems of sparse shadows: a full one costs the point in time."""

import logging
from functools import partial
from typing import Final

import trio

from iifuse.core.state import Kind
from iifuse.engine.crew import NO_THREAD
from iifuse.engine.engine import Engine
from iifuse.engine.threads import blocking
from iifuse.engine.volumeset import VolumeSet
from iifuse.store import room
from iifuse.store.volume import Volume
from iifuse.units import format_size

log = logging.getLogger(__name__)

WARN_PERCENT: Final = (80, 90, 95)
EVERY_S: Final = 10.0


async def watch(engine: Engine) -> None:
    """Look now and then, for as long as the service lives."""
    while True:
        for member in list(engine.sets.values()):
            await _look(member)
        await trio.sleep(EVERY_S)


async def _look(member: VolumeSet) -> None:
    if member.shadow is None or member.shadow.is_device:
        return
    before, member.space_percent = member.space_percent, await _measure(member.shadow)
    if level(member.space_percent) > level(before):
        log.warning(
            "%s: its file system is %d%% full and the shadow is sparse; when it is full, %s",
            member.name, member.space_percent, _consequence(member),
        )  # fmt: skip


async def _measure(shadow: Volume) -> int | None:
    # Abandoned at the end of the service: a file system that hangs must not hold that up.
    measure = partial(_percent_used, shadow)
    try:
        return await trio.to_thread.run_sync(measure, abandon_on_cancel=True)
    except NO_THREAD:  # next time, then
        return None


async def remarks(engine: Engine, member: VolumeSet) -> list[str]:
    """What to tell who makes a sparse shadow on a file system that the master does not fit on."""
    shadow, master = member.shadow, engine.family(member).master
    if shadow is None or master is None:
        return []
    try:
        found = await blocking(partial(_lacking, shadow, master))
    except OSError:  # whoever uses it next will say so
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
    """In a thread: (what the shadow may still take, what is free); None: it has all its space."""
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
    except OSError:  # closed, or gone: whoever uses it next will say so
        return None


def level(percent: int | None) -> int:
    """How many of the warnings are due."""
    return sum(percent is not None and percent >= limit for limit in WARN_PERCENT)
