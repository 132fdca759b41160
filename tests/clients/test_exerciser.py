"""Every way to read and write a file, on master and shadows at once, through every verb.

Each sector describes itself: a failure names the write that a wrong byte came from. F1, F25, F31.
IIFUSE_CRASH_SEED is the first seed.
"""

import os
import time

import pytest
from exercise import Exercise

SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))
RUN_SECONDS = 1200
OPS, OPS_SHORT = 7000, 2500
OPS_LONG, OPS_OF_SEED = 1_000_000, 20_000
OPTIONS = ["writeback_cache", "durability=process"]
LAYOUTS = [["ind"], ["dep"], ["ind", "dep"]]


@pytest.fixture
def hang_seconds():
    return RUN_SECONDS


@pytest.fixture
def exercise(new_service, place, capsys):
    """Run one; say what was done."""

    def run(kinds, seed, ops, *options, seconds=RUN_SECONDS):
        service = new_service(f"app{seed}", "stop_wait=20", *options)
        volumes = place / f"volumes{seed}"
        volumes.mkdir()
        began = time.monotonic()
        one = Exercise(service, volumes, kinds, seed, writeback="writeback_cache" in options)
        try:
            one.run(ops, seconds)
        finally:
            with capsys.disabled():
                took = time.monotonic() - began
                print(f"\n{kinds} seed {seed}: {one.ops} operations, {took:.0f} s", dict(one.did))
        return one

    return run


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kinds", LAYOUTS, ids="-".join)
def test_exerciser_finds_every_byte_where_it_belongs(exercise, kinds):
    assert exercise(kinds, SEED, OPS).ops >= OPS


@pytest.mark.parametrize("option", OPTIONS)
def test_exerciser_finds_the_same_with_other_mount_options(exercise, option):
    assert exercise(["ind", "dep"], SEED, OPS_SHORT, option).ops >= OPS_SHORT


@pytest.mark.long
def test_exerciser_goes_on_with_further_seeds(exercise, long_seconds):
    stop, seed, ops = time.monotonic() + long_seconds, SEED, 0
    while ops < OPS_LONG and time.monotonic() < stop:
        seed += 1
        options = [[], [], [OPTIONS[0]], [OPTIONS[1]], OPTIONS][seed % 5]
        left = stop - time.monotonic()
        ops += exercise(LAYOUTS[seed % 3], seed, OPS_OF_SEED, *options, seconds=left).ops
    print(f"{ops} operations, seeds {SEED + 1} to {seed}")
    assert ops
