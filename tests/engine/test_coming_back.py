"""A set is said to be whole when its files are on the mount, and not before (findings K4)."""

import logging
import os

import pytest
from harness import CHUNK
from real_engine import service

from iifuse.control.rows import status
from iifuse.core.sector import bitmap_bytes
from iifuse.core.state import Kind
from iifuse.engine import enable, late, recovery
from iifuse.engine.opening import NewSet


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
    async with service(place / "state") as engine:
        await enable.enable(engine, NewSet(kind, *map(str, paths.values())))
    for part in lost:
        os.rename(paths[part], place / f"{part}.away")
    async with service(place / "state") as engine:
        (member,) = engine.sets.values()
        for part in lost:
            os.rename(place / f"{part}.away", paths[part])
        told, real = [], recovery.show

        async def show(*shown):
            told.append((await status(member)).waiting)
            await real(*shown)

        monkeypatch.setattr(recovery, "show", show)
        await late.look(engine)
        assert told
        assert all(told)
        row = await status(member)
        assert (row.offline, row.waiting, row.replaced) == ((), None, None)
        assert set(engine.views) == {str(paths["m"]), str(paths["s"])}
