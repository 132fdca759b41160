"""The order of a write to chunks that are still needed. It stands here and nowhere else.

Every function returns phases. They have to be executed one after the other, with the steps of each
in their order, and without the further steps of a set that has failed. That keeps the promises of
the write path (invariants 1 to 6 in ARCHITECTURE.md). Every first touch has the same order:

    preserve + sync, mark + sync | restore + sync, mark + sync | write

No step is needed to make memory and disk agree first, because bits change only in steps that are
synced before the next plan is made. Rejected: to clear copy bits lazily and to make them agree
before a touch. That takes as many syncs, and is one more case.

A dependent set preserves a chunk even if the write overwrites all of it. Rejected: to write the new
data without preserving the old. That saves a copy, but then the bit has to be written after the
data, which no other case needs.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from uuid import UUID

import msgspec

from iifuse.core.bitmap import runs_of
from iifuse.core.bits import Bits, regions_of
from iifuse.core.state import Kind, Progress, Role, SetState
from iifuse.units import Run


class Copy(msgspec.Struct, frozen=True):
    """Copy whole chunks from one volume of a set to another. A hole is copied as zeros."""

    key: UUID
    source: Role
    target: Role
    runs: tuple[Run, ...]


class Sync(msgspec.Struct, frozen=True):
    """Make a volume of a set durable. For the master, any set of the family may be named."""

    key: UUID
    role: Role


class Mark(msgspec.Struct, frozen=True):
    """Set shadow bits to 1 and copy bits to 0, on disk and then in memory.

    `ahead`: the regions that are marked ahead with them (invariant 7).
    """

    key: UUID
    runs: tuple[Run, ...]
    ahead: tuple[int, ...] = ()


class Note(msgspec.Struct, frozen=True):
    """Set shadow bits to 1 in memory only: on disk they were marked ahead (invariant 7)."""

    key: UUID
    runs: tuple[Run, ...]


class Clear(msgspec.Struct, frozen=True):
    """Set copy bits to 0, in memory and on disk. The target's chunks are durable (invariant 5)."""

    key: UUID
    runs: tuple[Run, ...]


Step = Copy | Sync | Mark | Note | Clear

Phase = tuple[Step, ...]
"""Steps that may be done in one go. Before the next phase begins, every set that has failed must be
noted as offline. A restore writes to the raw master, so each other set must have preserved its
chunks by then, or be lost. And a clear says that a copy is durable (invariants 3, 5 and 9)."""


class Member(msgspec.Struct, frozen=True):
    """A set of the family as the plan sees it."""

    key: UUID
    state: SetState
    bits: Bits


class Side(Enum):
    """What is about to be written."""

    MASTER = 1
    """The master's view. This concerns every set of the family."""
    SHADOW = 2
    """The view of the shadow of set `key`."""
    RAW = 3
    """The raw master, by the restore of set `key`. This concerns the other sets of the family."""


class Touch(msgspec.Struct, frozen=True):
    """A write to a run of chunks that is about to be done. The writer has locked the chunks."""

    side: Side
    key: UUID | None
    first: int
    count: int


class _Needs:
    """What one set needs for all touches of a batch, as runs of chunks."""

    __slots__ = ("mark", "member", "note", "preserve", "restore")

    def __init__(self, member: Member) -> None:
        self.member = member
        self.note: list[Run] = []
        self.preserve: list[Run] = []
        self.mark: list[Run] = []
        self.restore: list[Run] = []


def first_touch(
    members: Sequence[Member], touches: Iterable[Touch], *, ordered: bool
) -> list[Phase]:
    """The phases that have to be done before the writes of these touches; empty if there are none.

    `ordered`: the phases contain the syncs that a power loss requires (`durability=ordered`).
    """
    needs = [_Needs(member) for member in members]
    for touch in touches:
        _gather(needs, touch)
    # Notes come first, because a mark may cool the region that a note relies on.
    keep: list[Step] = [Note(n.member.key, tuple(n.note)) for n in needs if n.note]
    _preserve(keep, needs, ordered)
    _mark(keep, needs, ordered)
    restore: list[Step] = []
    _restore(restore, needs, ordered)
    return [tuple(phase) for phase in (keep, restore) if phase]


def _gather(needs: list[_Needs], touch: Touch) -> None:
    first, count = touch.first, touch.count
    mask = raw = (1 << count) - 1
    if touch.side is Side.SHADOW:  # then only a restore that it requires writes to the raw master
        raw = 0
        for need in needs:
            raw |= _to_restore(need.member, touch, mask)
    for need in needs:
        bits = need.member.bits
        scope = _scope(need.member, touch, mask, raw)
        ready = bits.ready.word(first, count)
        unnoted = scope & ready & ~bits.shadow.word(first, count)
        if unnoted:
            need.note += runs_of(unnoted, first)
        untouched = scope & ~ready
        if untouched:
            _gather_untouched(need, touch, untouched)


def _gather_untouched(need: _Needs, touch: Touch, untouched: int) -> None:
    restore = _to_restore(need.member, touch, untouched)
    if restore:
        need.restore += runs_of(restore, touch.first)
        untouched &= ~restore
    if _is_lost(need.member.state):
        return
    preserve = _to_preserve(need.member, touch, untouched)
    if preserve:
        need.preserve += runs_of(preserve, touch.first)
    need.mark += runs_of(untouched, touch.first)


def _to_restore(member: Member, touch: Touch, mask: int) -> int:
    """The chunks that the member's restore must copy to the raw master before the touch."""
    if not member.state.restoring:
        return 0
    concerned = touch.side is Side.MASTER or (touch.side is Side.SHADOW and touch.key == member.key)
    return 0 if not concerned else member.bits.copy.word(touch.first, touch.count) & mask


def _scope(member: Member, touch: Touch, mask: int, raw: int) -> int:
    """The chunks in which something may be overwritten that the member needs.

    `raw`: the chunks that are written on the raw master.
    """
    if touch.key is not None and touch.key == member.key:
        return 0 if touch.side is Side.RAW else mask
    return raw


def _to_preserve(member: Member, touch: Touch, word: int) -> int:
    """The chunks of `word` whose PIT content is on the master only."""
    copy = member.bits.copy.word(touch.first, touch.count)
    if member.state.kind is Kind.DEPENDENT:
        return word & ~(copy | member.bits.shadow.word(touch.first, touch.count))
    return word & copy if member.state.progress is Progress.TO_SHADOW else 0


def _is_lost(state: SetState) -> bool:
    """Is the shadow or the bitmap offline, so that the master may be written without this set?

    A dependent set in a restore is never lost in this sense: its steps fail, and the write with
    them (docs/decisions/failures.md).
    """
    if not state.offline or (state.restoring and state.kind is Kind.DEPENDENT):
        return False
    return bool(state.offline & (Role.SHADOW | Role.BITMAP))


def _preserve(steps: list[Step], needs: list[_Needs], ordered: bool) -> None:
    """Invariant 4: the shadow's chunk is complete and durable before its bit says so."""
    for need in needs:
        if need.preserve:
            key, runs = need.member.key, tuple(need.preserve)
            steps.append(Copy(key, Role.MASTER, Role.SHADOW, runs))
    if ordered:
        steps += [Sync(n.member.key, Role.SHADOW) for n in needs if n.preserve]


def _mark(steps: list[Step], needs: list[_Needs], ordered: bool) -> None:
    """Invariants 2 and 3: the bits are durable before the first byte changes."""
    for need in needs:
        if need.mark:
            member, runs = need.member, tuple(need.mark)
            steps.append(Mark(member.key, runs, tuple(regions_of(member.state, runs))))
    if ordered:
        steps += [Sync(n.member.key, Role.BITMAP) for n in needs if n.mark]


def _restore(steps: list[Step], needs: list[_Needs], ordered: bool) -> None:
    """Restore chunks before either side writes them. At most one set of the family restores."""
    for need in needs:
        if need.restore:
            key, runs = need.member.key, tuple(need.restore)
            copy, mark = Copy(key, Role.SHADOW, Role.MASTER, runs), Mark(key, runs)
            if ordered:
                steps += [copy, Sync(key, Role.MASTER), mark, Sync(key, Role.BITMAP)]
            else:
                steps += [copy, mark]


def copy_direction(state: SetState) -> tuple[Role, Role]:
    """The (source, target) of the set's copy."""
    if state.progress is Progress.TO_MASTER:
        return Role.SHADOW, Role.MASTER
    return Role.MASTER, Role.SHADOW


def copy_step(member: Member, *runs: Run) -> Copy:
    """One step of the background copy. The copy bits stay until `end_of_stretch` is done."""
    return Copy(member.key, *copy_direction(member.state), runs)


def sync_target(member: Member) -> Phase:
    """The phase that makes durable what a copy has copied so far."""
    return (Sync(member.key, copy_direction(member.state)[1]),)


def end_of_stretch(member: Member, runs: Iterable[Run]) -> tuple[Phase, Phase]:
    """The phases that end a stretch of the background copy: first data, then bits (invariant 5).

    The second phase has to go through the family's batches, like the first touches of writers.
    """
    clear = Clear(member.key, tuple(runs))
    return sync_target(member), (clear, Sync(member.key, Role.BITMAP))
