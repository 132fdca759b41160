"""The ticket of an exported set: what it says, where it is, and how it is written.

An exported shadow must have a ticket, and a local one must not. So the ticket is written under
another name before the header says exported, and is renamed after that. A start writes a ticket
that is missing.
"""

import logging
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from uuid import UUID

import msgspec

from iifuse import errors
from iifuse.core import ticket
from iifuse.core.header import Header
from iifuse.core.state import Custody
from iifuse.core.ticket import Import, Ticket, TicketEntry
from iifuse.core.times import Times, in_range
from iifuse.host.instance import Instance
from iifuse.store.files import sync_directory, write_file
from iifuse.store.identity import real_path
from iifuse.store.names import make_directory, remove_file

log = logging.getLogger(__name__)


def iso_time(time_ns: int) -> str:
    """A time in nanoseconds since 1970 as ISO 8601 in UTC, with microseconds."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")


def ticket_entry(header: Header) -> TicketEntry:
    """The entry in a ticket for an exported set."""
    times = header.shadow_times
    return TicketEntry(
        uuid=header.uuid,
        shadow=header.shadow,
        master=header.master,
        pit=header.pit.number,
        pit_id=header.pit.id,
        pit_time=iso_time(header.pit.time_ns),
        export_number=header.export_number,
        size_bytes=header.size_bytes,
        mtime_ns=in_range(times.mtime_ns) if times != Times() else msgspec.UNSET,
        ctime_ns=in_range(times.ctime_ns) if times != Times() else msgspec.UNSET,
    )


def ticket_path(instance: Instance, header: Header) -> str:
    """The path of a set's ticket: beside a regular file, or else in the state directory.

    If the shadow is open, its path is not looked at: with `-o in_place` it leads to our own mount.
    The caller may hold the door of a file, and programs that wait for that door may occupy all
    tasks of the mount. Then the look would wait for ever. Raises OSError if the shadow cannot be
    found.
    """
    member = instance.sets.get(header.shadow)
    shadow = member.shadow if member is not None else None
    is_file = shadow is not None and not shadow.is_device
    if is_file or (shadow is None and stat.S_ISREG(os.stat(header.shadow).st_mode)):
        return f"{header.shadow}.iiticket"
    return _own_path(instance, header)


def _own_path(instance: Instance, header: Header) -> str:
    return os.path.join(instance.directory, "tickets", f"{header.uuid}.json")


def remove_own_ticket(instance: Instance, header: Header) -> None:
    """Remove the tickets of a disabled set from the state directory. Blocks."""
    for path in (_own_path(instance, header), f"{_own_path(instance, header)}.draft"):
        with suppress(OSError):
            if os.path.exists(path):
                remove_file(path)


def write_ticket(path: str, lent: TicketEntry) -> None:
    """Write the ticket of one set, durably. Blocks; raises OSError."""
    make_directory(os.path.dirname(path))
    write_file(path, ticket.encode(Ticket(sets=(lent,))))


def publish_ticket(path: str) -> None:
    """Rename the draft of a ticket to its name, durably. Blocks; raises OSError."""
    os.rename(f"{path}.draft", path)
    sync_directory(path)


def restore_ticket(instance: Instance, header: Header) -> str | None:
    """Do at a start what a crash has left undone for a set's ticket. Blocks; raises OSError.

    Returns the path of the ticket if the set is exported. If the ticket is missing, the draft
    becomes the ticket, or a new one is written, which has no fingerprint. The ticket of a set that
    is local again gets the note that the export is over. The ticket of an imported shadow gets the
    name of the import.
    """
    if header.custody is Custody.IMPORTED:
        unnamed = name_import(header)
        if unnamed:
            log.warning("%s", unnamed)
    if header.custody is Custody.LOCAL:
        end_export(instance, header)
    if header.custody is not Custody.EXPORTED or not header.export_number:
        return None  # if the bitmap volume is lost, only the present ticket knows the export
    path = ticket_path(instance, header)
    found = _entry(path, header)
    if found is not None and _as_written(found) == ticket_entry(header):
        sync_directory(path)  # the service may have been killed before it did this
        return path
    if _entry(f"{path}.draft", header) is not None:
        publish_ticket(path)
        return path
    kept = {} if found is None else {"fingerprint": found.fingerprint, "imports": found.imports}
    write_ticket(path, msgspec.structs.replace(ticket_entry(header), **kept))
    return path


def end_export(instance: Instance, header: Header) -> None:
    """Note in the ticket that the export is over, because the shadow is local again. Blocks.

    If the ticket cannot be written, that is logged, and the next start tries again.
    """
    if not header.export_number:
        return
    try:
        path = ticket_path(instance, header)
        found = _entry(path, header)
        if found is not None and not found.joined:
            write_ticket(path, msgspec.structs.replace(found, joined=True))
    except OSError as error:
        log.warning("%s: its ticket cannot be written: %s", header.shadow, error)


def check_not_lent(path: str, known: tuple[UUID, int] | None = None) -> None:
    """Raise Refused if the ticket of an export that is not over is beside a volume. Blocks.

    `known`: (set, export number) of a ticket that may be there. An export number of 0 stands for
    any export: after the loss of the bitmap volume only the ticket knows the number.
    """
    for name in dict.fromkeys((path, real_path(path))):
        beside = f"{name}.iiticket"
        for lent in _entries(beside, name):
            if not lent.joined and not _is_known(lent, known):
                raise errors.Refused(
                    path,
                    f"is lent: {beside} is of export {lent.export_number} of {lent.shadow}, which "
                    "is not joined",
                    "join it on the host that exported it; if that host is gone for good, or its "
                    f"set was disabled, and nobody writes to the shadow, remove {beside}",
                )


def _is_known(lent: TicketEntry, known: tuple[UUID, int] | None) -> bool:
    return known is not None and known in ((lent.uuid, lent.export_number), (lent.uuid, 0))


def _entries(beside: str, path: str) -> list[TicketEntry]:
    """The entries of a ticket that concern the volume beside it. Raises Refused."""
    try:
        found = read_ticket(beside)
    except (FileNotFoundError, IsADirectoryError):
        return []
    except (OSError, errors.BadTicket) as error:
        raise errors.Refused(
            path,
            "may be lent to another host: the ticket beside it cannot be read "
            f"({errors.words(error)})",
            f"if it is not, remove {beside}",
        ) from error
    return [lent for lent in found.sets if lent.shadow == path or len(found.sets) == 1]


def name_import(header: Header, earlier: UUID | None = None) -> str:
    """Add an import to the ticket beside the shadow, if there is a ticket. Blocks.

    By this a join knows that there are other imports. It is done before anything can be written to
    the shadow. If the import fails after that, the only harm is a full copy. `earlier`: an import
    of the same export that has changed nothing and whose bitmap volume is used again; it is
    removed.

    Returns what to tell the user if the ticket cannot be written; empty: it was written.
    """
    try:
        _rewrite_imports(header, partial(_with_import, header, earlier))
    except (OSError, errors.BadTicket) as error:
        return (
            f"{header.shadow}: this import cannot be named in the ticket beside it "
            f"({errors.words(error)}), so the join of another one would know nothing of it: join "
            f"{header.bitmap} before the update that follows any other join"
        )
    return ""


def withdraw_import(header: Header) -> None:
    """Remove a failed import from the ticket. If it stayed there, an update would copy more."""
    with suppress(OSError, errors.BadTicket):
        _rewrite_imports(header, partial(_without_import, header))


def _rewrite_imports(header: Header, change: Callable[[TicketEntry], TicketEntry]) -> None:
    path, own = f"{header.shadow}.iiticket", (header.uuid, header.export_number)
    try:
        found = read_ticket(path)
    except FileNotFoundError:
        return  # there is none here, for example because the shadow is a device
    same = ((lent, (lent.uuid, lent.export_number) == own) for lent in found.sets)
    sets = tuple(change(lent) if is_own else lent for lent, is_own in same)
    if sets != found.sets:
        write_file(path, ticket.encode(msgspec.structs.replace(found, sets=sets)))


def _with_import(header: Header, earlier: UUID | None, lent: TicketEntry) -> TicketEntry:
    if any(made.id == header.import_id for made in lent.imports):
        return lent
    # The bitmap's path is not compared: on another host it is that of another volume.
    others = tuple(made for made in lent.imports if made.id != earlier)
    made = Import(header.import_id, header.bitmap)
    return msgspec.structs.replace(lent, imports=(*others, made))


def _without_import(header: Header, lent: TicketEntry) -> TicketEntry:
    others = tuple(made for made in lent.imports if made.id != header.import_id)
    return msgspec.structs.replace(lent, imports=others)


def ticket_of(instance: Instance, header: Header) -> TicketEntry | None:
    """The entry in the ticket of a set's last export; None: there is no ticket. Blocks."""
    try:
        return _entry(ticket_path(instance, header), header)
    except OSError:
        return None


def with_beside(lent: TicketEntry, shadow: str) -> TicketEntry:
    """An entry, with the imports and the join that the ticket beside the shadow knows. Blocks.

    Raises BadTicket if that ticket is of a later export.
    """
    try:
        beside = ticket.find("", read_ticket(f"{shadow}.iiticket"), shadow)
    except (OSError, errors.BadTicket):
        return lent
    if beside.uuid == lent.uuid and beside.export_number > lent.export_number:
        raise errors.BadTicket(
            shadow,
            f"the ticket is of export {lent.export_number}, the one beside the shadow of a later "
            f"one ({beside.export_number})",
            "use the newest ticket",
        )
    if (beside.uuid, beside.export_number) != (lent.uuid, lent.export_number):
        return lent
    imports = tuple(dict.fromkeys(lent.imports + beside.imports))
    return msgspec.structs.replace(lent, imports=imports, joined=lent.joined or beside.joined)


def read_ticket(path: str) -> Ticket:
    """Read the ticket at a path. Blocks; raises OSError and BadTicket."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        return ticket.decode(path, file.read(ticket.TICKET_BYTES_MAX + 1))


def lent_again(instance: Instance, header: Header) -> TicketEntry:
    """The entry in the ticket of an exported set, as the exporting host needs it. Blocks."""
    found = _entry(ticket_path(instance, header), header) or ticket_entry(header)
    return msgspec.structs.replace(found, bitmap=None)


def _entry(path: str, header: Header) -> TicketEntry | None:
    """The entry of a ticket for the last export of a set; None: it is of something else."""
    try:
        found = ticket.find(path, read_ticket(path), header.shadow)
    except (OSError, errors.BadTicket):
        return None
    same = (found.uuid, found.export_number) == (header.uuid, header.export_number)
    return found if same else None


def _as_written(found: TicketEntry) -> TicketEntry:
    """An entry without the fields that only the export itself and importers add."""
    bare = {"bitmap": None, "imports": (), "joined": msgspec.UNSET, "fingerprint": msgspec.UNSET}
    return msgspec.structs.replace(found, **bare)
