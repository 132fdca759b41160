"""Every script of operations up to a length, a crash between any two steps of each of them.

A crash is followed by a start, which may be cut as well, and the script goes on. States that differ
only in names, see `crash_frozen`, are looked at once.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from unittest.mock import patch

from crash_cells import Content, Disk
from crash_frozen import Freezer, State
from crash_model import BEFORE_SYNC, GARBAGE, RECORD, Setup
from crash_verbs import Machine, Operation
from lost import Lost

from iifuse.core import bits
from iifuse.core.state import Kind, Progress, Verb

dep = Setup(Kind.DEPENDENT, shadow=GARBAGE)
ind = Setup(Kind.INDEPENDENT)
to_shadow = Setup(Kind.INDEPENDENT, Progress.TO_SHADOW, shadow=5, copy=True)
ind_to_master = Setup(Kind.INDEPENDENT, Progress.TO_MASTER, shadow=5, copy=True)
dep_to_master = Setup(Kind.DEPENDENT, Progress.TO_MASTER, shadow=5, copy=True)
"""Sets at rest, and with everything still to be copied."""

Script = tuple[Operation, ...]
Level = dict[State, Script]
"""States and the first script that led to each."""


@dataclass(frozen=True)
class Case:
    """Sets at the beginning, and what may happen to them beside reads, writes and copies."""

    setups: tuple[Setup, ...]
    chunks: int = 1
    verbs: tuple[Verb, ...] = ()
    groups: tuple[tuple[int, ...], ...] = ()
    region: int = 1
    """Chunks that are marked ahead together; one region at a time, so that they cool soon."""


@dataclass
class Tally:
    """What was looked at. `images`: disks after a crash; `length`: of the longest scripts;
    `reached`: names of operations and verbs."""

    length: int = 0
    states: int = 0
    operations: int = 0
    images: int = 0
    starts: int = 0
    reached: set[str] = field(default_factory=set, repr=False)


def explore(case: Case, length: int, seconds: float = float("inf")) -> Tally:
    """All scripts up to a length, shorter ones when time runs out. Raises Lost, with the script."""
    with patch.multiple(bits, REGION_CHUNKS=case.region, HOT_REGIONS_MAX=1):
        return _Walk(case, time.monotonic() + seconds).run(length)


class _Walk:
    def __init__(self, case: Case, deadline: float) -> None:
        self.case, self.deadline, self.tally = case, deadline, Tally()
        self.first = Machine(case.setups, case.chunks)
        self.freezer = Freezer(self.first)
        self.seen: set[State] = set()
        self.last = False

    def run(self, length: int) -> Tally:
        level: Level = {self._state(self.first): ()}
        for number in range(1, length + 1):
            self.last, found = number == length, {}
            for state, script in level.items():
                if time.monotonic() > self.deadline:
                    return self.tally
                self._go_on(state, script, found)
            level, self.tally.length = found, number
        return self.tally

    def _state(self, machine: Machine) -> State:
        return self.freezer.freeze(machine.disk, machine.actors, machine.worlds)

    def _go_on(self, state: State, script: Script, found: Level) -> None:
        self.tally.states += 1
        machine = self.freezer.thaw(state)
        for operation in list(machine.operations(self.case.verbs, self.case.groups)):
            self.tally.operations += 1
            machine = self.freezer.thaw(state)
            name, *arguments = operation
            self.tally.reached |= {name, str(arguments[0])}
            longer = (*script, operation)
            self._watch(machine, getattr(machine, name)(*arguments), longer, found)

    def _watch(self, machine: Machine, steps: Iterator[str], script: Script, found: Level) -> None:
        """Run one operation to its end, a crash at each of its moments."""
        crashed: list[State] = []
        try:
            written = True
            for moment in steps:
                if moment is not BEFORE_SYNC:
                    written = True
                    self._kill(machine, crashed)
                elif written:
                    written = False
                    self._power(machine, crashed)
            machine.check_live()
            self._kill(machine, crashed)
            self._power(machine, crashed)
        except Lost as lost:
            raise Lost(f"{lost} after {shown(script)}") from None
        if not self.last:
            self._note(self._state(machine), script, found)
        for state in crashed:
            self._start(state, (*script, ("crash",)), found)

    def _note(self, state: State, script: Script, found: Level) -> None:
        if state not in self.seen:
            self.seen.add(state)
            found[state] = script

    # -- crashes ----------------------------------------------------------------------------

    def _kill(self, machine: Machine, crashed: list[State]) -> None:
        content = machine.disk.content()
        self.tally.images += 1
        worlds = machine.after_crash(content, power=False)
        if self._goes_on(machine, content):
            self._down(self.freezer.freeze(machine.disk, None, worlds), crashed)

    def _power(self, machine: Machine, crashed: list[State]) -> None:
        for content in machine.disk.losses():
            self.tally.images += 1
            worlds = machine.after_crash(content, power=True)
            if self._goes_on(machine, content):
                self._down(self.freezer.freeze(Disk(content), None, worlds), crashed)

    def _goes_on(self, machine: Machine, content: Content) -> bool:
        """At the end of the longest scripts only a start that writes is worth a look."""
        if not self.last or content[RECORD] is not None:
            return True
        return any(machine.recovered(a.number, content)[3] for a in machine.actors)

    def _down(self, state: State, crashed: list[State]) -> None:
        if state not in self.seen:
            self.seen.add(state)
            crashed.append(state)

    def _start(self, state: State, script: Script, found: Level) -> None:
        self.tally.starts += 1
        self.tally.reached.add("start")
        machine = self.freezer.thaw(state)
        self._watch(machine, machine.start(), (*script, ("start",)), found)


def shown(script: Script) -> str:
    """For people: what led there."""
    return "; ".join(" ".join(map(str, operation)) for operation in script)
