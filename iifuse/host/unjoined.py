"""Imports of an export that are known and were not joined.

What such an import has written to the shadow is noted in its own bitmap and nowhere else. While
there is one, equal bits do not mean equal bytes, and an update copies everything. Known is an
import by the ticket that it has noted itself in. What was read there once is kept in the state
database: the ticket may go away, the writes do not. It ends when that import is joined, or with the
next export, before which an update has copied everything.
"""

import logging
from functools import partial
from uuid import UUID

from iifuse import errors
from iifuse.core.header import BitmapRole, Header
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.host.tickets import ticket_of

log = logging.getLogger(__name__)


async def learn(instance: Instance, member: VolumeSet) -> None:
    """Find out what is known now, and keep it. Raises StorageError when it cannot be kept."""
    header = member.header
    if header.role is BitmapRole.MAIN and header.export_number:
        known = await instance.loop.blocking(partial(_known, instance, header))
        member.unjoined = tuple(known[key] for key in known if key not in header.joined)
    else:
        member.unjoined = ()


async def learn_at_start(instance: Instance) -> None:
    """For all sets; where it fails, the next verb says so."""
    for member in list(instance.sets.values()):
        try:
            await learn(instance, member)
        except errors.IifuseError as error:
            log.error("%s: %s", member.name, error)  # noqa: TRY400 - a disk's error, not a defect


def look(instance: Instance, header: Header) -> tuple[str, ...]:
    """In a thread: the bitmaps of those that `learn` would find; nothing is kept."""
    if header.role is not BitmapRole.MAIN or not header.export_number:
        return ()
    known = instance.db.imports(header.uuid, header.export_number)
    known |= _named(instance, header)
    return tuple(path for key, path in known.items() if key not in header.joined)


def _known(instance: Instance, header: Header) -> dict[UUID, str]:
    """In a thread: import id -> its bitmap, for the last export."""
    known = instance.db.imports(header.uuid, header.export_number)
    new = {key: path for key, path in _named(instance, header).items() if key not in known}
    if new:
        instance.db.add_imports(header.uuid, header.export_number, new)
    return known | new


def _named(instance: Instance, header: Header) -> dict[UUID, str]:
    """What the ticket of the last export says, as long as it lies there."""
    lent = ticket_of(instance, header)
    return {made.id: made.bitmap for made in lent.imports} if lent else {}


def are_known(instance: Instance, header: Header, but: UUID) -> bool:
    """In a thread: is an import known, other than this one, that is not joined yet?"""
    return not _known(instance, header).keys() <= {but, *header.joined}
