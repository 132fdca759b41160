"""Which bits of a bitmap volume count: one answer for a start, `iibitmap check` and `repair`.

A sector with a wrong checksum says nothing, and under durability=process a power loss may have
overtaken every one. What that means for the chunks depends on what the bits are needed for; in most
states a bit that is set in vain only costs a copy.
"""

from collections.abc import Collection
from enum import Enum
from typing import Final
from uuid import UUID

from iifuse.core.bitmap import Packed
from iifuse.core.header import Header
from iifuse.core.state import Change, Kind, Progress, Role


class Meaning(Enum):
    """What it means that the bits of some chunks are lost."""

    NOTHING = "a point in time that was cut short clears them anyhow"
    DIFFERENT = "the chunks count as different"
    STANDS_IN = "the other bitmap stands in: what it does not claim may be the lost one's"
    RESTORED_ANEW = "a restore brings the chunks anew; what was written to them since is lost"
    SHADOW_LOST = "nobody knows what the shadow holds"
    MASTER_LOST = "nobody knows on which volume the chunks are right"


OFFLINE: Final = {Meaning.RESTORED_ANEW: Role.BITMAP, Meaning.SHADOW_LOST: Role.SHADOW}
"""What goes offline by it, until -R begins anew or goes on with the restore."""


def are_hints(header: Header) -> bool:
    """Do bits only say where the volumes may differ? Then more of them do no harm."""
    return header.kind is Kind.INDEPENDENT and header.progress is Progress.IDLE


def are_overtaken(header: Header, boot_id: UUID) -> bool:
    """May a power loss have overtaken the bits? `boot_id`: of the machine as it runs now."""
    return header.process_durability and not header.clean and header.boot_id != boot_id


def meaning(header: Header, *, both: bool) -> Meaning:
    """Of lost bits, before a change that is pending is repeated. `both`: of either bitmap.

    While a change is pending an independent set's bits may have moved from one bitmap to the other,
    and it sets what is missing. While a copy runs no chunk has both bits.
    """
    if header.pending is Change.CLEAR:
        return Meaning.NOTHING
    if header.kind is Kind.DEPENDENT:
        return _of_dependent(header)
    if header.pending is not Change.NONE or header.progress is Progress.IDLE:
        return Meaning.DIFFERENT
    if not both:
        return Meaning.STANDS_IN
    restores = header.progress is Progress.TO_MASTER
    return Meaning.RESTORED_ANEW if restores else Meaning.SHADOW_LOST


def _of_dependent(header: Header) -> Meaning:
    if header.pending is Change.GIVE_UP:  # the master stays as it is
        return Meaning.SHADOW_LOST
    restores = Progress.TO_MASTER in (header.progress, header.pending.progress)
    return Meaning.MASTER_LOST if restores else Meaning.SHADOW_LOST


Damage = tuple[Collection[int], Collection[int]]
"""Numbers of sectors whose shadow bits, and whose copy bits, are lost."""


def make_up(
    header: Header, shadow: Packed, copy: Packed, inside: Packed, damage: Damage
) -> set[Meaning]:
    """Set what has to count in place of the lost bits; what the losses mean.

    `shadow`, `copy`: the bits of some sectors, changed in place; lost ones are zeros, or whatever
    was read where they were overtaken. `inside`: ones for the chunks that there are. Each has the
    shape (sectors, 508), dtype uint8. `damage`: by row.
    """
    found: set[Meaning] = set()
    for row in sorted({*damage[0], *damage[1]}):
        both = row in damage[0] and row in damage[1]
        means = meaning(header, both=both)
        found.add(means)
        if means is Meaning.DIFFERENT:
            shadow[row] |= inside[row]
        elif means is Meaning.RESTORED_ANEW:
            shadow[row] = 0
            copy[row] |= inside[row]
        elif means is Meaning.STANDS_IN and row in damage[0]:
            shadow[row] |= inside[row] & ~copy[row]
        elif means is Meaning.STANDS_IN:
            copy[row] |= inside[row] & ~shadow[row]
    return found
