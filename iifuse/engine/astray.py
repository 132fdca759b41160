"""Volumes that are open while something else, or nothing, has taken their place.

What is written then goes to a file that may have no name any more: it ends with our descriptor.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from iifuse import errors
from iifuse.core.missing import HELD_ONLY
from iifuse.engine.engine import Engine
from iifuse.engine.view import View
from iifuse.store.presence import astray, deleted
from iifuse.store.volume import Volume


def way_to_look(engine: Engine, volume: Volume) -> Callable[[Volume], str]:
    """Where our own file is mounted over the path, to look there would be to ask ourselves."""
    covered = engine.hooks.in_place and not volume.is_device and volume.path in engine.views
    return deleted if covered else astray


def open_at(engine: Engine, path: str) -> Volume | None:
    """The volume behind a file of the mount."""
    member = engine.sets.get(path)
    return engine.views[path].family.master if member is None else member.shadow


def check(engine: Engine, volume: Volume, verb: str) -> None:
    """In a thread: raise BadVolume if the path of a volume does not lead to it at this moment.

    Who names the path means what stands there now.
    """
    why = way_to_look(engine, volume)(volume)
    if why:
        alone = any(f.master is volume and not f.sets for f in engine.families)
        raise errors.BadVolume(
            volume.path,
            f"{verb} is not possible: it was replaced while in use: {why}",
            f"{HELD_ONLY}; 'svadm -d' takes it off the mount" if alone else HELD_ONLY,
        )


@asynccontextmanager
async def uncovered(engine: Engine, view: View | None, *, lost: bool) -> AsyncIterator[None]:
    """As `Engine.closed`; and the name of a lost file leads to what stands there, not to our mount.

    With `-o in_place` the file is off the mount then, and comes back only when this is left by an
    error. Raises Busy.
    """
    hidden: View | None = None
    try:
        async with engine.closed([view], "close it first"):
            if lost and view is not None and engine.hooks.in_place:
                hidden = view
                await engine.hide(view)
            yield
    except BaseException:
        if hidden is not None:
            await engine.show(hidden)
        raise
