"""The disk in memory, on which power failures are explored, has all that the product asks for."""

import pytest
from crash_explore import Options, explore
from crash_scenarios import SCENARIOS


@pytest.mark.parametrize("name", ["enable-dep-1", "clean_stop-ind", "exchange"])
def test_product_works_on_the_disk_in_memory(name):
    assert explore(name, SCENARIOS[name], 1, Options(per_stop=1, images_max=30)).judged
