"""Every state in which a power loss may leave the disk at one stop of a recording."""

import random
from collections.abc import Iterable, Iterator
from itertools import product

from crash_disk import Database, Event, Image, Names, Sync, Write
from stamps import SECTOR

Torn = frozenset[int] | None
"""The sectors of a write that reached the disk; None: all of them."""

Choice = list[tuple[Write, Torn]]


class Durable:
    """The disk while a log is walked: what is surely there, and the writes that may be."""

    def __init__(self, base: Image) -> None:
        self.image = base.share()
        self.pending: list[tuple[int, Write]] = []

    def whole(self) -> Image:
        """With all that was written: what a killed service leaves in the page cache."""
        return built(self.image, [(w, None) for _, w in self.pending])

    def restarted(self) -> "Durable":
        """The same disk under a new log."""
        state = Durable(self.image)
        state.pending = [(-1, w) for _, w in self.pending]
        return state

    def apply(self, position: int, event: Event) -> None:
        match event:
            case Write():
                self.pending.append((position, event))
            case Sync(file, began):
                done = [w for n, w in self.pending if w.file == file and n < began]
                self.image = built(self.image, [(w, None) for w in done])
                gone = {id(w) for w in done}
                self.pending = [(n, w) for n, w in self.pending if id(w) not in gone]
            case Names(names, new, size):
                self.image.names = names
                if new is not None:
                    old = self.image.files.get(new, b"")
                    self.image.files[new] = old[:size].ljust(size, b"\0")
            case Database(host, content):
                self.image.dbs = {**self.image.dbs, host: content}


def built(base: Image, choice: Iterable[tuple[Write, Torn]]) -> Image:
    """An image with some writes done, the others lost."""
    image = base.share()
    touched: dict[int, bytearray] = {}
    for write, torn in choice:
        data = touched.setdefault(write.file, bytearray(image.files[write.file]))
        if torn is None:
            data[write.offset : write.offset + len(write.data)] = write.data
            continue
        for sector in torn:
            part = write.data[sector * SECTOR : (sector + 1) * SECTOR]
            data[write.offset + sector * SECTOR : write.offset + sector * SECTOR + len(part)] = part
    for number, data in touched.items():
        image.files[number] = bytes(data)
    return image


def images(state: Durable, chance: random.Random, budget: int) -> Iterator[Image]:
    """All combinations where there are few, else patterns and `budget` random ones."""
    writes = [w for _, w in state.pending]
    for choice in choices(writes, chance, budget):
        yield built(state.image, choice)


def choices(writes: list[Write], chance: random.Random, budget: int) -> Iterator[Choice]:
    if 3 ** len(writes) <= budget:
        yield from _all(writes, chance)
        return
    yield from _patterns(writes)
    for _ in range(budget):
        keep, tear = chance.choice((0.2, 0.5, 0.8)), chance.choice((0.0, 0.4))
        yield [
            (w, _torn(w, chance) if chance.random() < tear else None)
            for w in writes
            if chance.random() < keep
        ]


def _all(writes: list[Write], chance: random.Random) -> Iterator[Choice]:
    ways = [("lost", "done", "torn") if len(w.data) > SECTOR else ("lost", "done") for w in writes]
    for way in product(*ways):
        yield [
            (w, _torn(w, chance) if how == "torn" else None)
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


def _torn(write: Write, chance: random.Random) -> Torn:
    count = -(-len(write.data) // SECTOR)
    if chance.random() < 0.5:  # cut off, as a disk does that loses power in the middle
        return frozenset(range(chance.randrange(count)))
    return frozenset(n for n in range(count) if chance.random() < 0.5)
