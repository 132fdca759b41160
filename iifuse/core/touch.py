"""The order of a write to chunks that somebody may still need. It stands here and nowhere else.

Every function answers with phases. Whoever executes them one after the other, each step of a phase
in its order, and stops a set at its first failure, keeps the promises of the write path (invariants
1 to 6; ARCHITECTURE.md lists them). One order serves every first touch:

    preserve + sync, mark + sync | restore + sync, mark + sync | write

No step has to make memory and disk agree first: bits change only in steps that are synced before
the next plan is made. Rejected: to clear copy bits lazily and make them agree before a touch, which
costs the same syncs and one more case.

A dependent set preserves a chunk also when the write covers all of it. Rejected: to write the new
data in its place. That saves a copy, but needs the bit after the data, and nothing else does.
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
    """Copy chunks of a set from one of its volumes to the other; whole chunks, holes as zeros."""

    key: UUID
    source: Role
    target: Role
    runs: tuple[Run, ...]


class Sync(msgspec.Struct, frozen=True):
    """Make a volume of a set durable. `key` names one set of the family, also for the master."""

    key: UUID
    role: Role


class Mark(msgspec.Struct, frozen=True):
    """Shadow bits := 1 and copy bits := 0, in memory and on disk; `ahead`: regions to mark too."""

    key: UUID
    runs: tuple[Run, ...]
    ahead: tuple[int, ...] = ()


class Note(msgspec.Struct, frozen=True):
    """Shadow bits := 1 in memory: on disk they were marked ahead (invariant 7)."""

    key: UUID
    runs: tuple[Run, ...]


class Clear(msgspec.Struct, frozen=True):
    """Copy bits := 0, in memory and on disk: the target's chunks are durable (invariant 5)."""

    key: UUID
    runs: tuple[Run, ...]


Step = Copy | Sync | Mark | Note | Clear

Phase = tuple[Step, ...]
"""Steps that may be done in one go. Before the next phase it is known which sets have failed, and
they are noted as offline: a restore writes to the raw master, which the others must have preserved
or lost by then, and a clear says that a copy is durable (invariants 3, 5 and 9)."""


class Member(msgspec.Struct, frozen=True):
    """A set of the family as the plan sees it."""

    key: UUID
    state: SetState
    bits: Bits


class Side(Enum):
    """What is about to be written."""

    MASTER = 1
    """The master's view: every set of the family is concerned."""
    SHADOW = 2
    """The view of the shadow of set `key`."""
    RAW = 3
    """The raw master, by the restore of set `key`: its siblings are concerned, it is not."""


class Touch(msgspec.Struct, frozen=True):
    """A write that is about to be done to a run of chunks, which the writer has locked."""

    side: Side
    key: UUID | None
    first: int
    count: int


class _Needs:
    """Runs of one set, gathered over the touches of a batch."""

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
    """The phases that have to be done before the touches' writes; empty if none has to be.

    `ordered`: with the syncs that survive a power loss (`durability=ordered`).
    """
    needs = [_Needs(member) for member in members]
    for touch in touches:
        _gather(needs, touch)
    # Notes come first: a mark may cool the very region that a note relies on.
    keep: list[Step] = [Note(n.member.key, tuple(n.note)) for n in needs if n.note]
    _preserve(keep, needs, ordered)
    _mark(keep, needs, ordered)
    restore: list[Step] = []
    _restore(restore, needs, ordered)
    return [tuple(phase) for phase in (keep, restore) if phase]


def _gather(needs: list[_Needs], touch: Touch) -> None:
    first, count = touch.first, touch.count
    mask = raw = (1 << count) - 1
    if touch.side is Side.SHADOW:  # it comes to the raw master only with what a restore brings
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
    """Chunks that the member's restore must bring to the raw master before the touch."""
    if not member.state.restoring:
        return 0
    concerned = touch.side is Side.MASTER or (touch.side is Side.SHADOW and touch.key == member.key)
    return 0 if not concerned else member.bits.copy.word(touch.first, touch.count) & mask


def _scope(member: Member, touch: Touch, mask: int, raw: int) -> int:
    """Chunks in which the member's truth may be overwritten. `raw`: those of the raw master."""
    if touch.key is not None and touch.key == member.key:
        return 0 if touch.side is Side.RAW else mask
    return raw


def _to_preserve(member: Member, touch: Touch, word: int) -> int:
    """Those chunks of `word` whose PIT content is on the master only."""
    copy = member.bits.copy.word(touch.first, touch.count)
    if member.state.kind is Kind.DEPENDENT:
        return word & ~(copy | member.bits.shadow.word(touch.first, touch.count))
    return word & copy if member.state.progress is Progress.TO_SHADOW else 0


def _is_lost(state: SetState) -> bool:
    """A set whose shadow or bitmap is offline needs nothing any more; the master goes on.

    Not so a dependent set that restores: its steps fail and with them the write
    (docs/decisions/failures.md).
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
    """A chunk still to be restored is brought before either side writes it; one set at the most."""
    for need in needs:
        if need.restore:
            key, runs = need.member.key, tuple(need.restore)
            copy, mark = Copy(key, Role.SHADOW, Role.MASTER, runs), Mark(key, runs)
            syncs = Sync(key, Role.MASTER), Sync(key, Role.BITMAP)
            steps += [copy, syncs[0], mark, syncs[1]] if ordered else [copy, mark]


def copy_direction(state: SetState) -> tuple[Role, Role]:
    """(source, target) of the set's copy."""
    if state.progress is Progress.TO_MASTER:
        return Role.SHADOW, Role.MASTER
    return Role.MASTER, Role.SHADOW


def copy_ahead(member: Member, *runs: Run) -> Copy:
    """One step of the background copy; its copy bits stay until `copied` is done."""
    return Copy(member.key, *copy_direction(member.state), runs)


def settle(member: Member) -> Phase:
    """Make durable what a copy has brought so far."""
    return (Sync(member.key, copy_direction(member.state)[1]),)


def copied(member: Member, runs: Iterable[Run]) -> tuple[Phase, Phase]:
    """End a stretch of the background copy: its data is made durable, then bits (invariant 5).

    The second phase has to go into a batch with the first touches of others.
    """
    clear = Clear(member.key, tuple(runs))
    return settle(member), (clear, Sync(member.key, Role.BITMAP))
