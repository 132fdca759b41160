"""Check the names of a new set and open its volumes; every refusal of `-e` and `-I` by name.

A shadow that has all its space at `-e` is reserved: `fallocate` beforehand says that space matters,
as `-o reserve` does. Any other shadow stays sparse, and so is one that `-e` makes.
"""

import os
from contextlib import ExitStack
from dataclasses import dataclass, field

from iifuse import errors
from iifuse.core import loss, sector
from iifuse.core.geometry import Geometry
from iifuse.core.state import Kind, Policy, restores_already
from iifuse.data.family import Family
from iifuse.host import astray, roles
from iifuse.host.instance import Instance
from iifuse.host.roles import Part
from iifuse.store import room
from iifuse.store.files import create_file
from iifuse.store.names import keep_name, remove_file
from iifuse.store.room import Need
from iifuse.store.volume import Volume
from iifuse.units import format_size
from iifuse.verbs import overwriting


@dataclass(frozen=True)
class NewSet:
    """What `-e` asks for; the paths are absolute."""

    kind: Kind
    master: str
    shadow: str
    bitmap: str
    group: str | None = None
    policy: Policy = field(default_factory=Policy)
    reserve: bool = False
    """All of the shadow's space is allocated now, so that no later write can lack it."""
    sure: bool = False
    """What is on shadow and bitmap volume may be overwritten, whatever it is."""


@dataclass
class Opened:
    """The volumes of a set that is being made; `undo` closes and removes what was made for it."""

    family: Family | None
    master: Volume
    shadow: Volume
    bitmap: Volume
    is_sparse: bool
    """Does the shadow lack some of its space?"""
    undo: ExitStack = field(default_factory=ExitStack)

    @property
    def geometry(self) -> Geometry:
        """The master's."""
        return Geometry(self.master.size_bytes)


def open_set(instance: Instance, request: NewSet) -> Opened:
    """In a thread: check the names, open the volumes, make missing ones. Raises, or all is open."""
    _check_names(instance, request)
    with ExitStack() as undo:
        family, master = _open_master(instance, request.master, undo)
        geometry = Geometry(master.size_bytes)
        need = sector.bitmap_bytes(geometry.chunks)
        for path in (request.shadow, request.bitmap):
            check_place(path)
        check_present_size(request.shadow, geometry.size_bytes, "a shadow")
        check_present_size(request.bitmap, need, "a bitmap")
        room.check(_needs(request, geometry.size_bytes, need))
        shadow = open_or_create(instance, request.shadow, geometry.size_bytes, undo, sparse=True)
        bitmap = open_or_create(instance, request.bitmap, need, undo, sparse=False)
        check_size(shadow, geometry.size_bytes, "a shadow")
        check_size(bitmap, need, "a bitmap")
        view = instance.views.get(master.path)
        in_use = view is not None and view.opens > 0
        found = overwriting.by_shadow(instance, master, shadow, in_use=in_use)
        loss.check(found + overwriting.by_bitmap(instance, bitmap), sure=request.sure)
        return Opened(family, master, shadow, bitmap, shadow.is_sparse(), undo.pop_all())


def _needs(request: NewSet, size_bytes: int, bitmap_bytes: int) -> list[Need]:
    """The volumes that are to have all their space before the set is there."""
    needs = [Need(request.bitmap, bitmap_bytes, "the bitmap")]
    if request.reserve:
        needs.append(Need(request.shadow, size_bytes, "the whole shadow"))
    return needs


def _check_names(instance: Instance, request: NewSet) -> None:
    if request.shadow in instance.sets:
        raise errors.InUse(request.shadow, "is the shadow of a set already", "see 'iiadm -l'")
    parts = (Part.MASTER, Part.SHADOW, Part.BITMAP)
    names = (request.master, request.shadow, request.bitmap)
    roles.check(instance, list(zip(parts, names, strict=True)))


def _open_master(instance: Instance, path: str, undo: ExitStack) -> tuple[Family | None, Volume]:
    family = instance.master_family(path, roles.identity_of(instance, path))
    if family is None:
        volume = instance.open_volume(path)
        undo.callback(volume.close)
        return None, volume
    assert family.master is not None
    astray.check(instance, family.master, "-e")
    restoring = family.restoring
    if restoring is not None:
        raise restores_already(path, "-e", restoring.name, restoring.state)
    return family, family.master


def check_place(path: str) -> None:
    """Raise BadVolume when a volume neither exists nor could be made."""
    if not os.path.exists(path) and not os.path.isdir(os.path.dirname(path)):
        raise errors.BadVolume(path, "neither the file nor its directory exists", "make one first")
    if os.path.islink(path) and not os.path.exists(path):
        raise errors.BadVolume(path, "is a link that leads nowhere", "mend the link")


def check_present_size(path: str, need: int, what: str) -> None:
    """Of a file, before anything is made or locked; devices are checked once they are open."""
    if os.path.isfile(path) and os.path.getsize(path) < need:
        raise _too_small(path, os.path.getsize(path), need, what)


def check_size(volume: Volume, need: int, what: str) -> None:
    """Raise BadVolume when an open volume is smaller than `need` bytes."""
    if volume.size_bytes < need:
        raise _too_small(volume.path, volume.size_bytes, need, what)


def _too_small(path: str, size: int, need: int, what: str) -> errors.BadVolume:
    return errors.BadVolume(
        path,
        f"is too small for {what} of this master: {format_size(size)} ({size} bytes)",
        f"it needs {format_size(need)} ({need} bytes)",
    )


def reserve(shadow: Volume) -> None:
    """In a thread: allocate all that it lacks. Raises BadVolume where there is not the room."""
    try:
        shadow.reserve()
    except OSError as error:
        raise errors.BadVolume(
            shadow.path,
            f"its {format_size(shadow.size_bytes)} cannot be reserved ({error.strerror})",
            "make room, or choose another place",
        ) from error


def open_or_create(
    instance: Instance, path: str, size: int, undo: ExitStack, *, sparse: bool
) -> Volume:
    """Open a volume, make it first if it is missing; `undo` closes and removes it again."""
    if not sparse:
        room.check([Need(path, size, "the bitmap")])
    with ExitStack() as failed:
        is_new = not os.path.exists(path)
        if is_new:
            create_file(path, size, sparse=sparse)
            failed.callback(remove_file, path)
        elif os.path.isfile(path):
            keep_name(path)
        volume = instance.open_volume(path)
        failed.pop_all()
    undo.callback(volume.close)
    if is_new:  # it goes first: once it is closed the name may be that of somebody else's
        undo.callback(remove_file, path)
    return volume
