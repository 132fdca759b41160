"""Volumes on the mount that belong to no set (`svadm`)."""

from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial

from iifuse import errors
from iifuse.core import loss
from iifuse.host import astray, roles
from iifuse.host.instance import Instance
from iifuse.host.roles import Part
from iifuse.loop.lookout import PATIENT_S
from iifuse.store.volume import Volume, close_all
from iifuse.units import command


async def control(instance: Instance, paths: Sequence[str]) -> list[str]:
    """Put volumes on the mount, all of them or none. Returns remarks about those that are there.

    Raises BadVolume, InUse, Busy.
    """
    new = [path for path in dict.fromkeys(paths) if path not in instance.views]
    there = [astray.open_at(instance, path) for path in paths if path in instance.views]
    await instance.loop.blocking(
        partial(_check_all, instance, [volume for volume in there if volume])
    )
    for volume in await _open_in_time(instance, new):
        await instance.add_master(volume)
        instance.history.tell_of(volume.path, "volume added")
    await instance.history.note()
    return [f"{path}: is on the mount already" for path in paths if path not in new]


def _check_all(instance: Instance, volumes: Sequence[Volume]) -> None:
    for volume in volumes:
        astray.check(instance, volume, "svadm -e")


async def _open_in_time(instance: Instance, paths: Sequence[str]) -> list[Volume]:
    """Open all of them, and let the state database know."""
    if not paths:
        return []
    await instance.look_at_closed()
    await instance.check_answering(*paths)
    opening = partial(_open_all, instance, paths)
    volumes = await instance.lookout.ask(paths[0], opening, close_all, PATIENT_S)
    try:
        await instance.loop.blocking(partial(instance.db.add_volumes, paths))
    except BaseException:
        await instance.loop.blocking(partial(close_all, volumes))
        raise
    return volumes


def _open_all(instance: Instance, paths: Sequence[str]) -> list[Volume]:
    """In a thread: open and lock all of them."""
    with ExitStack() as undo:
        volumes = []
        for path in paths:
            roles.check(instance, [(Part.VOLUME, path)])
            volumes.append(instance.open_volume(path))
            undo.callback(volumes[-1].close)
        undo.pop_all()
    return volumes


async def release(instance: Instance, paths: Sequence[str], *, sure: bool = False) -> list[str]:
    """Take volumes off the mount, all or none. Returns remarks about those that are not there.

    Raises Refused, Busy, and Question if a file that would be closed may have no name any more.
    """
    views = [instance.views[path] for path in dict.fromkeys(paths) if path in instance.views]
    for view in views:
        if view.family.sets:
            own = view.path in instance.sets
            sets = [view.path] if own else [member.name for member in view.family.sets]
            way = f"disable that first with {command('iiadm -d', *sets)}"
            raise errors.Refused(view.path, "belongs to a set", way)
    astray_ones = [(view.path, view.family.astray) for view in views if view.family.astray]
    loss.check([loss.of_nameless(path, why) for path, why in astray_ones], sure=sure)
    absent = [path for path in paths if path not in instance.views]
    async with instance.closed(views, "close it first"):
        await instance.loop.blocking(partial(instance.db.remove_volumes, paths))
        for view in views:
            await instance.remove_master(view.family)
            instance.history.tell_of(view.path, "volume released")
    await instance.history.note()
    return [f"{path}: is not on the mount" for path in absent]
