"""Machines as values: equal when they differ only in names, and ready to go on from."""

from collections.abc import Iterable
from dataclasses import replace

from crash_cells import DATA, TORN, Disk
from crash_model import RECORD, Actor, World
from crash_verbs import Machine

from iifuse.core.bits import Bits
from iifuse.core.header import Header
from iifuse.core.state import Change
from iifuse.core.times import Times

State = tuple
"""(durable values, (cell, pending values)..., memory or None after a crash, promises)"""


class Freezer:
    """Names of chunks' values are counted as they come, PITs from the oldest one of their set."""

    def __init__(self, first: Machine) -> None:
        self.first = first
        self.cells = list(first.disk.durable)
        self.files = list(first.worlds[0])
        self._headers: list[Header] = []
        self._numbers: dict[Header, int] = {}
        self._known: dict[tuple[int, int], tuple[Header, int]] = {}
        self._names: dict[object, int] = {}
        self._oldest: list[int] = []

    def freeze(self, disk: Disk, actors: list[Actor] | None, worlds: Iterable[World]) -> State:
        """`actors`: None after a crash."""
        self._names, self._oldest = {}, self._oldest_pits(disk, actors)
        durable = tuple(self._value(cell, disk.durable[cell]) for cell in self.cells)
        pending = tuple(
            (place, tuple(self._value(cell, value) for value in disk.pending[cell]))
            for place, cell in enumerate(self.cells)
            if cell in disk.pending
        )
        memory = None if actors is None else tuple(map(self._memory, actors))
        return durable, pending, memory, tuple(sorted({self._promises(w) for w in worlds}))

    def _oldest_pits(self, disk: Disk, actors: list[Actor] | None) -> list[int]:
        found = []
        for actor in self.first.actors:
            cell = ("B", actor.number, "header")
            headers = [disk.durable[cell], *disk.pending.get(cell, ())]
            if actors is not None:
                headers.append(actors[actor.number].header)
            found.append(min(header.pit.number for header in headers))
        return found

    def _value(self, cell: tuple, value: object) -> object:
        if cell[0] in DATA:
            return self._names.setdefault(value, len(self._names))
        if isinstance(value, Header):
            return self._number(value)
        if cell == RECORD and value is not None:
            return self._record(value)
        return value

    def _record(self, record):
        members = []
        for member in record.members:
            oldest = self._oldest[member.uuid.int - 1]
            old, new = member.old_pit - oldest, member.new_pit - oldest
            members.append(type(member)(member.uuid, old, new, member.change))
        return type(record)(record.id, record.pit_id, record.time_ns, tuple(members))

    def _number(self, header: Header) -> int:
        key = (id(header), self._oldest[header.uuid.int - 1])
        if key not in self._known:
            self._known[key] = (header, self._register(_younger(header, key[1])))
        return self._known[key][1]

    def _register(self, header: Header) -> int:
        if header not in self._numbers:
            self._numbers[header] = len(self._headers)
            self._headers.append(header)
        return self._numbers[header]

    def _memory(self, actor: Actor) -> tuple:
        words = self._words(actor.bits)
        far = actor.far and self._words(actor.far)
        return self._number(actor.header), words, tuple(actor.copied), far

    def _words(self, bits: Bits) -> tuple:
        chunks = self.first.chunks
        words = (b.word(0, chunks) for b in (bits.shadow, bits.copy, bits.ready))
        return (*words, tuple(bits._hot))

    def _promises(self, world: World) -> tuple:
        """What is nowhere any more cannot come back, or is no less a loss if it does."""
        known = {**self._names, TORN: TORN}
        return tuple(
            tuple(sorted(known[v] for v in values if v in known))
            for file in self.files
            for promise in world[file]
            for values in promise
        )

    # -- and back ---------------------------------------------------------------------------

    def thaw(self, state: State) -> Machine:
        """A machine in this state. After a crash its memory is worth nothing."""
        durable, pending, memory, promises = state
        machine = object.__new__(Machine)
        machine.__dict__.update(self.first.__dict__)
        cells = self.cells
        machine.disk = Disk(
            {cell: self._thawed(cell, v) for cell, v in zip(cells, durable, strict=True)},
            {cells[n]: tuple(self._thawed(cells[n], v) for v in new) for n, new in pending},
        )
        if memory is not None:
            machine.actors = [
                self._actor(actor, *found)
                for actor, found in zip(self.first.actors, memory, strict=True)
            ]
        machine.worlds = [self._world(p) for p in promises]
        return machine

    def _thawed(self, cell: tuple, value: object) -> object:
        return self._headers[value] if cell[-1] == "header" else value

    def _actor(self, first: Actor, header: int, words: tuple, copied: tuple, far) -> Actor:
        own, far = self._bits(words), far and self._bits(far)
        return Actor(first.number, first.family, self._headers[header], own, list(copied), far)

    def _bits(self, words: tuple) -> Bits:
        shadow, copy, ready, hot = words
        bits = self.first.bits_of(shadow, copy)
        bits.ready = self.first.bits_of(ready, 0).shadow
        bits._hot.update(dict.fromkeys(hot))
        return bits

    def _world(self, promises: tuple) -> World:
        values = iter(map(frozenset, promises))
        chunks = range(self.first.chunks)
        return {file: [(next(values), next(values)) for _ in chunks] for file in self.files}


def _younger(header: Header, oldest: int) -> Header:
    pit = replace(header.pit, number=header.pit.number - oldest)
    later = header.pending_pit
    if header.pending is not Change.NONE:
        later = replace(later, number=later.number - oldest)
    undated = {"master_times": Times(), "shadow_times": Times()}  # of the moment of the test
    return replace(header, pit=pit, pending_pit=later, **undated)
