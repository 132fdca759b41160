"""The disk in memory, on which power failures are explored, has all that the product asks for."""

from contextlib import closing

import pytest
from crash_disk import installed
from crash_explore import Options, explore
from crash_scenarios import SCENARIOS

from iifuse.store.statedb import StateDB


@pytest.mark.parametrize("name", ["enable-dep-1", "clean_stop-ind", "exchange"])
def test_product_works_on_the_disk_in_memory(name):
    assert explore(name, SCENARIOS[name], 1, Options(per_stop=1, images_max=30)).judged


def test_state_database_stays_a_real_one(tmp_path):
    with installed(), closing(StateDB(str(tmp_path))) as db:
        assert db.sets() == []
    assert (tmp_path / "state.db").exists()
