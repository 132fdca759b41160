"""Do the bits tell the truth? Compare what they call equal, on a set in use (`iiverify`)."""

from functools import partial
from typing import Final

from iifuse import errors
from iifuse.core.bitmap import runs_of
from iifuse.core.plan import Side, Touch
from iifuse.core.state import Custody, Kind, Progress
from iifuse.engine.chunklock import Mode
from iifuse.engine.engine import Engine
from iifuse.engine.threads import blocking
from iifuse.engine.volumeset import VolumeSet
from iifuse.units import Run

_STEP_CHUNKS: Final = 128
"""Chunks that are kept from writers at a time: 4 MiB."""


def check_comparable(member: VolumeSet) -> None:
    """Raise Refused unless equal bits mean equal bytes: independent, idle, local, all online."""
    state = member.state
    idle = state.progress is Progress.IDLE and state.custody is Custody.LOCAL
    if state.kind is not Kind.INDEPENDENT or not idle or state.offline:
        raise errors.Refused(
            member.name,
            "only an independent set that is idle, local and online can be compared",
            "see 'iiadm -i'",
        )


async def compare(engine: Engine, member: VolumeSet, first: int, count: int) -> list[Run]:
    """The runs among `count` chunks from `first` on whose bits say equal and whose bytes differ.

    Raises Refused, and OSError when a volume cannot be read.
    """
    check_comparable(member)
    stop = min(first + count, member.geometry.chunks)
    found: list[Run] = []
    for at in range(first, stop, _STEP_CHUNKS):
        run = (at, min(_STEP_CHUNKS, stop - at))
        async with engine.family(member).locks.hold(Mode.READ, *run):
            check_comparable(member)
            equal = ~member.bits.shadow.word(*run) & ((1 << run[1]) - 1)
            if equal:
                found += await blocking(partial(_differing, engine, member, run, equal))
    return found


def _differing(engine: Engine, member: VolumeSet, run: Run, equal: int) -> list[Run]:
    """In a thread: the runs of `equal` (bit 0 is the first chunk of `run`) that differ."""
    master, shadow = engine.family(member).master, member.shadow
    assert master is not None
    assert shadow is not None
    word = 0
    for start, length in runs_of(equal, run[0]):
        for chunk in range(start, start + length):
            extent = member.geometry.extent((chunk, 1))
            if master.read(*extent) != shadow.read(*extent):
                word |= 1 << (chunk - run[0])
    return runs_of(word, run[0])


async def mark(engine: Engine, member: VolumeSet, runs: list[Run]) -> None:
    """Count chunks as different, so that the next update heals them. Raises Refused, UsageError."""
    check_comparable(member)
    family = engine.family(member)
    for first, count in runs:
        if not 0 <= first < first + count <= member.geometry.chunks:
            raise errors.UsageError(member.name, f"has no chunks {first} to {first + count - 1}")
    for run in runs:
        async with family.locks.hold(Mode.WRITE, *run):
            await family.touch(Touch(Side.SHADOW, member.key, *run))
