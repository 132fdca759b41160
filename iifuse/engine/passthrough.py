"""Volumes on the mount with no set (`svadm`)."""

from functools import partial

from iifuse import errors
from iifuse.engine.engine import Engine, checked_path
from iifuse.engine.opening import check_unused
from iifuse.engine.threads import blocking
from iifuse.store.volume import Volume, open_volume


async def control(engine: Engine, path: str) -> list[str]:
    """Put a volume under control; already so is a remark. Raises BadVolume, InUse, Busy."""
    if path in engine.views:
        return [f"{path}: is on the mount already"]
    volume = await blocking(partial(_open, engine, path))
    try:
        await blocking(partial(engine.db.add_volume, path))
    except BaseException:
        volume.close()
        raise
    await engine.add_master(volume)
    return []


def _open(engine: Engine, path: str) -> Volume:
    checked_path(engine, path)
    check_unused(engine, path)
    return open_volume(path)


async def release(engine: Engine, path: str) -> list[str]:
    """Take a volume off the mount; not there is a remark. Raises Refused and Busy."""
    view = engine.views.get(path)
    if view is None:
        await blocking(partial(engine.db.remove_volume, path))
        return [f"{path}: is not on the mount"]
    if view.family.sets:
        raise errors.Refused(path, "belongs to a set", "disable the set first (iiadm -d)")
    async with engine.closed([view], "close it first"):
        await blocking(partial(engine.db.remove_volume, path))
        await engine.remove_master(view.family)
    return []
