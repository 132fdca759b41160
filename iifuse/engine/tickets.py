"""The ticket of an exported set: what it says, where it lies, how it gets there."""

import logging
import os
import stat
from datetime import UTC, datetime
from uuid import UUID

import msgspec

from iifuse import errors
from iifuse.core import ticket
from iifuse.core.header import Header
from iifuse.core.ticket import Import, Lent, Ticket
from iifuse.core.times import Times, asked
from iifuse.engine.engine import Engine
from iifuse.store.names import make_directory
from iifuse.store.volume import sync_directory, write_file

log = logging.getLogger(__name__)


def iso_time(time_ns: int) -> str:
    """ISO 8601 with a zone, microseconds."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")


def lent_of(header: Header) -> Lent:
    """The entry of a ticket for an exported set."""
    times = header.shadow_times
    return Lent(
        uuid=header.uuid,
        shadow=header.shadow,
        master=header.master,
        pit=header.pit.number,
        pit_id=header.pit.id,
        pit_time=iso_time(header.pit.time_ns),
        export_number=header.export_number,
        size_bytes=header.size_bytes,
        mtime_ns=asked(times.mtime_ns) if times != Times() else msgspec.UNSET,
        ctime_ns=asked(times.ctime_ns) if times != Times() else msgspec.UNSET,
    )


def ticket_path(engine: Engine, header: Header) -> str:
    """Beside a shadow that is a regular file, else in the state directory."""
    if stat.S_ISREG(os.stat(header.shadow).st_mode):
        return f"{header.shadow}.iiticket"
    return os.path.join(engine.directory, "tickets", f"{header.uuid}.json")


def write_ticket(path: str, lent: Lent) -> None:
    """Write the ticket of one set, durably. Blocks; raises OSError."""
    make_directory(os.path.dirname(path))
    write_file(path, ticket.encode(Ticket(sets=(lent,))))


def publish_ticket(path: str) -> None:
    """Let a draft be the ticket, durably. Blocks; raises OSError."""
    os.rename(f"{path}.draft", path)
    sync_directory(path)


def restore_ticket(engine: Engine, header: Header) -> None:
    """At start: write the ticket of an exported set, should a crash have come before it.

    Raises OSError.
    """
    path = ticket_path(engine, header)
    if not os.path.exists(path) or _entry(path, header) != lent_of(header):
        write_ticket(path, lent_of(header))
    else:
        sync_directory(path)  # the crash may have come before that


def note_import(header: Header, earlier: UUID | None = None) -> None:
    """Name an import in the ticket beside the shadow, as far as there is one. Blocks.

    So that a join can tell that it is not the only one. `earlier`: one of this export that has
    brought nothing, and whose bitmap volume is used again.
    """
    path = f"{header.shadow}.iiticket"
    made = Import(header.import_id, header.bitmap)
    try:
        found = _read(path)
        sets = tuple(_with_import(lent, header, made, earlier) for lent in found.sets)
        write_file(path, ticket.encode(msgspec.structs.replace(found, sets=sets)))
    except (OSError, errors.BadTicket) as error:
        log.info("%s: the import cannot be noted in the ticket: %s", header.shadow, error)


def _with_import(lent: Lent, header: Header, made: Import, earlier: UUID | None) -> Lent:
    if (lent.uuid, lent.export_number) != (header.uuid, header.export_number):
        return lent
    # Not by the bitmap's path: on another host that is another volume.
    others = tuple(i for i in lent.imports if i.id != earlier)
    return msgspec.structs.replace(lent, imports=(*others, made))


def _read(path: str) -> Ticket:
    with open(path, "rb") as file:
        return ticket.decode(path, file.read(ticket.TICKET_BYTES_MAX + 1))


def lent_again(engine: Engine, header: Header) -> Lent:
    """What the ticket of an exported set says, for who asks once more. Blocks."""
    return _entry(ticket_path(engine, header), header) or lent_of(header)


def _entry(path: str, header: Header) -> Lent | None:
    """What an existing ticket says of the set, but for what importers have added."""
    try:
        found = ticket.find(path, _read(path), header.shadow)
    except (OSError, errors.BadTicket):
        return None
    return msgspec.structs.replace(found, bitmap=None, imports=())
