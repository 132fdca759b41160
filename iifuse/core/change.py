"""The orders of all changes to whole bitmaps, and what they make of the bits.

These orders stand here and nowhere else. A point in time is a list of phases, which are done one
after the other. Once the record of a change is durable, the change counts. If a crash comes then,
the next start does the steps again, which is allowed for each of them (invariant 6).
docs/decisions/points-in-time.md has the measurements.
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
class CommitPending:
    """Commit a header that names the change and the new PIT as pending.

    This is the record of a change that concerns one set.
    """

    key: UUID


@dataclass(frozen=True, slots=True)
class WriteBitmap:
    """Write a whole bitmap as it has to be after the change."""

    key: UUID
    region: Region


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit the header as it has to be after the change, with nothing pending."""

    key: UUID


SetStep = Sync | CommitPending | WriteBitmap | Commit


@dataclass(frozen=True)
class Chains:
    """Steps of several sets. Those of one set keep their order. Sets are worked on side by side."""

    of: Mapping[UUID, tuple[SetStep, ...]]


class Act(Enum):
    """What a point in time does to all of its sets at once."""

    SYNC_FILES = "sync the sources' files through the mount, which has to answer meanwhile"
    CLOSE_FILES = "wait until the files that will show another content are closed; keep them closed"
    STOP_COPIES = "stop the background copies of the sets"
    ANNOUNCE = "tell the state database what is coming"
    ALLOCATE = "allocate memory for the new bitmaps, which takes a while"
    CLOSE_GATES = "let running writes end, hold later ones, then check everything once more"
    RECORD = "make the record of a group durable: from now on the change counts (invariant 6)"
    ADOPT = "let memory follow what is durable"
    OPEN_GATES = "let writes go on"
    FORGET_RECORD = "remove the record of a group, because all its points in time are made"


Phase = Chains | Act


def source_of(change: Change) -> Role:
    """The volume that holds the content of the new PIT, and so has to be durable at that moment."""
    return Role.SHADOW if change.progress is Progress.TO_MASTER else Role.MASTER


def point_in_time(changes: Mapping[UUID, Change]) -> list[Phase]:
    """The phases that make one PIT on all the sets.

    The sources are synced three times. Each time less was written since the last sync, so the one
    under the gate is short. The record of one set is in its header. Several sets share one record,
    which is removed only after the gates have opened: that saves a sync under the gate.
    """
    sources = {key: (Sync(key, source_of(change)),) for key, change in changes.items()}
    whole = {key: whole_change(key, change) for key, change in changes.items()}
    sync = Chains(sources)
    closed = [Act.CLOSE_FILES, Act.STOP_COPIES, Act.ANNOUNCE, Act.ALLOCATE]
    before: list[Phase] = [Act.SYNC_FILES, sync, *closed, sync, Act.CLOSE_GATES]
    if len(changes) == 1:
        alone = {key: (*sources[key], CommitPending(key), *whole[key]) for key in changes}
        return [*before, Chains(alone), Act.ADOPT, Act.OPEN_GATES]
    return [*before, sync, Act.RECORD, Chains(whole), Act.ADOPT, Act.OPEN_GATES, Act.FORGET_RECORD]


def whole_change(key: UUID, change: Change) -> tuple[SetStep, ...]:
    """The steps of a change after its record. Recovery repeats exactly these.

    One bitmap gains its bits before the other one loses them, so no bit is ever in neither.
    """
    copy, shadow = _write_synced(key, Region.COPY), _write_synced(key, Region.SHADOW)
    if change is Change.GIVE_UP:
        return (*shadow, *copy, Commit(key))
    return (*shadow, Commit(key)) if change is Change.CLEAR else (*copy, *shadow, Commit(key))


def give_up(key: UUID) -> tuple[SetStep, ...]:
    """The steps that end an aborted restore: its record, and then the change."""
    return (CommitPending(key), *whole_change(key, Change.GIVE_UP))


def exact_bits(key: UUID) -> tuple[SetStep, ...]:
    """The steps that write the bits as memory has them, and then a header that relies on them.

    Export, import, join, enable, -R and the stop of the service do this. It needs no record: after
    a crash the verb is done again. Until the commit the disk has at most extra bits, which do no
    harm.
    """
    write = WriteBitmap(key, Region.SHADOW), WriteBitmap(key, Region.COPY)
    return (*write, Sync(key, Role.BITMAP), Commit(key))


def _write_synced(key: UUID, region: Region) -> Iterable[SetStep]:
    return WriteBitmap(key, region), Sync(key, Role.BITMAP)


def copy_after(change: Change, shadow: Bitmap, copy: Bitmap, into: Bitmap | None = None) -> Bitmap:
    """The copy bitmap after a change. Bits are only added, so the change may be repeated.

    `into`: a bitmap that may be overwritten with the result.
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
    """The shadow bitmap after a change."""
    result = Bitmap(shadow.chunks)
    if change is Change.GIVE_UP:
        result.merge(shadow)
        result.merge(copy)
    return result
