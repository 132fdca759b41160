"""The ticket of an exported set: what it says, where it lies, how it gets there.

It is written under another name before the header says exported, and renamed after that: it must
neither be missing for an exported shadow nor exist for a local one. A restart writes a missing one.
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
    """ISO 8601 with a zone, microseconds."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")


def ticket_entry(header: Header) -> TicketEntry:
    """The entry of a ticket for an exported set."""
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
    """Beside a shadow that is a regular file, else in the state directory.

    An open one is not looked at by its name, which leads to our own mount with `-o in_place`: who
    waits there under a door, for which programs wait that take all that the mount can serve at
    once, waits for ever. Raises OSError where the shadow is not to be found.
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
    """A set that is no more lends nothing: no ticket of it stays in the state directory. Blocks."""
    for path in (_own_path(instance, header), f"{_own_path(instance, header)}.draft"):
        with suppress(OSError):
            if os.path.exists(path):
                remove_file(path)


def write_ticket(path: str, lent: TicketEntry) -> None:
    """Write the ticket of one set, durably. Blocks; raises OSError."""
    make_directory(os.path.dirname(path))
    write_file(path, ticket.encode(Ticket(sets=(lent,))))


def publish_ticket(path: str) -> None:
    """Let a draft be the ticket, durably. Blocks; raises OSError."""
    os.rename(f"{path}.draft", path)
    sync_directory(path)


def settle_ticket(instance: Instance, header: Header) -> str | None:
    """At start: what a crash has kept from the ticket of a set; its path while it is exported.

    Raises OSError.

    An exported set has one: the draft of the export, or at least a new one, which has no
    fingerprint. The ticket of a set that is local again says so. An imported one names the import,
    which could not be written when it was made, or was lost since.
    """
    if header.custody is Custody.IMPORTED:
        unnamed = name_import(header)
        if unnamed:
            log.warning("%s", unnamed)
    if header.custody is Custody.LOCAL:
        end_export(instance, header)
    if header.custody is not Custody.EXPORTED or not header.export_number:
        return None  # its bitmap volume is lost: only the ticket that is there knows the export
    path = ticket_path(instance, header)
    found = _entry(path, header)
    if found is not None and _as_written(found) == ticket_entry(header):
        sync_directory(path)  # the crash may have come before that
        return path
    if _entry(f"{path}.draft", header) is not None:
        publish_ticket(path)
        return path
    kept = {} if found is None else {"fingerprint": found.fingerprint, "imports": found.imports}
    write_ticket(path, msgspec.structs.replace(ticket_entry(header), **kept))
    return path


def end_export(instance: Instance, header: Header) -> None:
    """The shadow is this host's again: its ticket keeps nobody from it any more. Blocks.

    Where it cannot be written so be it: each start looks at it again.
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
    """Raise Refused when a ticket lies beside a volume, of an export that is not joined.

    `known`: set and export of which a ticket may lie there; 0: which export it is, only the ticket
    knows, because the bitmap volume of the set is lost. Blocks.
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
    """What a ticket says of a volume that it lies beside; it may be one for many others."""
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
    """Name an import in the ticket beside the shadow, as far as there is one. Blocks.

    So that a join can tell that it is not the only one: before anything can be written to the
    shadow, since one that is named and came to nothing only costs a full copy. `earlier`: one of
    this export that has brought nothing, and whose bitmap volume is used again.

    What to tell people where the ticket cannot be written; empty: all is well.
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
    """An import has come to nothing. Where it stays in the ticket, the next update is longer."""
    with suppress(OSError, errors.BadTicket):
        _rewrite_imports(header, partial(_without_import, header))


def _rewrite_imports(header: Header, change: Callable[[TicketEntry], TicketEntry]) -> None:
    path, own = f"{header.shadow}.iiticket", (header.uuid, header.export_number)
    try:
        found = read_ticket(path)
    except FileNotFoundError:
        return  # it lies elsewhere, as that of a device
    same = ((lent, (lent.uuid, lent.export_number) == own) for lent in found.sets)
    sets = tuple(change(lent) if is_own else lent for lent, is_own in same)
    if sets != found.sets:
        write_file(path, ticket.encode(msgspec.structs.replace(found, sets=sets)))


def _with_import(header: Header, earlier: UUID | None, lent: TicketEntry) -> TicketEntry:
    if any(made.id == header.import_id for made in lent.imports):
        return lent
    # Not by the bitmap's path: on another host that is another volume.
    others = tuple(made for made in lent.imports if made.id != earlier)
    made = Import(header.import_id, header.bitmap)
    return msgspec.structs.replace(lent, imports=(*others, made))


def _without_import(header: Header, lent: TicketEntry) -> TicketEntry:
    others = tuple(made for made in lent.imports if made.id != header.import_id)
    return msgspec.structs.replace(lent, imports=others)


def ticket_of(instance: Instance, header: Header) -> TicketEntry | None:
    """What the ticket of a set's last export says, if there is one. Blocks."""
    try:
        return _entry(ticket_path(instance, header), header)
    except OSError:
        return None


def with_beside(lent: TicketEntry, shadow: str) -> TicketEntry:
    """What a ticket and the one beside the shadow know together of imports and joins. Blocks.

    Raises BadTicket when the one beside is of a later export.
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
    """Raises OSError and BadTicket."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(fd, "rb") as file:
        return ticket.decode(path, file.read(ticket.TICKET_BYTES_MAX + 1))


def lent_again(instance: Instance, header: Header) -> TicketEntry:
    """What the ticket of an exported set says, for the exporting host. Blocks."""
    found = _entry(ticket_path(instance, header), header) or ticket_entry(header)
    return msgspec.structs.replace(found, bitmap=None)


def _entry(path: str, header: Header) -> TicketEntry | None:
    """What a ticket says of the last export of a set; None when it is of something else."""
    try:
        found = ticket.find(path, read_ticket(path), header.shadow)
    except (OSError, errors.BadTicket):
        return None
    same = (found.uuid, found.export_number) == (header.uuid, header.export_number)
    return found if same else None


def _as_written(found: TicketEntry) -> TicketEntry:
    """Without what only the export and importers can add."""
    bare = {"bitmap": None, "imports": (), "joined": msgspec.UNSET, "fingerprint": msgspec.UNSET}
    return msgspec.structs.replace(found, **bare)
