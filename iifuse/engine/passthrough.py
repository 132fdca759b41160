"""Volumes on the mount with no set (`svadm`)."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from iifuse import errors
from iifuse.core import loss
from iifuse.engine import astray, roles
from iifuse.engine.engine import Engine
from iifuse.engine.roles import Part
from iifuse.engine.threads import blocking
from iifuse.store.volume import Volume, open_volume
from iifuse.units import command


async def control(engine: Engine, paths: Sequence[str]) -> list[str]:
    """Put volumes under control, all or none; already so is a remark.

    Raises BadVolume, InUse, Busy.
    """
    new = [path for path in dict.fromkeys(paths) if path not in engine.views]
    there = [astray.open_at(engine, path) for path in paths if path in engine.views]
    await blocking(partial(_check_all, engine, [volume for volume in there if volume]))
    for volume in await blocking(partial(_open_all, engine, new)):
        await engine.add_master(volume)
        engine.history.tell_of(volume.path, "volume added")
    await engine.history.note()
    return [f"{path}: is on the mount already" for path in paths if path not in new]


def _check_all(engine: Engine, volumes: Sequence[Volume]) -> None:
    for volume in volumes:
        astray.check(engine, volume, "svadm -e")


def _open_all(engine: Engine, paths: Sequence[str]) -> list[Volume]:
    """In a thread: open and lock all of them, and let the state database know."""
    with ExitStack() as undo:
        volumes = []
        for path in paths:
            roles.check(engine, [(Part.VOLUME, path)])
            volumes.append(open_volume(path))
            undo.callback(volumes[-1].close)
        engine.db.add_volumes(paths)
        undo.pop_all()
    return volumes


async def release(engine: Engine, paths: Sequence[str], *, sure: bool = False) -> list[str]:
    """Take volumes off the mount, all or none; not there is a remark.

    Raises Refused, Busy, and Question where what is closed may have no name any more.
    """
    views = [engine.views[path] for path in dict.fromkeys(paths) if path in engine.views]
    for view in views:
        if view.family.sets:
            own = view.path in engine.sets
            sets = [view.path] if own else [member.name for member in view.family.sets]
            way = f"disable that first with {command('iiadm -d', *sets)}"
            raise errors.Refused(view.path, "belongs to a set", way)
    astray_ones = [(view.path, view.family.astray) for view in views if view.family.astray]
    loss.check([loss.of_nameless(path, why) for path, why in astray_ones], sure=sure)
    absent = [path for path in paths if path not in engine.views]
    async with engine.closed(views, "close it first"):
        await blocking(partial(engine.db.remove_volumes, paths))
        for view in views:
            await engine.remove_master(view.family)
            engine.history.tell_of(view.path, "volume released")
    await engine.history.note()
    return [f"{path}: is not on the mount" for path in absent]
