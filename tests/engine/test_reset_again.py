"""`-R` that fails half-way can be given again: nothing that it opened is in its way."""

import errno
import logging

import pytest
from loss_cells import CHUNKS, Bench, Cell, tag

from iifuse import errors
from iifuse.core.state import Role
from iifuse.store.bitmapfile import BitmapFile


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("lost", ["mb", "sb", "msb"])
@pytest.mark.parametrize("state", ["ind idle", "dep idle", "ind to_master"])
async def test_reset_whose_bitmap_takes_no_write_can_be_repeated(place, monkeypatch, state, lost):
    bench = Bench(place / "cell", Cell(state, tuple((role, "deleted") for role in lost), "stop"))
    await bench.build()
    async with bench.service():
        if "m" in lost:
            bench.paths["m"].write_bytes(b"".join(tag("N", n) for n in range(CHUNKS)))

        def fail(_):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(BitmapFile, "erase_headers", fail)
        with pytest.raises((OSError, errors.IifuseError)) as refused:
            await bench.do("-R", sure=True)
        monkeypatch.undo()
        if isinstance(refused.value, OSError):
            await bench.do("-R", sure=True)
            (member,) = bench.instance.sets.values()
            assert not member.state.offline & (Role.MASTER | Role.BITMAP)
