"""The ticket that goes with an exported shadow: a JSON file. It may come from a hostile host."""

from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from iifuse import errors
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.times import ASKED_NS_MAX, Times
from iifuse.units import Path

TICKET_BYTES_MAX: Final = 4 * 1024 * 1024
_PRINTS_MAX: Final = 64
Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{16}$")]
Fingerprint = Annotated[
    dict[Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)], Checksum],
    msgspec.Meta(max_length=_PRINTS_MAX),
]
"""Chunk -> the checksum of what it held at the export."""
Number = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]
Time = Annotated[int, msgspec.Meta(ge=-ASKED_NS_MAX, le=ASKED_NS_MAX)]


class Import(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An import that was made with a ticket, and the secondary bitmap that notes its changes."""

    id: UUID
    bitmap: Path


class TicketEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a ticket says of one exported shadow.

    `bitmap`: the secondary bitmap; the importer fills it in. `imports`: the imports that could add
    themselves to the ticket. `joined`: the export is over. `mtime_ns` and `ctime_ns`: the times
    that the shadow's file showed at the export, so that the imported file shows the same.
    `fingerprint`: checksums by which this shadow is recognised.

    A ticket of version 0.1.0 lacks the last four. If it is rewritten it stays readable for 0.1.0.
    """

    uuid: UUID
    shadow: Path
    master: Path
    pit: Number
    pit_id: UUID
    pit_time: str
    export_number: Number
    size_bytes: int
    chunk_bytes: int = CHUNK_BYTES
    bitmap: Path | None = None
    imports: tuple[Import, ...] = ()
    mtime_ns: Time | msgspec.UnsetType = msgspec.UNSET
    ctime_ns: Time | msgspec.UnsetType = msgspec.UNSET
    joined: bool | msgspec.UnsetType = msgspec.UNSET
    fingerprint: Fingerprint | msgspec.UnsetType = msgspec.UNSET

    @property
    def times(self) -> Times:
        """The times that the shadow's file showed at the export; all 0: unknown."""
        return Times(self.mtime_ns or 0, self.ctime_ns or 0)

    @property
    def prints(self) -> Fingerprint:
        """The fingerprint; empty: unknown."""
        return self.fingerprint or {}


class Ticket(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One export of one or several sets. `group`: the group that iiimport makes of them."""

    sets: tuple[TicketEntry, ...]
    group: str | None = None
    format: Literal["iifuse-ticket-1", "iifuse-ticket-2"] = "iifuse-ticket-2"
    """Version 0.1.0 wrote the first format, which lacks some fields."""


def encode(ticket: Ticket) -> bytes:
    """The ticket as JSON text, indented for people."""
    return msgspec.json.format(msgspec.json.encode(ticket), indent=2) + b"\n"


def decode(path: str, blob: bytes) -> Ticket:
    """Read a ticket; `path` is for messages. Raises BadTicket."""
    if len(blob) > TICKET_BYTES_MAX:
        raise errors.BadTicket(path, "too long for a ticket")
    try:
        ticket = msgspec.json.decode(blob, type=Ticket)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise errors.BadTicket(path, f"not a ticket of iifuse ({error})") from error
    if not ticket.sets:
        raise errors.BadTicket(path, "the ticket names no shadow")
    for lent in ticket.sets:
        if lent.chunk_bytes != CHUNK_BYTES or not 0 < lent.size_bytes < 1 << 60:
            raise errors.BadTicket(path, f"impossible sizes for {lent.shadow!r}")
        if any(chunk * CHUNK_BYTES >= lent.size_bytes for chunk in lent.prints):
            raise errors.BadTicket(path, f"impossible chunks for {lent.shadow!r}")
    return ticket


def find(path: str, ticket: Ticket, shadow: str) -> TicketEntry:
    """The ticket's entry for a shadow. If there is only one entry, the name does not matter.

    Raises BadTicket when there are several entries and none of them has the name.
    """
    for lent in ticket.sets:
        if lent.shadow == shadow:
            return lent
    if len(ticket.sets) == 1:
        return ticket.sets[0]
    raise errors.BadTicket(path, f"no entry for {shadow}", "see iiimport --map for other names")
