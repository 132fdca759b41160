"""What a file must show after its service was killed, by the stamps of its sectors.

Writes are numbered by one clock for all volumes, so their numbers also tell what came before what.
Unlike the judge of the power failures this one does not see the order of things within the service:
it knows only when each write and each command began and was answered.
"""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from alternatives import wrong_sectors
from lost import Lost
from stamps import NUMBER, SECTOR, sector, tag_of

WINDOW = 1024
"""Sectors at the beginning of each region that are ever written; the rest are holes."""

REGION_BYTES = 4 << 20
"""What the service marks ahead as a whole: a kill must not make all chunks differ."""

clock: Callable[[], int] = itertools.count(1).__next__
"""Each call gives a later moment than every call before it has given."""


def offset_of(sector: int) -> int:
    """Where in its file a sector lies, counted over the windows."""
    return sector // WINDOW * REGION_BYTES + sector % WINDOW * SECTOR


def size_of(count: int) -> int:
    """Bytes of a file with so many sectors in its windows."""
    return offset_of(count - 1) + SECTOR


def read_windows(path: Path, count: int) -> bytes:
    """The sectors of a file, without its holes."""
    fd = os.open(path, os.O_RDONLY)
    try:
        starts = range(0, count, WINDOW)
        return b"".join(
            os.pread(fd, min(WINDOW, count - n) * SECTOR, offset_of(n)) for n in starts
        )
    finally:
        os.close(fd)


def tags_in(name: str, blob: bytes) -> np.ndarray:
    """The tag of each sector. Raises Lost when a sector is not whole or is not in its place."""
    words = np.frombuffer(blob, "<u8").reshape(-1, SECTOR // 8)
    right = words[:, 1] == np.arange(len(words), dtype=np.uint64)
    for at in np.flatnonzero(right):
        right[at] = blob[at * SECTOR : (at + 1) * SECTOR] == sector(int(words[at, 0]), int(at))
    if not right.all():
        raise Lost(f"{name}: sectors {_some(~right)} are damaged or are those of another place")
    return words[:, 0].copy()


def _some(wrong: np.ndarray) -> str:
    found = np.flatnonzero(wrong)
    return f"{found[:8].tolist()} ({len(found)} in all)"


@dataclass(slots=True)
class Write:
    """One write; `begun` is its number, `ended` the moment of its answer (None: never)."""

    first: int
    count: int
    begun: int
    tag: int
    ended: int | None = None

    @property
    def range(self) -> slice:
        return slice(self.first, self.first + self.count)


class Truth:
    """What one file must show, kept outside: what it showed at first and every write since.

    `windows`: those that programs write to.
    """

    def __init__(self, name: str, volume: int, count: int) -> None:
        self.name, self.volume, self.count = name, volume, count
        self.windows = list(range(-(-count // WINDOW)))
        self.tags = np.full(count, tag_of(volume, 0), dtype=np.uint64)
        self.writes: list[Write] = []
        self._under_way: list[Write] = []
        self._lock = threading.Lock()

    def begin(self, first: int, count: int) -> Write | None:
        """A write is about to be sent; None if it would overlap one that is under way."""
        with self._lock:
            if any(w.first < first + count and first < w.first + w.count for w in self._under_way):
                return None
            number = clock()
            write = Write(first, count, number, tag_of(self.volume, number))
            self._under_way.append(write)
            self.writes.append(write)
            return write

    def acknowledge(self, write: Write) -> None:
        with self._lock:
            write.ended = clock()
            self._under_way.remove(write)

    def settle(self, blob: bytes) -> None:
        """The file shows every acknowledged write, and of each other one old or new sectors."""
        found, expected = tags_in(self.name, blob), self.tags.copy()
        for write in self.writes:
            if write.ended is not None:
                expected[write.range] = write.tag
        layers = [expected, *(self._with(w, expected) for w in self.writes if w.ended is None)]
        wrong = wrong_sectors(found[:, None], [layer[:, None] for layer in layers])
        if len(wrong):
            raise Lost(
                f"{self.name}: sectors {wrong[:8]} ({len(wrong)} in all) hold "
                f"{[hex(t) for t in found[wrong][:4]]} and not "
                f"{[hex(t) for t in expected[wrong][:4]]}"
            )
        self.become(found)

    def _with(self, write: Write, tags: np.ndarray) -> np.ndarray:
        changed = tags.copy()
        changed[write.range] = write.tag
        return changed

    def become(self, tags: np.ndarray) -> None:
        """From now on the file shows this; no write is under way."""
        self.tags, self.writes, self._under_way = tags, [], []


@dataclass(frozen=True)
class Part:
    """One file of a point in time: whose content it is, and the tags that it shows."""

    source: Truth
    name: str
    tags: np.ndarray


def check_instant(parts: Sequence[Part], begun: int, ended: int | None) -> None:
    """All parts show their sources at one instant of the command. Raises Lost.

    `begun`, `ended`: when the command was sent and answered (None: it was not). No write is in it
    half; whoever wrote after an answer is in it only if what was answered is in it.
    """
    last_in, first_out = 0, 1 << 62
    for part in parts:
        numbers, expected = part.tags & np.uint64(NUMBER), part.source.tags.copy()
        for write in list(part.source.writes):
            inside = numbers[write.range] >= write.begun
            if inside.all():
                expected[write.range] = write.tag
                last_in = max(last_in, write.begun)
            elif inside.any():
                raise Lost(f"{part.name}: write {write} is half in the point in time")
            elif write.ended is not None:
                first_out = min(first_out, write.ended)
        if (wrong := part.tags != expected).any():
            raise Lost(f"{part.name}: sectors {_some(wrong)} were never in {part.source.name} so")
    names = [part.name for part in parts]
    if first_out < begun:
        raise Lost(f"{names}: a write that was answered before the command is missing")
    if ended is not None and last_in > ended:
        raise Lost(f"{names}: a write is in the point in time that began after it")
    if first_out < last_in:
        raise Lost(f"{names}: a write is in it, and one that was answered before that is not")
