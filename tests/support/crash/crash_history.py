"""What programs did to each view, and what each may therefore show after a power loss.

Positions are numbers of events in the disk's log. Contents are compared sector by sector.
"""

from dataclasses import dataclass, field

import numpy as np
from alternatives import rows
from stamps import SECTOR


@dataclass
class Put:
    """A write. `ended`: the position after its reply, None while there was none."""

    began: int
    offset: int
    data: bytes
    ended: int | None = None

    def done_by(self, position: int) -> bool:
        return self.ended is not None and self.ended <= position


@dataclass
class Pit:
    """An instant at which views changed what they show: target -> source.

    It counts from the sync at `durable` on of the record that was written at `record`.
    """

    record: int
    durable: int
    views: dict[str, str]
    sets: tuple[str, ...]
    """The shadows whose PIT number rises."""


World = tuple[int, ...]
"""The PITs that have happened, by number."""


@dataclass
class Line:
    """One view's life."""

    base: bytes
    puts: list[Put] = field(default_factory=list)
    syncs: list[tuple[int, int]] = field(default_factory=list)


class History:
    """All views, and the PITs that tie them together."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        self.pits: list[Pit] = []
        self.retired: dict[str, int] = {}
        """View -> position from which nothing is promised of it any more."""
        self._exact: dict[tuple[str, int, World], bytes] = {}
        self._legal: dict[tuple[str, World], list[np.ndarray] | None] = {}
        self._position = -1

    def let_happen(self, pits: list[Pit]) -> None:
        """Go on as if these were the points in time."""
        self.pits = pits
        self.forget()

    def forget(self) -> None:
        """What was worked out so far; a write was taken back."""
        self._exact.clear()
        self._position = -1

    def worlds(self, position: int) -> list[World]:
        """A PIT whose record may or may not have reached the disk makes two of one world."""
        sure = [n for n, pit in enumerate(self.pits) if pit.durable < position]
        maybe = [
            n for n, p in enumerate(self.pits) if p.record < position <= p.durable
        ]  # fmt: skip
        found = [tuple(sure)]
        for number in maybe:
            found += [tuple(sorted((*world, number))) for world in found]
        return found

    def pit_number(self, shadow: str, world: World, base: int) -> int:
        """The number of a set's PIT; `base`: the one that it began with."""
        return base + sum(shadow in self.pits[n].sets for n in world)

    def _start(self, view: str, world: World, before: int) -> tuple[bytes | None, int]:
        """(content, position) at the view's last PIT before a position; None: not there yet."""
        for number in reversed(world):
            pit = self.pits[number]
            if view in pit.views and pit.record < before:
                earlier = tuple(n for n in world if n < number)
                return self.exact(pit.views[view], pit.record, earlier), pit.record
        line = self.lines.get(view)
        return (line.base if line else None), -1

    def exact(self, view: str, position: int, world: World) -> bytes | None:
        """What a running machine shows at a position at which no write is under way."""
        key = (view, position, world)
        if key not in self._exact:
            self._exact[key] = self._exactly(view, position, world)
        return self._exact[key]

    def _exactly(self, view: str, position: int, world: World) -> bytes | None:
        base, start = self._start(view, world, position)
        if base is None:
            return None
        content = bytearray(base)
        for put in self._puts(view):
            if put.done_by(position) and not put.done_by(start):
                content[put.offset : put.offset + len(put.data)] = put.data
        return bytes(content)

    def _puts(self, view: str) -> list[Put]:
        line = self.lines.get(view)
        return line.puts if line else []

    def legal(self, view: str, position: int, world: World) -> list[np.ndarray] | None:
        """What each sector may hold, as alternatives for the whole view; None: no such view."""
        key = (view, world)
        if position != self._position:
            self._position, self._legal = position, {}
        if key not in self._legal:
            self._legal[key] = self._legally(view, position, world)
        return self._legal[key]

    def _legally(self, view: str, position: int, world: World) -> list[np.ndarray] | None:
        base, start = self._start(view, world, position)
        if base is None:
            return None
        synced = self._synced(view, position, start)
        must = [p for p in self._puts(view) if p.done_by(synced) and not p.done_by(start)]
        may = [
            p for p in self._puts(view)
            if p.began < position and not p.done_by(synced) and not p.done_by(start)
        ]  # fmt: skip
        content = bytearray(base)
        for put in must:
            content[put.offset : put.offset + len(put.data)] = put.data
        layers = [rows(bytes(content))]
        for put in may:
            content[put.offset : put.offset + len(put.data)] = put.data
            layers.append(rows(bytes(content)))
        return layers

    def _synced(self, view: str, position: int, start: int) -> int:
        """The beginning of the last sync of a view that has returned."""
        line = self.lines.get(view)
        ours = [b for b, e in (line.syncs if line else []) if start < b and e <= position]
        return max(ours, default=start)

    def signature(self, position: int) -> tuple[object, ...]:
        """Equal for positions at which the same is legal."""
        begun = [sum(p.began < position for p in line.puts) for line in self.lines.values()]
        synced = [self._synced(view, position, -1) for view in self.lines]
        retired = [p < position for p in self.retired.values()]
        return (*self.worlds(position), *begun, *synced, *retired)


def over(layer: np.ndarray, put: Put) -> np.ndarray:
    """A layer with a write of whole sectors on it."""
    result, first = layer.copy(), put.offset // SECTOR
    found = rows(put.data)
    result[first : first + len(found)] = found
    return result
