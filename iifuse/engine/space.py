"""Watch the file systems of sparse shadows: a full one costs the point in time."""

import logging
from functools import partial
from typing import Final

import trio

from iifuse.engine.crew import NO_THREAD
from iifuse.engine.engine import Engine
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.volume import Volume

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
            member.name, member.space_percent,
            "writes to the master fail" if member.policy.break_write else "it goes offline",
        )  # fmt: skip


async def _measure(shadow: Volume) -> int | None:
    # Abandoned at the end of the service: a file system that hangs must not hold that up.
    measure = partial(_percent_used, shadow)
    try:
        return await trio.to_thread.run_sync(measure, abandon_on_cancel=True)
    except NO_THREAD:  # next time, then
        return None


def _percent_used(shadow: Volume) -> int | None:
    try:
        return shadow.percent_used() if shadow.is_sparse() else None
    except OSError:  # closed, or gone: whoever uses it next will say so
        return None


def level(percent: int | None) -> int:
    """How many of the warnings are due."""
    return sum(percent is not None and percent >= limit for limit in WARN_PERCENT)
