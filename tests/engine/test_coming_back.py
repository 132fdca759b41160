"""A set is said to be whole when its files are on the mount, and not before (findings K4)."""

import logging
import os

import pytest
from harness import CHUNK
from real_engine import service

from iifuse.control.rows import status
from iifuse.core.sector import bitmap_bytes
from iifuse.core.state import Kind
from iifuse.host.verblocks import RECORD
from iifuse.verbs import enable, late, recovery
from iifuse.verbs.opening import NewSet


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("lost", ["m", "s", "b", "ms", "mb", "sb", "msb"])
@pytest.mark.parametrize("kind", Kind)
async def test_set_is_said_to_be_whole_when_its_files_are_shown(place, monkeypatch, kind, lost):
    paths = {part: place / part for part in "msb"}
    for part, path in paths.items():
        file = place / f"{part}.volume"
        file.write_bytes(bytes(bitmap_bytes(4) if part == "b" else 4 * CHUNK))
        path.symlink_to(file)  # to move a link is not to write to its file
    async with service(place / "state") as instance:
        await enable.enable(instance, NewSet(kind, *map(str, paths.values())))
    for part in lost:
        os.rename(paths[part], place / f"{part}.away")
    async with service(place / "state") as instance:
        (member,) = instance.sets.values()
        for part in lost:
            os.rename(place / f"{part}.away", paths[part])
        told, real = [], recovery.show

        async def show(*shown):
            told.append((await status(instance, member)).waiting)
            await real(*shown)

        monkeypatch.setattr(recovery, "show", show)
        await late.look(instance)
        assert told
        assert all(told)
        row = await status(instance, member)
        assert (row.offline, row.waiting, row.replaced) == ((), None, None)
        assert set(instance.views) == {str(paths["m"]), str(paths["s"])}


async def test_bitmap_that_is_back_waits_for_a_group_command_under_way(place):
    """To take it in may forget the record of that command, which a crash would need."""
    paths = [place / part for part in "msb"]
    for part, path in zip("msb", paths, strict=True):
        path.write_bytes(bytes(bitmap_bytes(4) if part == "b" else 4 * CHUNK))
    async with service(place / "state") as instance:
        await enable.enable(instance, NewSet(Kind.DEPENDENT, *map(str, paths)))
    os.rename(paths[2], place / "away")
    async with service(place / "state") as instance:
        (member,) = instance.sets.values()
        os.rename(place / "away", paths[2])
        claim = frozenset({instance.claim_of(member)})
        async with instance.verb_locks.claimed({RECORD}):
            await late.look(instance, claim)
            assert late.waits(member)
        await late.look(instance, claim)
        assert not late.waits(member)
