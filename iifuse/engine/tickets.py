"""The ticket of an exported set: what it says, where it lies, how it gets there."""

import os
import stat
from datetime import UTC, datetime

import msgspec

from iifuse import errors
from iifuse.core import ticket
from iifuse.core.header import Header
from iifuse.core.ticket import Lent, Ticket
from iifuse.engine.engine import Engine
from iifuse.store.volume import sync_directory, write_file


def iso_time(time_ns: int) -> str:
    """ISO 8601 with a zone, microseconds."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")


def lent_of(header: Header) -> Lent:
    """The entry of a ticket for an exported set."""
    return Lent(
        uuid=header.uuid,
        shadow=header.shadow,
        master=header.master,
        pit=header.pit.number,
        pit_id=header.pit.id,
        pit_time=iso_time(header.pit.time_ns),
        export_number=header.export_number,
        size_bytes=header.size_bytes,
    )


def ticket_path(engine: Engine, header: Header) -> str:
    """Beside a shadow that is a regular file, else in the state directory."""
    if stat.S_ISREG(os.stat(header.shadow).st_mode):
        return f"{header.shadow}.iiticket"
    return os.path.join(engine.directory, "tickets", f"{header.uuid}.json")


def write_ticket(path: str, lent: Lent) -> None:
    """Write the ticket of one set, durably. Blocks; raises OSError."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
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


def _entry(path: str, header: Header) -> Lent | None:
    """What an existing ticket says of the set, but for the bitmap that an importer has added."""
    try:
        with open(path, "rb") as file:
            found = ticket.decode(path, file.read(ticket.TICKET_BYTES_MAX + 1))
        return msgspec.structs.replace(ticket.find(path, found, header.shadow), bitmap=None)
    except (OSError, errors.BadTicket):
        return None
