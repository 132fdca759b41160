"""Known imports of an export that were not joined.

Only the bitmap of such an import says what it has written to the shadow. While there is one, equal
bits do not mean equal bytes, so an update copies everything. An import adds itself to the ticket,
and by that it is known. What was read in the ticket is kept in the state database, since the ticket
may be deleted. This ends when the import is joined, or with the next export: before that an update
has copied everything.
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
    """Read which imports are known, and keep that. Raises StorageError if it cannot be kept."""
    header = member.header
    if header.role is BitmapRole.MAIN and header.export_number:
        if member.shadow is None:
            await instance.check_answering(member.name)
        known = await instance.loop.blocking(partial(_known, instance, header))
        member.unjoined = tuple(known[key] for key in known if key not in header.joined)
    else:
        member.unjoined = ()


async def learn_at_start(instance: Instance) -> None:
    """Call `learn` for all sets. If it fails for one, the next verb on that set reports it."""
    for member in list(instance.sets.values()):
        try:
            await learn(instance, member)
        except errors.IifuseError as error:
            log.error("%s: %s", member.name, error)  # noqa: TRY400 - the disk has failed


def look(instance: Instance, header: Header) -> tuple[str, ...]:
    """The bitmaps that `learn` would find, without keeping them. Runs in a thread."""
    if header.role is not BitmapRole.MAIN or not header.export_number:
        return ()
    known = instance.db.imports(header.uuid, header.export_number)
    known |= _named(instance, header)
    return tuple(path for key, path in known.items() if key not in header.joined)


def _known(instance: Instance, header: Header) -> dict[UUID, str]:
    """The known imports of the last export: id -> path of the bitmap. Runs in a thread."""
    known = instance.db.imports(header.uuid, header.export_number)
    new = {key: path for key, path in _named(instance, header).items() if key not in known}
    if new:
        instance.db.add_imports(header.uuid, header.export_number, new)
    return known | new


def _named(instance: Instance, header: Header) -> dict[UUID, str]:
    """The imports in the ticket of the last export, if the ticket is still there."""
    lent = ticket_of(instance, header)
    return {made.id: made.bitmap for made in lent.imports} if lent else {}


def are_known(instance: Instance, header: Header, but: UUID) -> bool:
    """Is an import known, other than `but`, that is not joined yet? Runs in a thread."""
    return not _known(instance, header).keys() <= {but, *header.joined}
