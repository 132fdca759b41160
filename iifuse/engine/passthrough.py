"""Volumes on the mount with no set (`svadm`)."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from iifuse import errors
from iifuse.engine import roles
from iifuse.engine.engine import Engine
from iifuse.engine.roles import Part
from iifuse.engine.threads import blocking
from iifuse.store.volume import Volume, open_volume


async def control(engine: Engine, paths: Sequence[str]) -> list[str]:
    """Put volumes under control, all or none; already so is a remark.

    Raises BadVolume, InUse, Busy.
    """
    new = [path for path in dict.fromkeys(paths) if path not in engine.views]
    for volume in await blocking(partial(_open_all, engine, new)):
        await engine.add_master(volume)
    return [f"{path}: is on the mount already" for path in paths if path not in new]


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


async def release(engine: Engine, paths: Sequence[str]) -> list[str]:
    """Take volumes off the mount, all or none; not there is a remark. Raises Refused and Busy."""
    views = [engine.views[path] for path in dict.fromkeys(paths) if path in engine.views]
    for view in views:
        if view.family.sets:
            raise errors.Refused(view.path, "belongs to a set", "disable the set first (iiadm -d)")
    absent = [path for path in paths if path not in engine.views]
    async with engine.closed(views, "close it first"):
        await blocking(partial(engine.db.remove_volumes, paths))
        for view in views:
            await engine.remove_master(view.family)
    return [f"{path}: is not on the mount" for path in absent]
