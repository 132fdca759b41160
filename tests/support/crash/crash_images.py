"""Every state in which a power loss may leave the disk at one stop of a recording.

Names are durable at once here; what a file system may lose of them is asked in fs_log.
"""

import random
from collections.abc import Iterable, Iterator
from itertools import product

from crash_disk import Database, Event, Image, Names, Write
from crash_unsynced import Choice, Data, FailedSync, Torn, Unsynced, torn
from stamps import SECTOR


class Durable(Unsynced):
    """The disk while a log is walked: what is surely there, and the writes that may be."""

    def __init__(self, base: Image) -> None:
        super().__init__(base.files)
        self.names, self.dbs = base.names, base.dbs

    def built(self, choice: Iterable[tuple[Data, Torn]]) -> Image:
        """An image with some writes done, the others lost."""
        return Image(self.with_done(choice), self.names, self.dbs)

    def whole(self) -> Image:
        """Nothing is lost."""
        return self.built(self.everything())

    def restarted(self) -> "Durable":
        """The same disk under a new log."""
        state = Durable(self.built(()))
        state.pending = [(-1, w) for _, w in self.pending]
        return state

    def apply(self, position: int, event: Event | FailedSync) -> None:
        match event:
            case Names(names, new, size):
                self.names = names
                if new is not None:
                    old = self.files.get(new, b"")
                    self.files[new] = old[:size].ljust(size, b"\0")
            case Database(host, content):
                self.dbs = {**self.dbs, host: content}
            case _:
                super().apply(position, event)


def images(state: Durable, chance: random.Random, budget: int) -> Iterator[Image]:
    """All combinations where there are few, else patterns and `budget` random ones."""
    for choice in _choices(state, chance, budget):
        yield state.built(choice)


def _choices(state: Durable, chance: random.Random, budget: int) -> Iterator[Choice]:
    writes = [w for _, w in state.pending]
    if 3 ** len(writes) <= budget:
        yield from _all(writes, chance)
        return
    yield from _patterns(writes)
    for _ in range(budget):
        yield state.some(chance)


def _all(writes: list[Write], chance: random.Random) -> Iterator[Choice]:
    ways = [("lost", "done", "torn") if len(w.data) > SECTOR else ("lost", "done") for w in writes]
    for way in product(*ways):
        yield [
            (w, torn(w, chance) if how == "torn" else None)
            for w, how in zip(writes, way, strict=True)
            if how != "lost"
        ]


def _patterns(writes: list[Write]) -> Iterator[Choice]:
    """Nothing, everything, and order lost across files: what finds most defects."""
    yield []
    yield [(w, None) for w in writes]
    yield [(writes[-1], None)]
    for file in sorted({w.file for w in writes}):
        yield [(w, None) for w in writes if w.file == file]
        yield [(w, None) for w in writes if w.file != file]
