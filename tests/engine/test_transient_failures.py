"""Families of several sets whose volumes fail now and then: no point in time is silently wrong."""

import logging
from dataclasses import dataclass, replace
from unittest.mock import patch

import pytest
import trio
from bitmaps import chunks_of
from fake_volume import Bench, durable
from harness import CHUNK
from hypothesis import given, settings
from hypothesis import strategies as st

from iifuse.core import bits
from iifuse.core.state import Kind, Policy, Progress
from iifuse.data import family
from iifuse.data.volumeset import VolumeSet

COUNT = 24
SIZE = COUNT * CHUNK - 5
EVEN = tuple(range(0, COUNT, 2))
MASTER = b"".join(bytes([1 + n]) * CHUNK for n in range(COUNT))[:SIZE]
OTHER = b"".join(bytes([101 + n]) * CHUNK for n in range(COUNT))[:SIZE]
BLANK = bytes(SIZE)


def mixed(even: bytes, odd: bytes) -> bytes:
    parts = [(even, odd)[n % 2][n * CHUNK : (n + 1) * CHUNK] for n in range(COUNT)]
    return b"".join(parts)


IDLE, FILLS, RESTORES = Progress.IDLE, Progress.TO_SHADOW, Progress.TO_MASTER
SETS = {
    "dependent": (Kind.DEPENDENT, BLANK, IDLE, (), MASTER),
    "independent": (Kind.INDEPENDENT, MASTER, IDLE, (), MASTER),
    "being filled": (Kind.INDEPENDENT, BLANK, FILLS, tuple(range(COUNT)), MASTER),
    "restores": (Kind.INDEPENDENT, mixed(OTHER, MASTER), RESTORES, EVEN, mixed(OTHER, MASTER)),
    "restores as a dependent": (Kind.DEPENDENT, OTHER, RESTORES, EVEN, mixed(OTHER, MASTER)),
}
"""Of each: kind, raw shadow, progress, copy bits, and what the shadow shows."""

FAMILIES = [
    ("dependent",),
    ("dependent", "dependent"),
    ("dependent", "independent"),
    ("dependent", "being filled"),
    ("dependent", "restores"),
    ("restores", "dependent"),
    ("dependent", "restores as a dependent"),
]


@dataclass
class Seen:
    """What a file has to show."""

    content: bytearray
    written: set[int]
    """Chunks that programs have written through it."""

    def write(self, first: int, data: bytes) -> None:
        self.content[first * CHUNK : first * CHUNK + len(data)] = data
        self.written |= set(range(first, first + -(-len(data) // CHUNK)))


class World:
    """The family, and what each of its files has to show."""

    def __init__(self, names: tuple[str, ...], policies: list[bool], *, ordered: bool) -> None:
        self.bench = Bench(MASTER, ordered=ordered)
        self.master = Seen(bytearray(MASTER), set())
        self.sets: list[tuple[VolumeSet, Seen]] = []
        self.failing, self.pattern, self.calls = -1, 0, 0
        for number, (name, break_write) in enumerate(zip(names, policies, strict=False)):
            kind, shadow, progress, copy, content = SETS[name]
            member = self.bench.add(f"/s{number}", kind, shadow, progress, copy)
            member.amend(replace(member.header, policy=Policy(break_write=break_write)))
            self.sets.append((member, Seen(bytearray(content), set())))
            for volume in (member.shadow, member.bitmap.volume):
                volume.breaks.append(self._breaks(volume))
            if progress is RESTORES:
                self.master = Seen(bytearray(content), set())

    def _breaks(self, volume):
        def breaks(operation: str, offset: int, length: int) -> bool:
            volumes = [v for m, _ in self.sets for v in (m.shadow, m.bitmap.volume)]
            if self.failing < 0 or volume is not volumes[self.failing % len(volumes)]:
                return False
            self.calls += 1
            return bool(self.pattern >> self.calls % 5 & 1)

        return breaks

    async def write(self, target: int, first: int, count: int, byte: int) -> None:
        data = bytes([byte]) * (min((first + count) * CHUNK, SIZE) - first * CHUNK)
        view, seen = self.bench.view, self.master
        if target:
            member, seen = self.sets[target % len(self.sets)]
            view = self.bench.shadow_view(member)
        try:
            await view.write(first * CHUNK, data)
        except OSError:
            return
        seen.write(first, data)

    async def batch(self, failing: int, pattern: int, writes: list[tuple[int, int, int]]) -> None:
        self.failing, self.pattern, self.calls = failing, pattern, 0
        taken: set[int] = set()
        async with trio.open_nursery() as nursery:
            for number, (target, first, count) in enumerate(writes):
                run = set(range(first, min(first + count, COUNT)))
                if not run & taken:
                    taken |= run
                    nursery.start_soon(self.write, target, first, len(run), 200 + number)
        self.failing = -1

    async def check(self) -> None:
        shown = [(self.bench.view, self.master)]
        shown += [(self.bench.shadow_view(m), seen) for m, seen in self.sets if not m.is_lost]
        for view, seen in shown:
            try:
                found = await view.read(0, SIZE)
            except OSError:
                continue
            wrong = [n for n in range(COUNT) if differ(found, seen.content, n)]
            assert not wrong, f"{view.path} shows something else in chunks {wrong}"
        for member, seen in self.sets:
            if not member.is_lost and self.bench.family.ordered:
                check_bits(member, seen)


def check_bits(member: VolumeSet, seen: Seen) -> None:
    """Invariants 1 and 4, as a power loss would find them."""
    _, shadow, copy = durable(member)
    assert chunks_of(member.bits.shadow) <= shadow
    ready = chunks_of(member.bits.ready)
    assert ready <= shadow
    assert not ready & copy
    if member.header.kind is Kind.DEPENDENT:
        kept = member.shadow.durable
        wrong = [n for n in shadow - copy - seen.written if differ(kept, seen.content, n)]
        assert not wrong, f"bits say that chunks {wrong} are preserved"


def differ(one: bytes, other: bytes, chunk: int) -> bool:
    extent = slice(chunk * CHUNK, (chunk + 1) * CHUNK)
    return bytes(one[extent]) != bytes(other[extent])


run_of_chunks = st.tuples(st.integers(0, 2), st.integers(0, COUNT - 1), st.integers(1, 6))
batches = st.lists(
    st.tuples(
        st.integers(-1, 3), st.integers(0, 31), st.lists(run_of_chunks, min_size=1, max_size=4)
    ),
    max_size=8,
)


@pytest.mark.sampled(3)
@pytest.mark.parametrize("names", FAMILIES, ids=" and ".join)
@settings(max_examples=200)
@given(batches, st.lists(st.booleans(), min_size=2, max_size=2), st.booleans())
def test_views_and_bits_are_right_or_the_set_is_known_to_be_lost(names, script, policies, ordered):
    async def play() -> None:
        world = World(names, policies, ordered=ordered)
        for batch in script:
            await world.batch(*batch)
            await world.check()

    logging.disable(logging.CRITICAL)
    try:
        with (
            patch.object(bits, "HOT_REGIONS_MAX", 1),
            patch.object(bits, "REGION_CHUNKS", 8),
            patch.object(family, "STREAM_CHUNKS", 2),
            patch.object(family, "AHEAD_CHUNKS", 8),
        ):
            trio.run(play)
    finally:
        logging.disable(logging.NOTSET)
