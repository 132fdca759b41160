"""Compares the chunks that the bits call equal, while the set is in use (`iiverify`).

Both volumes are read past the page cache. Damage below the file system, or by another host, is on
the disk, and older pages in the cache would hide it.
"""

import errno
from collections.abc import Iterator
from functools import partial
from typing import Final

from iifuse import errors
from iifuse.core.bitmap import runs_of
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.state import (
    Custody,
    Kind,
    Progress,
    Role,
    how_to_bring_back,
    how_to_end_copy,
    how_to_end_custody,
)
from iifuse.core.touch import Side, Touch
from iifuse.data.chunklock import Mode
from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store.uncached import PIECE_BYTES, Uncached
from iifuse.units import Run, chunks_in

_STEP_CHUNKS: Final = 128
"""Chunks that are locked against writers at a time: 4 MiB."""


def check_comparable(instance: Instance, member: VolumeSet) -> Family:
    """The set's family. Raises Refused if equal bits need not mean equal bytes, and NotFound."""
    if instance.sets.get(member.name) is not member:
        raise errors.NotFound(member.name, "was disabled, and is another set now")
    member.check_whole("iiverify")
    state = member.state
    if state.kind is not Kind.INDEPENDENT:
        raise errors.Refused(
            member.name, "is a dependent set: its shadow holds only what has changed",
            "only an independent set has two whole volumes to compare",
        )  # fmt: skip
    if state.custody is not Custody.LOCAL:
        raise errors.Refused(
            member.name, f"is {state.custody.name.lower()}: only one of its volumes is here",
            how_to_end_custody(member.name, state, member.ticket),
        )  # fmt: skip
    if state.offline:
        roles = " and ".join(role.name.lower() for role in state.offline if role.name)
        raise errors.Refused(
            member.name, f"has its {roles} offline", how_to_bring_back(member.name, state)
        )
    if state.progress is not Progress.IDLE:
        how = "runs" if state.copying else "stands aborted"
        raise errors.Refused(member.name, f"its copy {how}", how_to_end_copy(member.name, state))
    return instance.family(member)


async def compare(instance: Instance, member: VolumeSet, first: int, count: int) -> list[Run]:
    """The runs of chunks whose bits say equal and whose bytes differ.

    `count` chunks from `first` on are compared. Raises Refused, NotFound, and OSError if a volume
    cannot be read.
    """
    family = check_comparable(instance, member)
    stop = min(first + count, member.geometry.chunks)
    found: list[Run] = []
    for at in range(first, stop, _STEP_CHUNKS):
        run = (at, min(_STEP_CHUNKS, stop - at))
        async with family.locks.hold(Mode.READ, *run):
            check_comparable(instance, member)
            equal = ~member.bits.shadow.word(*run) & ((1 << run[1]) - 1)
            if equal:
                found += await _compare_step(instance, member, run, equal)
    return found


async def _compare_step(instance: Instance, member: VolumeSet, run: Run, equal: int) -> list[Run]:
    """Compare one step. The result counts only if the set can still be compared after it."""
    family = instance.family(member)
    try:
        found = await member.within_limit(partial(_differing, family, member, run, equal))
    except OSError as error:
        check_comparable(instance, member)
        if error.errno == errno.ETIMEDOUT and not member.policy.break_write:
            await member.take_offline(Role.SHADOW, errors.words(error))
        raise
    check_comparable(instance, member)
    return found


def _differing(family: Family, member: VolumeSet, run: Run, equal: int) -> list[Run]:
    """The runs of chunks in the word `equal` whose bytes differ. Runs in a thread.

    Bit 0 of `equal` is the first chunk of `run`.
    """
    assert family.master is not None
    assert member.shadow is not None
    word = 0
    with Uncached(family.master) as master, Uncached(member.shadow) as shadow:
        for first, count in _pieces(runs_of(equal, run[0])):
            extent = member.geometry.extent((first, count))
            one, other = master.read(*extent), shadow.read(*extent)
            if one == other:
                continue
            for chunk in range(count):
                part = slice(chunk * CHUNK_BYTES, (chunk + 1) * CHUNK_BYTES)
                if one[part] != other[part]:
                    word |= 1 << (first + chunk - run[0])
    return runs_of(word, run[0])


def _pieces(runs: list[Run]) -> Iterator[Run]:
    """The runs, cut to pieces that are read at a time."""
    step = PIECE_BYTES // CHUNK_BYTES
    for first, count in runs:
        for at in range(first, first + count, step):
            yield at, min(step, first + count - at)


async def mark(instance: Instance, member: VolumeSet, runs: list[Run]) -> None:
    """Count chunks as different, so that the next update copies them.

    Raises Refused, NotFound, UsageError, and OSError.
    """
    family = check_comparable(instance, member)
    for first, count in runs:
        if not 0 <= first < first + count <= member.geometry.chunks:
            raise errors.UsageError(member.name, f"has no chunks {first} to {first + count - 1}")
    for run in runs:
        async with family.locks.hold(Mode.WRITE, *run):
            check_comparable(instance, member)  # it may have been disabled meanwhile
            await family.touch(Touch(Side.SHADOW, member.key, *run))
    if runs:
        why = "a comparison found them so"
        await instance.note(member, "marked as different", chunks=chunks_in(runs), why=why)
