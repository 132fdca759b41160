"""What files surely hold while a log is walked, and which writes may be lost, or torn.

What a file holds and its size are durable once a sync of the file has returned that began after
the change. A sync that fails leaves its sectors in doubt for good, until they are written anew.
What becomes of names, and of databases, is the business of who derives from this.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

from crash_disk import Sync, Write
from stamps import SECTOR


@dataclass(frozen=True, slots=True)
class Resize:
    """A file was cut off, or got zeros at its end."""

    file: int
    size: int


@dataclass(frozen=True, slots=True)
class FailedSync:
    """What a file had not synced before may be lost for good, whatever a later sync says (F11)."""

    file: int


Data = Write | Resize
Torn = frozenset[int] | None
"""The sectors of a write that reached the disk; None: all of them."""
Choice = list[tuple[Data, Torn]]

NEVER = 1 << 60
"""A position that no sync comes after."""


class Unsynced:
    """`files`: what surely survives; `pending`: what may, and the position of each."""

    def __init__(self, files: dict[int, bytes]) -> None:
        self.files = dict(files)
        self.pending: list[tuple[int, Data]] = []

    def apply(self, position: int, event: object) -> None:
        match event:
            case Write() | Resize():
                self.pending.append((position, event))
            case Sync(file, began):
                self._sync(file, began)
            case FailedSync(file):
                self.pending = [d for n, e in self.pending for d in _doubtful(n, e, file)]

    def _sync(self, file: int, began: int) -> None:
        done = [e for n, e in self.pending if e.file == file and n < began]
        if not done:
            return
        self.files = self.with_done((e, None) for e in done)
        sure = {s for e in done if isinstance(e, Write) for s in _sectors(e)}
        self.pending = [
            (n, e) for n, e in self.pending
            if e.file != file or (n >= began and not (n == NEVER and e.offset in sure))
        ]  # fmt: skip

    def with_done(self, choice: Iterable[tuple[Data, Torn]]) -> dict[int, bytes]:
        """The files with some of the changes done, the others lost."""
        touched: dict[int, bytearray] = {}
        for change, torn in choice:
            old = self.files.get(change.file, b"")
            put(touched.setdefault(change.file, bytearray(old)), change, torn)
        return {**self.files, **{number: bytes(data) for number, data in touched.items()}}

    def everything(self) -> Choice:
        """All changes: what a killed service leaves in the page cache."""
        return [(change, None) for _, change in self.pending]

    def some(self, chance: random.Random) -> Choice:
        """Few or many of the changes, some of them torn."""
        keep, tear = chance.choice((0.2, 0.5, 0.8)), chance.choice((0.0, 0.4))
        return [
            (e, torn(e, chance) if chance.random() < tear else None)
            for _, e in self.pending
            if chance.random() < keep
        ]


def put(data: bytearray, change: Data, torn: Torn = None) -> None:
    """Change what a file holds. A torn write has made the file as long as a whole one does."""
    if isinstance(change, Resize):
        del data[change.size :]
        data.extend(bytes(change.size - len(data)))
        return
    data.extend(bytes(max(0, change.offset + len(change.data) - len(data))))
    if torn is None:
        data[change.offset : change.offset + len(change.data)] = change.data
        return
    for sector in torn:
        part = change.data[sector * SECTOR : (sector + 1) * SECTOR]
        start = change.offset + sector * SECTOR
        data[start : start + len(part)] = part


def torn(change: Data, chance: random.Random) -> Torn:
    """Which of its sectors reach the disk."""
    if not isinstance(change, Write):
        return None
    count = len(_sectors(change))
    if chance.random() < 0.5:  # cut off, as a disk does that loses power in the middle
        return frozenset(range(chance.randrange(count)))
    return frozenset(n for n in range(count) if chance.random() < 0.5)


def _sectors(write: Write) -> range:
    """Where its sectors begin."""
    return range(write.offset, write.offset + len(write.data), SECTOR)


def _doubtful(position: int, change: Data, file: int) -> list[tuple[int, Data]]:
    """A write of a file whose sync has failed, sector by sector, until each is written anew."""
    if change.file != file or isinstance(change, Resize):
        return [(position, change)]
    parts = [(n, change.data[n - change.offset :][:SECTOR]) for n in _sectors(change)]
    return [(NEVER, Write(file, n, part)) for n, part in parts]
