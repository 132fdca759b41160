"""Which bits of a bitmap volume count. The start, `iibitmap check` and `repair` all ask here.

Bits can be lost in two ways: a sector has a wrong checksum, or a power loss under
durability=process came before any of the bits was durable. What a loss means depends on what the
bits are needed for. In most states a bit that is set without need only costs the copy of a chunk.
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

    NOTHING = "the pending point in time clears these bits in any case"
    DIFFERENT = "the chunks count as different"
    OTHER_BITMAP_COUNTS = "a bit that is clear in the other bitmap counts as set in the lost one"
    RESTORED_ANEW = "a restore copies the chunks again; what was written to them since is lost"
    SHADOW_LOST = "nobody knows what the shadow holds"
    MASTER_LOST = "nobody knows on which volume the chunks are right"


OFFLINE: Final = {Meaning.RESTORED_ANEW: Role.BITMAP, Meaning.SHADOW_LOST: Role.SHADOW}
"""Meaning of a loss -> the volume that goes offline because of it, until `iiadm -R`."""


def bits_may_be_lost(header: Header, boot_id: UUID) -> bool:
    """May a power loss have come before the bits were durable (durability=process)?

    `boot_id` is that of the machine as it runs now.
    """
    return header.process_durability and not header.clean and header.boot_id != boot_id


def meaning(header: Header, *, both: bool) -> Meaning:
    """What it means that bits are lost, while a pending change has not been repeated yet.

    `both`: the chunks' bits are lost in both bitmaps, not only in one.

    While a change is pending, bits of an independent set may stand in either bitmap, so nothing can
    be concluded from the other one. While a copy runs, no chunk has a bit in both bitmaps.
    """
    if header.pending is Change.CLEAR:
        return Meaning.NOTHING
    if header.kind is Kind.DEPENDENT:
        return _of_dependent(header)
    if header.pending is not Change.NONE or header.progress is Progress.IDLE:
        return Meaning.DIFFERENT
    if not both:
        return Meaning.OTHER_BITMAP_COUNTS
    restores = header.progress is Progress.TO_MASTER
    return Meaning.RESTORED_ANEW if restores else Meaning.SHADOW_LOST


def _of_dependent(header: Header) -> Meaning:
    if header.pending is Change.GIVE_UP:  # the master stays as it is
        return Meaning.SHADOW_LOST
    restores = Progress.TO_MASTER in (header.progress, header.pending.progress)
    return Meaning.MASTER_LOST if restores else Meaning.SHADOW_LOST


Damage = tuple[Collection[int], Collection[int]]
"""Numbers of sectors whose shadow bits, and whose copy bits, are lost."""


def replace_lost_bits(
    header: Header, shadow: Packed, copy: Packed, inside: Packed, damage: Damage
) -> set[Meaning]:
    """Set the bits that have to count in place of lost ones. Returns what the losses mean.

    `shadow` and `copy` are the bits of some sectors and are changed in place. `inside` has a 1 for
    each chunk that exists. Each of the three has the shape (sectors, 508) and the dtype uint8.
    `damage` names rows of them. Lost bits are zeros, or whatever was read after a power loss.
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
        elif means is Meaning.OTHER_BITMAP_COUNTS and row in damage[0]:
            shadow[row] |= inside[row] & ~copy[row]
        elif means is Meaning.OTHER_BITMAP_COUNTS:
            copy[row] |= inside[row] & ~shadow[row]
    return found
