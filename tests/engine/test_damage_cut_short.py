"""A sector of a bitmap is damaged while an update was cut short."""

import pytest
from bitmaps import change_header
from harness import CHUNK
from quiet_sets import Sets
from real_engine import service

from iifuse.core.header import Pit
from iifuse.core.sector import HEADER_REGION_BYTES
from iifuse.core.state import Change


@pytest.mark.parametrize("change", [Change.MERGE_TO_SHADOW, Change.FILL_TO_SHADOW])
async def test_update_that_is_completed_at_a_start_copies_what_lost_bits_stood_for(place, change):
    """Else the shadow would go on to show those chunks as they were the day before."""
    sets = Sets(place)
    async with service(sets.state, killed=True) as instance:
        await sets.make(instance)
        await sets.view(instance, "m").write(CHUNK, b"today")
        pit = sets.set(instance, "ind").header.pit
    bitmap = sets.file("ind.b")
    change_header(bitmap, pending=change, pending_pit=Pit(pit.number + 1, pit.id, pit.time_ns))
    with bitmap.open("r+b") as file:
        file.seek(HEADER_REGION_BYTES + 100)
        file.write(b"\xff" * 8)
    async with service(sets.state) as instance:
        member = sets.set(instance, "ind")
        assert member.header.pit.number == pit.number + 1
        assert not member.state.offline
        await instance.running(member).wait()
        assert (await sets.view(instance, "ind").read(CHUNK, 5)) == b"today"
        assert member.shadow.read(CHUNK, 5) == b"today"
