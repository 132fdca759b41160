"""The record of a change of whole bitmaps that is under way, and what a start has to repeat."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated
from uuid import UUID

import msgspec

from iifuse import errors
from iifuse.core.header import Header, Pit
from iifuse.core.state import Change, Role

Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""The number of a PIT, or of nanoseconds, as in the header."""


class Member(msgspec.Struct, frozen=True):
    """What a group command does to one set."""

    uuid: UUID
    old_pit: Number
    new_pit: Number
    change: Change


class Transition(msgspec.Struct, frozen=True):
    """A group command: every member gets the same id and time."""

    id: UUID
    pit_id: UUID
    time_ns: Number
    members: tuple[Member, ...]


def unfinished(transitions: Iterable[Transition], header: Header) -> Header | None:
    """The header with the change that a start has to repeat as pending; None: there is none.

    A set has the record of its change in its header, a group in a transition, which counts for a
    member while its header shows the old PIT (invariant 6). Raises BadBitmap for a header that
    shows neither the old nor the new one.
    """
    if header.pending is Change.GIVE_UP and not header.offline & Role.BITMAP:
        return header  # the shadow is offline, most likely, and that is why
    if header.offline & (Role.SHADOW | Role.BITMAP):  # its bits are in doubt; -R begins anew
        return None
    for transition in transitions:
        told = header.transition_id == transition.id  # done, or given up
        for member in transition.members:
            if member.uuid == header.uuid and not told and header.pit.number < member.new_pit:
                return _following(transition, member, header)
    return header if header.pending is not Change.NONE else None


def _following(transition: Transition, member: Member, header: Header) -> Header:
    if header.pit.number != member.old_pit:
        raise errors.BadBitmap(
            header.bitmap,
            f"is at point in time {header.pit.number}, the group command that was cut short made "
            f"{member.new_pit} of {member.old_pit}",
        )
    return replace(
        header,
        pending=member.change,
        pending_pit=Pit(member.new_pit, transition.pit_id, transition.time_ns),
        transition_id=transition.id,
    )
