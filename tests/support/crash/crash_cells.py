"""Every state in which a power loss may leave a few chunks, their bits and their headers.

A chunk of a volume, a sector of bits, a header and the group's record are cells: a durable value,
and the values that were written since the last sync of their volume. A power loss leaves each
cell, by itself, with one of them. Sectors come back old or new, and so does a header, which has two
slots; a chunk has many sectors and may come back torn.
"""

from collections.abc import Iterator
from itertools import product

Cell = tuple
Content = dict[Cell, object]

DATA = frozenset({"M", "S"})
"""First words of the cells that hold a chunk: of a master, of a shadow."""

TORN = -2
"""In a set of legal values: a chunk that is partly one, partly another of them."""


class Torn:
    """A chunk that a power loss has torn: equal to nothing but itself."""


class Disk:
    """All cells. A volume is the first words of the names of its cells."""

    __slots__ = ("durable", "pending")

    def __init__(self, durable: Content, pending: dict[Cell, tuple] | None = None) -> None:
        self.durable, self.pending = durable, pending or {}

    def put(self, cell: Cell, value: object) -> None:
        self.pending[cell] = (*self.pending.get(cell, ()), value)

    def get(self, cell: Cell) -> object:
        return self.pending[cell][-1] if cell in self.pending else self.durable[cell]

    def values(self, cell: Cell) -> list[object]:
        """What a cell holds, and what it may hold after a loss."""
        return [self.durable[cell], *self.pending.get(cell, ())]

    def sync(self, volume: Cell) -> None:
        for cell in [c for c in self.pending if c[: len(volume)] == volume]:
            self.durable[cell] = self.pending.pop(cell)[-1]

    def content(self) -> Content:
        """What anybody reads now, and what a kill leaves."""
        return {**self.durable, **{cell: values[-1] for cell, values in self.pending.items()}}

    def losses(self) -> Iterator[Content]:
        """What a power loss may leave."""
        cells = list(self.pending)
        for values in product(*map(self._choices, cells)):
            yield {**self.durable, **dict(zip(cells, values, strict=True))}

    def _choices(self, cell: Cell) -> list[object]:
        found = list(dict.fromkeys((self.durable[cell], *self.pending[cell])))
        return [*found, Torn()] if cell[0] in DATA and len(found) > 1 else found


def is_legal(value: object, legal: frozenset) -> bool:
    """May a file show this? A torn chunk only where an unsynced write is."""
    return TORN in legal if isinstance(value, Torn) else value in legal
