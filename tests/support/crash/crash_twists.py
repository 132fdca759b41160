"""Wrong orders and other defects, planted under the script model; each has to lose something."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from crash_model import GARBAGE, RECORD, Setup
from crash_orders import WRONG_ORDERS, leave_out, of_bits, phases, steps, twisted
from crash_scripts import Case, dep, dep_to_master, ind, ind_to_master, to_shadow
from crash_verbs import Machine

from iifuse.core import touch as touches
from iifuse.core.bits import Bits
from iifuse.core.state import Kind, Progress, Role, Verb
from iifuse.core.touch import Mark, Note, Side, Sync
from iifuse.verbs import loading

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
U, E = Verb.UPDATE_SHADOW, Verb.EXPORT
dep_to_master_unchanged = Setup(DEP, Progress.TO_MASTER, shadow=GARBAGE)
pair = Case((dep, Setup(IND, shadow=10, master=1)), 1, (U,), ((0, 1),))


@dataclass(frozen=True)
class Twist:
    """`cases`: the model has to find it in each of them, by scripts of this length."""

    plant: Callable[[], Any]
    cases: tuple[Case, ...]
    length: int = 3


TWISTS: dict[str, Twist] = {}


def twist(name: str, *setups: Setup, verbs: tuple[Verb, ...] = (), length: int = 3, cases=()):
    """Register what is planted under its name, for these sets, each by itself."""
    found = (*cases, *(Case((setup,), 1, verbs) for setup in setups))

    def add(function):
        TWISTS[name] = Twist(contextmanager(function), found, length)
        return function

    return add


def _wrong(order: str, *setups: Setup, verbs: tuple[Verb, ...] = (), cases=()) -> None:
    TWISTS[order] = Twist(WRONG_ORDERS[order], (*cases, *(Case((s,), 1, verbs) for s in setups)))


_wrong("mark_before_preserve", dep, to_shadow, ind_to_master, dep_to_master)
_wrong("no_sync_after_preserve", dep, to_shadow)
_wrong("no_sync_after_mark", dep, ind, to_shadow, ind_to_master)
_wrong("nothing_preserved", dep, dep_to_master_unchanged)
_wrong("no_sync_after_restoring_a_chunk", ind_to_master, dep_to_master)
_wrong("source_not_synced_at_the_pit", ind, dep, verbs=(U,))
_wrong("shadow_bits_zeroed_before_copy_bits_are_durable", ind, verbs=(U,))
_wrong("pending_record_left_out", ind, verbs=(U,))
_wrong("group_record_left_out", cases=[pair])
_wrong("group_record_forgotten_before_the_last_commit", cases=[pair])
_wrong("recovery_ignores_the_group_record", cases=[pair])


# -- first touches --------------------------------------------------------------------------


@twist("no mark", dep, ind, to_shadow)
def _():
    with steps("first_touch", leave_out(Mark)):
        yield


@twist("settle, preserve, write, mark", dep, ind, to_shadow, ind_to_master, dep_to_master)
def _():
    def write(self, file, first, count):
        kept = []
        real = touches.first_touch

        def touch(*words, **options):
            found = real(*words, **options)
            kept.extend(tuple(s for s in phase if of_bits(s)) for phase in found)
            return [tuple(s for s in phase if not of_bits(s)) for phase in found]

        with patch.object(touches, "first_touch", touch):
            yield from honest(self, file, first, count)
        yield from self.execute(kept)

    honest = Machine.write
    with patch.object(Machine, "write", write):
        yield


@twist("no settle, skip the mark if it is right in memory", dep, to_shadow)
def _():
    real = touches.first_touch

    def touch(members, wanted, *, ordered):
        found = real(members, wanted, ordered=ordered)
        lazy = all(t.side is Side.SHADOW for t in wanted)
        return twisted(found, leave_out(Sync, role=Role.BITMAP)) if lazy else found

    with patch.object(touches, "first_touch", touch):
        yield


@twist("no settle, a copied chunk is ready before its bits are on disk", dep_to_master)
def _():
    """As the third wrong order, in a restore: the background copy's clear is lazy and trusted."""

    def trusting(self, first, count):
        return self.ready.all(first, count) or not self.copy.any(first, count)

    unsynced = steps("end_of_stretch", leave_out(Sync, role=Role.BITMAP))
    with unsynced, patch.object(Bits, "note_if_ready", trusting):
        yield


@twist("write before everything", dep, ind, to_shadow, length=2)
def _():
    def write(self, file, first, count):
        self.disk.put((*file, first), self.clock + 1)
        yield from honest(self, file, first, count)

    honest = Machine.write
    with patch.object(Machine, "write", write):
        yield


@twist("sibling not preserved before a restore", cases=[Case((dep, ind_to_master))])
def _():
    real = touches.first_touch

    def touch(members, wanted, *, ordered):
        raw = all(t.side is Side.RAW for t in wanted)
        return [] if raw else real(members, wanted, ordered=ordered)

    with patch.object(touches, "first_touch", touch):
        yield


@twist("write in a region marked ahead is not noted", cases=[Case((ind,), 3, (U,), region=2)])
def _():
    with steps("first_touch", leave_out(Note)):
        yield


# -- the background copy --------------------------------------------------------------------


@twist("copy bit cleared before the chunk is durable", to_shadow, dep_to_master)
def _():
    with phases("end_of_stretch", lambda found: found[::-1]):
        yield


@twist("a point in time does not stop the copy", ind, verbs=(U,), length=6)
def _():
    with patch.object(Machine, "stop_copy", lambda self, number: iter(())):
        yield


# -- points in time -------------------------------------------------------------------------


@twist("header committed before the bits are durable", cases=[Case((dep,), 2, (U,))])
def _():
    def hasty(self, header):
        self.actions.append(("put", (*self.name, "header"), header))
        return header

    unsynced = steps("whole_change", leave_out(Sync))
    with unsynced, patch("crash_model.Recorder.write_header", hasty):
        yield


# -- recovery -------------------------------------------------------------------------------


@twist("recovery ignores what is pending", ind, verbs=(U,))
def _():
    with patch.object(loading, "unfinished", lambda *_: None):
        yield


@twist("record followed before it is durable", cases=[pair])
def _():
    def apply(self, actions):
        return real(self, [a for a in actions if a != ("sync", RECORD)])

    def believing(self):
        with patch.object(Machine, "apply", apply):
            yield from honest(self)

    honest, real = Machine.start, Machine.apply
    with patch.object(Machine, "start", believing):
        yield


# -- lent shadows ---------------------------------------------------------------------------


@twist("joined before the merged bits are durable", ind, verbs=(U, E), length=5)
def _():
    with steps("exact_bits", lambda found: [found[-1], *found[:-1]]):
        yield


@twist("joined without the other host's bits", ind, verbs=(U, E), length=4)
def _():
    def join(self, number):
        self.actors[number].far.shadow.zero()
        yield from honest(self, number)

    honest = Machine.join
    with patch.object(Machine, "join", join):
        yield


@twist("taken back with the bits of before", ind, verbs=(U, E), length=4)
def _():
    def take_back(self, number):
        yield from self._home(self.actors[number])

    with patch.object(Machine, "take_back", take_back):
        yield
