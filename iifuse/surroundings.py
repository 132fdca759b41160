"""What stands around a service that starts: dead mounts, and what its own mount would hide.

Volumes may lie on a file server that does not answer, which holds up nothing but their own sets.
"""

import os
from functools import partial

from iifuse import errors
from iifuse.fuse.session import clean_up_dead
from iifuse.host.instance import Instance
from iifuse.loop.together import side_by_side
from iifuse.nursery.nursery import Nursery
from iifuse.store.mounts import mounts


async def look(
    instance: Instance, mountpoint: str, state: str, socket: str, children: Nursery
) -> None:
    """Raise ServiceError where the mount would hide what the service needs.

    Mounts that a killed service has left over volumes (`-o in_place`) are taken down.
    """
    volumes = await instance.loop.blocking(partial(_volumes, instance))
    names = {"the state directory": state, "the control socket": socket}
    names |= {f"the volume {path}": path for path in volumes}
    reals = await side_by_side([partial(_real, instance, path) for path in names.values()])
    for (what, path), real in zip(names.items(), reals, strict=True):
        _check(mountpoint, what, path, real)
    await instance.loop.blocking(partial(_clean_up, reals, children))


def _volumes(instance: Instance) -> list[str]:
    names = [name for row in instance.db.sets() for name in (row.master, row.shadow, row.bitmap)]
    return list(dict.fromkeys([*filter(None, names), *instance.db.volumes()]))


async def _real(instance: Instance, path: str) -> str:
    """Where a path leads to, as far as that can be told."""
    try:
        find = partial(os.path.realpath, path)
        return await instance.lookout.ask(path, find)
    except errors.NoAnswer:
        return path


def _check(mountpoint: str, what: str, *paths: str) -> None:
    above = mountpoint.rstrip("/") + "/"
    if any(path.startswith(above) for path in paths):
        raise errors.ServiceError(
            mountpoint, f"lies above {what}, which the mount would hide", "name another mount point"
        )


def _clean_up(paths: list[str], children: Nursery) -> None:
    """In a thread. Only what has a service's mount on it is touched."""
    points = {mount.point for mount in mounts().services}
    clean_up_dead([path for path in paths if path in points], children)
