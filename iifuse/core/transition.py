"""The record of a group command that is under way, and which change a start has to repeat."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated
from uuid import UUID

import msgspec

from iifuse import errors
from iifuse.core.header import Header, Pit
from iifuse.core.state import Change, Role

Number = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
"""The number of a PIT, or a time in nanoseconds since 1970, as in the header."""


class Member(msgspec.Struct, frozen=True):
    """What a group command does to one set."""

    uuid: UUID
    old_pit: Number
    new_pit: Number
    change: Change


class Transition(msgspec.Struct, frozen=True):
    """A group command. Every member gets the same PIT id and time."""

    id: UUID
    pit_id: UUID
    time_ns: Number
    members: tuple[Member, ...]


def unfinished(transitions: Iterable[Transition], header: Header) -> Header | None:
    """The header with the pending change that a start has to repeat; None: there is none.

    The record of one set is in its header. The record of a group is a transition. It counts for a
    member whose header still shows the old PIT (invariant 6). Raises BadBitmap for a header that
    shows neither the old nor the new one.
    """
    if header.pending is Change.GIVE_UP and not header.offline & Role.BITMAP:
        return header  # a restore is mostly given up because its shadow is offline
    if header.offline & (Role.SHADOW | Role.BITMAP):  # the bits are in doubt until -R
        return None
    for transition in transitions:
        is_over = header.transition_id == transition.id  # the set has followed, or must not
        for member in transition.members:
            is_meant = member.uuid == header.uuid and not is_over
            if is_meant and header.pit.number < member.new_pit:
                return _following(transition, member, header)
    return header if header.pending is not Change.NONE else None


def _following(transition: Transition, member: Member, header: Header) -> Header:
    if header.pit.number != member.old_pit:
        raise errors.BadBitmap(
            header.bitmap,
            f"is at point in time {header.pit.number}, but the group command that was cut short "
            f"leads from {member.old_pit} to {member.new_pit}",
        )
    return replace(
        header,
        pending=member.change,
        pending_pit=Pit(member.new_pit, transition.pit_id, transition.time_ns),
        transition_id=transition.id,
    )
