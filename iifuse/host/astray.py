"""Volumes that are open while something else, or nothing, has taken their place.

What is written then goes to a file that may have no name any more: it ends with our descriptor.
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
    """Tell the sets what stands in the places of their open volumes."""
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
    """What stands in the bitmap's place now may be a copy of it, and is older from now on."""
    try:
        await member.commit()
        await instance.loop.blocking(partial(instance.db.remember, member.header))
    except (errors.StorageError, OSError) as error:
        log.error("%s: %s", member.name, error)  # noqa: TRY400 - a disk's error, not a defect


def way_to_look(instance: Instance, volume: Volume) -> Callable[[Volume], str]:
    """Where our own file is mounted over the path, to look there would be to ask ourselves."""
    return deleted if is_covered(instance, volume.path) else astray


def is_covered(instance: Instance, path: str) -> bool:
    """Is our own file mounted over a path (`-o in_place`)?"""
    if not instance.hooks.in_place or path not in instance.views:
        return False
    volume = open_at(instance, path)
    return volume is not None and not volume.is_device


def open_at(instance: Instance, path: str) -> Volume | None:
    """The volume behind a file of the mount."""
    member = instance.sets.get(path)
    return instance.views[path].family.master if member is None else member.shadow


def check(instance: Instance, volume: Volume, verb: str) -> None:
    """In a thread: raise BadVolume if the path of a volume does not lead to it at this moment.

    Who names the path means what stands there now.
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
    """As `Instance.closed`; and a lost file's name leads to what stands there, not to our mount.

    With `-o in_place` the file is off the mount then, and comes back only when this is left by an
    error. Raises Busy.
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
    """Why the path of a file's volume leads to that no more, for people; empty while it does."""
    member = instance.sets.get(view.path)
    if member is None:
        return view.family.astray
    missing = member.missing.get(Role.SHADOW)
    return missing.why if missing is not None else ""
