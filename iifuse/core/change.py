"""The orders of all changes to whole bitmaps, and what they make of the bits.

They stand here and nowhere else. A point in time is a list of phases, done one after the other.
Once a change has its durable record, whoever finds the record after a crash does the change again:
its steps may be repeated (invariant 6). What was measured: docs/decisions/points-in-time.md.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from uuid import UUID

from iifuse.core.bitmap import Bitmap
from iifuse.core.sector import Region
from iifuse.core.state import Change, Progress, Role
from iifuse.core.touch import Sync


@dataclass(frozen=True, slots=True)
class Pend:
    """Commit a header that names the change and the new PIT as pending: the record of one set."""

    key: UUID


@dataclass(frozen=True, slots=True)
class Store:
    """Write a whole bitmap as it is after the change."""

    key: UUID
    region: Region


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit the header as it is after the change, with nothing pending."""

    key: UUID


SetStep = Sync | Pend | Store | Commit


@dataclass(frozen=True)
class Chains:
    """Steps of several sets. One set's keep their order; different sets' run side by side."""

    of: Mapping[UUID, tuple[SetStep, ...]]


class Act(Enum):
    """What a point in time does to all of its sets at once."""

    FETCH = "what programs have written to the sources' files arrives; the mount has to answer"
    SHUT = "the files that will show something else are closed, and stay so"
    REST = "copies come to rest"
    ANNOUNCE = "the state database is told what is coming"
    MAKE_ROOM = "memory for the new bitmaps: it comes slowly"
    GATE = "writes that run are drained, later ones are held; all is checked once more"
    RECORD = "the record of a group: from now on the change counts as done (invariant 6)"
    ADOPT = "what is durable is so in memory"
    OPEN = "writes go on"
    FORGET = "the record of a group goes: it names points in time that are made"


Phase = Chains | Act


def source_of(change: Change) -> Role:
    """The volume that holds the new truth and has to be durable at the PIT."""
    return Role.SHADOW if change.progress is Progress.TO_MASTER else Role.MASTER


def point_in_time(changes: Mapping[UUID, Change]) -> list[Phase]:
    """Make one PIT on all the sets.

    The sources are synced three times. Each time less was written since, so the sync under the
    gate is short. One set keeps the record in its header, several share one. That one is forgotten
    after the gates have opened, which saves a sync under the gate.
    """
    sources = {key: (Sync(key, source_of(change)),) for key, change in changes.items()}
    whole = {key: whole_change(key, change) for key, change in changes.items()}
    sync = Chains(sources)
    closed = [Act.SHUT, Act.REST, Act.ANNOUNCE, Act.MAKE_ROOM]
    before: list[Phase] = [Act.FETCH, sync, *closed, sync, Act.GATE]
    if len(changes) == 1:
        alone = {key: (*sources[key], Pend(key), *whole[key]) for key in changes}
        return [*before, Chains(alone), Act.ADOPT, Act.OPEN]
    return [*before, sync, Act.RECORD, Chains(whole), Act.ADOPT, Act.OPEN, Act.FORGET]


def whole_change(key: UUID, change: Change) -> tuple[SetStep, ...]:
    """The steps of a change that has its record; recovery runs exactly these again.

    The one bitmap gains its bits before the other one loses them.
    """
    copy, shadow = _store(key, Region.COPY), _store(key, Region.SHADOW)
    if change is Change.GIVE_UP:
        return (*shadow, *copy, Commit(key))
    return (*shadow, Commit(key)) if change is Change.CLEAR else (*copy, *shadow, Commit(key))


def give_up(key: UUID) -> tuple[SetStep, ...]:
    """End an aborted restore: one record, and steps that may be repeated."""
    return (Pend(key), *whole_change(key, Change.GIVE_UP))


def exact_bits(key: UUID) -> tuple[SetStep, ...]:
    """Write the bits as memory has them, then a header that relies on them.

    Export, import, join, enable, -R and the stop do this. It needs no record: after a crash the
    verb is done again, and until the commit the disk has at most extra bits, which do no harm.
    """
    return (Store(key, Region.SHADOW), Store(key, Region.COPY), Sync(key, Role.BITMAP), Commit(key))


def _store(key: UUID, region: Region) -> Iterable[SetStep]:
    return Store(key, region), Sync(key, Role.BITMAP)


def copy_after(change: Change, shadow: Bitmap, copy: Bitmap, into: Bitmap | None = None) -> Bitmap:
    """The copy bitmap after a change. Repeating it loses nothing: bits are only added.

    `into`: a bitmap that may be overwritten for it.
    """
    if change is Change.GIVE_UP:
        return Bitmap(copy.chunks)
    result = copy.copy(into)
    if change.merges:
        result.merge(shadow)
    elif change in (Change.FILL_TO_SHADOW, Change.FILL_TO_MASTER):
        result.fill()
    return result


def shadow_after(change: Change, shadow: Bitmap, copy: Bitmap) -> Bitmap:
    """The shadow bitmap after a change. It is written before bits leave the copy bitmap."""
    result = Bitmap(shadow.chunks)
    if change is Change.GIVE_UP:
        result.merge(shadow)
        result.merge(copy)
    return result
