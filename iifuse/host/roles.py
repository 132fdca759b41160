"""Which volume is used for what. Every verb that adds a volume asks this table.

A volume has one role in one service. Only a master may belong to several sets. A volume is
recognised under any name (store/identity.py). Other services of the host are kept away from open
volumes by store/claims.py. Volumes that are not open, because they are exported or offline, are
known only here.
"""

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from typing import NamedTuple
from uuid import UUID

from iifuse import errors
from iifuse.core.state import Custody
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.host.tickets import check_not_lent
from iifuse.store import identity as identities
from iifuse.store.identity import Identity
from iifuse.units import command


class Part(Enum):
    """What a volume is used for. VOLUME: it is on the mount and belongs to no set."""

    MASTER = "a master"
    SHADOW = "a shadow"
    LENT = "an exported shadow"
    BITMAP = "a bitmap"
    VOLUME = "a volume with no set"


class Use(NamedTuple):
    """A row of the table. `identity`: None if the volume is not open and cannot be found."""

    part: Part
    path: str
    identity: Identity | None


Wanted = Sequence[tuple[Part, str]]


def check(
    instance: Instance,
    wanted: Wanted,
    *,
    own: VolumeSet | None = None,
    ticket: tuple[UUID, int] | None = None,
) -> None:
    """Check that these volumes may be used as wanted. Runs in a thread.

    `own`: the volumes belong to this set already. `ticket`: (set, export number) of a ticket that
    may be beside one of them. Raises UsageError or InUse if a volume is used already, BadVolume if
    it is no volume or is on the mount of a service, and Refused if it is exported.
    """
    if own is not None:
        ticket = own.key, own.header.export_number
    _check_distinct([path for _, path in wanted])
    table = list(uses(instance, own))
    found: list[Use] = []
    for part, path in wanted:
        new = Use(part, path, _identity(table, path))
        for use in table:
            _check_against(new, use)
        for other in found:
            if _meet(new, other):
                raise errors.InUse(path, f"is the same volume as {other.path}", "name another one")
        found.append(new)
        check_not_lent(path, ticket)


def uses(instance: Instance, but: VolumeSet | None = None) -> Iterator[Use]:
    """In a thread: the whole table, without a set's own shadow and bitmap."""
    look = partial(_look, set(instance.lookout.silent))
    for family in list(instance.families):
        if family.path is not None:
            part, master = Part.MASTER if family.sets else Part.VOLUME, family.master
            yield Use(part, family.path, master.identity if master else look(family.path))
        for member in list(family.sets):
            if member is not but:
                yield from _uses_of(member, look)
    open_or_awaited = {family.path for family in list(instance.families)}
    for path in instance.db.volumes():  # a missing volume of svadm is known only to the database
        if path not in open_or_awaited:
            yield Use(Part.VOLUME, path, look(path))


def _uses_of(
    member: VolumeSet, look: Callable[[str], Identity | None]
) -> Iterator[Use]:
    shadow, bitmap, place = member.shadow, member.bitmap, member.header.bitmap
    part = Part.SHADOW if member.header.custody is not Custody.EXPORTED else Part.LENT
    yield Use(part, member.name, shadow.identity if shadow else look(member.name))
    yield Use(Part.BITMAP, place, bitmap.volume.identity if bitmap else look(place))


def _look(silent: Container[str], path: str) -> Identity | None:
    """What stands where a volume of ours should be, which is not open.

    A path that does not answer is not asked: it would keep verbs on other sets waiting.
    """
    if path in silent:
        return None
    with suppress(errors.IifuseError):
        return identities.find(path)
    return None


def _identity(table: list[Use], path: str) -> Identity | None:
    """The identity of the volume at a path.

    If the volume is open, its own identity counts: with `-o in_place` the path leads to our mount.
    """
    known = (use.identity for use in table if use.path == path and use.identity)
    return next(known, None) or identities.find(path)


def _check_distinct(paths: list[str]) -> None:
    if len(set(paths)) == len(paths):
        return
    has_master = len(paths) > 2
    wanted = "master, shadow and bitmap must be three volumes" if has_master else (
        "shadow and bitmap must be two volumes"
    )  # fmt: skip
    raise errors.UsageError(paths[0], wanted)


def _check_against(new: Use, use: Use) -> None:
    if not _meet(new, use) or _go_together(new, use):
        return
    if _is_same(new, use):
        why = f"is {use.part.value} of this service already"
    else:
        why = f"shares storage with {use.path}, {use.part.value} of this service"
    todo = "name another volume"
    if use.part is Part.VOLUME:
        off = command("svadm -d", use.path)
        todo = f"{off} takes it off the mount; or name another volume"
    elif new.part is Part.MASTER and use.part in (Part.SHADOW, Part.LENT):
        todo = "a shadow of a shadow is not possible"
    raise errors.InUse(new.path, why, todo)


def _go_together(new: Use, use: Use) -> bool:
    """May a volume have both roles? A master may have several sets and be a volume of svadm."""
    if new.part is Part.MASTER:
        return use.part in (Part.MASTER, Part.VOLUME) and _is_same(new, use)
    both_alone = new.part is Part.VOLUME and use.part is Part.VOLUME
    return both_alone and new.path == use.path


def _meet(new: Use, use: Use) -> bool:
    """Would a write to one change the other?"""
    if new.path == use.path:
        return True
    return new.identity is not None and use.identity is not None and (
        new.identity.conflicts(use.identity)
    )  # fmt: skip


def _is_same(new: Use, use: Use) -> bool:
    if new.path == use.path:
        return True
    return new.identity is not None and use.identity is not None and (
        new.identity.is_same(use.identity)
    )  # fmt: skip


def identity_of(instance: Instance, path: str) -> Identity:
    """The identity of a volume that must exist. Runs in a thread. Raises BadVolume."""
    return _identity(list(uses(instance)), path) or identities.identify(path)
