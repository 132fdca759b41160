"""What volumes and sets have to show, in plain Python: bytes by chunk and sets of chunk numbers.

The model of sets, for who sees each answer: after every verb master and shadow are known to the
byte, and the bits to bounds. Three others know less and keep more, so they stand apart: what a file
may show after a power loss (crash_history), by when a write was sent and answered while the service
is killed (kill_sectors), and byte for byte while one program goes on writing (exercise_model).
"""

from dataclasses import dataclass, field
from typing import Self

from harness import CHUNK

from iifuse.core.bits import REGION_CHUNKS

ZEROS = bytes(CHUNK)
WIPED = (8 * 1024, 64 * 1024)

TABLE = {
    "idle": {"-u s", "-u m", "-c s", "-c m", "-d", "-E"},
    "to_shadow running": {"-u s", "-c s"},
    "to_shadow aborted": {"-u s", "-c s", "-d"},
    "to_master running": set(),
    "to_master aborted": {"-u m", "-c m"},
    "exported": {"-d"},
    "imported": {"-d"},
}
"""State of a set -> what may be done with it. `-a` and `-w` are always allowed."""


class Content:
    """The bytes of a volume; chunks that are not kept are zeros."""

    def __init__(self, size: int, chunks: dict[int, bytes] | None = None) -> None:
        self.size, self.chunks = size, chunks or {}

    @property
    def count(self) -> int:
        return -(-self.size // CHUNK)

    def copy(self) -> Self:
        return type(self)(self.size, dict(self.chunks))

    def chunk(self, number: int) -> bytes:
        whole = self.chunks.get(number, ZEROS)
        return whole[: self.size - number * CHUNK]

    def run(self, first: int, count: int) -> bytes:
        return b"".join(map(self.chunk, range(first, min(first + count, self.count))))

    def whole(self) -> bytes:
        return self.run(0, self.count)

    def write(self, offset: int, data: bytes) -> set[int]:
        """The chunks that were touched."""
        assert data
        assert offset + len(data) <= self.size
        touched = set(range(offset // CHUNK, (offset + len(data) - 1) // CHUNK + 1))
        for number in touched:
            start = number * CHUNK
            old = bytearray(self.chunks.get(number, ZEROS))
            low, high = max(offset, start), min(offset + len(data), start + CHUNK)
            old[low - start : high - start] = data[low - offset : high - offset]
            self.chunks[number] = bytes(old)
        return touched

    def differing(self, other: "Content") -> set[int]:
        return {n for n in self.chunks | other.chunks if self.chunk(n) != other.chunk(n)}


@dataclass
class Import:
    """A secondary bitmap: what the other host may have changed of the shadow."""

    path: str
    export: tuple[int, int]
    """(life of the set, export number)."""
    pit: int
    lower: set[int] = field(default_factory=set)
    upper: set[int] = field(default_factory=set)
    closed: bool = False
    joined: bool = False


@dataclass
class ModelSet:
    """One set. The shadow bits lie between `lower` and `upper`; so far they are one, as long as
    no kill came and no sibling restores. The copy bits are at most `copy`.
    """

    name: str
    kind: str
    master: "ModelMaster"
    enabled: bool = False
    shadow: Content = field(default_factory=lambda: Content(0))
    progress: str = "idle"
    copying: bool = False
    custody: str = "local"
    pit: int = 0
    life: int = 0
    group: str | None = None
    lower: set[int] = field(default_factory=set)
    upper: set[int] = field(default_factory=set)
    copy: set[int] = field(default_factory=set)
    restores: set[int] = field(default_factory=set)
    exports: int = 0
    imports: dict[str, Import] = field(default_factory=dict)
    left: int = 0
    """Copy bits that an abort has left over; the next PIT copies at least as many chunks."""
    union: int | None = None
    """Copy bits at the PIT as the service said; None after a restart, which forgets the count."""

    @property
    def count(self) -> int:
        return self.master.content.count

    @property
    def siblings(self) -> list["ModelSet"]:
        return [s for s in self.master.sets if s is not self and s.enabled]

    @property
    def row(self) -> str:
        """The set's row of the state table."""
        if self.custody != "local":
            return self.custody
        if self.progress == "idle":
            return "idle"
        return f"{self.progress} {'running' if self.copying else 'aborted'}"

    def is_held_by_sibling(self, *, copies_ended: bool) -> bool:
        """Does a sibling restore the master, which stops every new PIT?"""
        return any(
            s.progress == "to_master" and not (s.copying and copies_ended) for s in self.siblings
        )

    def allows(self, verb: str, *, copies_ended: bool) -> bool:
        """`copies_ended`: had all running copies ended, which they may do at any time."""
        if verb[:2] in ("-u", "-c") and self.is_held_by_sibling(copies_ended=copies_ended):
            return False
        if verb == "-E" and self.kind == "dep":
            return False
        return verb in TABLE["idle" if self.copying and copies_ended else self.row]

    # -- what verbs do ----------------------------------------------------------------------

    def enable(self) -> None:
        self.left = 0
        self.enabled = True
        self.shadow = self.master.content.copy()
        self.lower, self.upper, self.copy = set(), set(), set()
        self.pit, self.life, self.exports, self.imports = 1, self.life + 1, 0, {}
        self.custody = "local"
        if self.kind == "ind":
            self.progress, self.copying = "to_shadow", True
            self.copy = set(range(self.count))
            self.union = self.count

    def disable(self) -> None:
        self.enabled, self.progress, self.copying, self.group = False, "idle", False, None

    @property
    def is_incomplete(self) -> bool:
        return self.custody == "local" and (self.kind == "dep" or self.progress != "idle")

    def flip(self, direction: str, full: bool) -> tuple[int, int]:
        """A new PIT; the bounds of the copy bits that the service may name."""
        self.pit += 1
        low, high = set(self.lower), self.upper | self.copy
        if full and self.kind == "ind":
            low = high = set(range(self.count))
        self.lower, self.upper = set(), set()
        if direction == "s":
            self.shadow = self.master.content.copy()
            if self.kind == "dep":
                return 0, 0
            self.progress = "to_shadow"
        else:
            self.master.content = self.shadow.copy()
            self.progress, self.restores = "to_master", low
            for sibling in self.siblings:
                sibling.upper |= high
        self.copying, self.copy = True, high
        least, self.left = max(len(low), self.left), 0
        return least, len(high)

    def finish(self) -> None:
        """The copy has ended."""
        if self.progress == "to_master":
            for sibling in self.siblings:
                sibling.lower |= self.restores
        self.progress, self.copying, self.left = "idle", False, 0
        self.copy, self.restores = set(), set()

    def wrote(self, chunks: set[int]) -> None:
        self.lower |= chunks
        self.upper |= chunks

    def killed(self) -> None:
        """Regions that were marked ahead count as changed from now on."""
        if self.kind == "ind" and self.progress == "idle":
            self.upper = regions(self.upper, self.count)
        self.union = None


def regions(chunks: set[int], count: int) -> set[int]:
    """The chunks of all regions in which one of `chunks` lies."""
    numbers = {c // REGION_CHUNKS for c in chunks}
    return {c for n in numbers for c in range(n * REGION_CHUNKS, (n + 1) * REGION_CHUNKS)} & set(
        range(count)
    )


@dataclass
class ModelMaster:
    """A live volume and the sets that it has."""

    name: str
    content: Content
    sets: list[ModelSet] = field(default_factory=list)

    @property
    def enabled(self) -> list[ModelSet]:
        return [s for s in self.sets if s.enabled]

    def write(self, offset: int, data: bytes) -> None:
        chunks = self.content.write(offset, data)
        for member in self.enabled:
            member.wrote(chunks)
