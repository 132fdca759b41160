"""Open volumes whose paths lead to another file now, or to nothing.

What is written then goes to a file that may have no name any more. It is lost when the service
closes its descriptor.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial

from iifuse import errors
from iifuse.core.missing import HELD_ONLY, Missing
from iifuse.core.state import Role
from iifuse.data.family import Family
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store.presence import astray, deleted
from iifuse.store.volume import Volume
from iifuse.units import command

log = logging.getLogger(__name__)


async def look_at_open(instance: Instance) -> None:
    """Compare all open volumes with what is at their paths now, and tell their sets."""
    volumes = {volume.path: volume for volume in _open_volumes(instance)}
    how = {path: partial(way_to_look(instance, v), v) for path, v in volumes.items()}
    found = await instance.lookout.look(how)
    for family in list(instance.families):
        master = family.master
        if master is not None and master.path in found:
            _tell_of_master(family, found[master.path])
        for member in list(family.sets):
            if member.shadow is not None:
                _tell(member, Role.SHADOW, found.get(member.shadow.path))
            if member.bitmap is not None:
                before = Role.BITMAP in member.missing
                _tell(member, Role.BITMAP, found.get(member.bitmap.volume.path))
                if Role.BITMAP in member.missing and not before:
                    await _outdate(instance, member)


def _open_volumes(instance: Instance) -> Iterator[Volume]:
    for family in list(instance.families):
        if family.master is not None:
            yield family.master
        for member in list(family.sets):
            if member.shadow is not None:
                yield member.shadow
            if member.bitmap is not None:
                yield member.bitmap.volume


def _tell_of_master(family: Family, why: str) -> None:
    for member in family.sets:
        _tell(member, Role.MASTER, why)
    if why and not family.sets and why != family.astray:
        log.warning("%s", why)
    family.astray = why


def _tell(member: VolumeSet, role: Role, why: str | None) -> None:
    if why is not None:
        member.miss(role, Missing(why, stranger=True, served=True) if why else None)


async def _outdate(instance: Instance, member: VolumeSet) -> None:
    """Write the header again: the file at the bitmap's path may be a copy, which is older now."""
    try:
        await member.commit()
        await instance.loop.blocking(partial(instance.db.remember, member.header))
    except (errors.StorageError, OSError) as error:
        log.error("%s: %s", member.name, error)  # noqa: TRY400 - the disk has failed, not the code


def way_to_look(instance: Instance, volume: Volume) -> Callable[[Volume], str]:
    """The function that compares a volume with its path.

    If our own file is mounted over the path, the path itself must not be looked at: it leads to us.
    """
    return deleted if is_covered(instance, volume.path) else astray


def is_covered(instance: Instance, path: str) -> bool:
    """Has `-o in_place` mounted our own file over a path?"""
    if not instance.hooks.in_place or path not in instance.views:
        return False
    volume = open_at(instance, path)
    return volume is not None and not volume.is_device


def open_at(instance: Instance, path: str) -> Volume | None:
    """The open volume behind a file of the mount; None: it is not open."""
    member = instance.sets.get(path)
    return instance.views[path].family.master if member is None else member.shadow


def check(instance: Instance, volume: Volume, verb: str) -> None:
    """Raise BadVolume if the path of a volume does not lead to it now. Runs in a thread.

    A user who names the path means the file that is there now.
    """
    why = way_to_look(instance, volume)(volume)
    if why:
        alone = any(f.master is volume and not f.sets for f in list(instance.families))
        raise errors.BadVolume(
            volume.path,
            f"{verb} is not possible: it was replaced while in use: {why}",
            f"{HELD_ONLY}; {command('svadm -d', volume.path)} takes it off the mount"
            if alone
            else HELD_ONLY,
        )


@asynccontextmanager
async def uncovered(instance: Instance, view: View | None, *, lost: bool) -> AsyncIterator[None]:
    """Like `Instance.closed`. If the file is `lost`, its path also leads to what is there now.

    With `-o in_place` the path leads to our mount otherwise. Then the file is taken off the mount,
    and is put back only after an error. Raises Busy.
    """
    hidden: View | None = None
    try:
        async with instance.closed([view], "close it first"):
            if lost and view is not None and instance.hooks.in_place:
                hidden = view
                await instance.hide(view)
            yield
    except BaseException:
        if hidden is not None:
            await instance.show(hidden)
        raise


def why_astray(instance: Instance, view: View) -> str:
    """Why the path of a view's volume does not lead to it any more, for people; empty: it does."""
    member = instance.sets.get(view.path)
    if member is None:
        return view.family.astray
    missing = member.missing.get(Role.SHADOW)
    return missing.why if missing is not None else ""
