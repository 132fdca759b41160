"""The power fails at every write and at every sync of every verb; nothing is lost.

Each image is recovered by the real recovery and checked by `crash_judge`, which reads the bitmap
format by itself. `make test` draws some scenarios, `make test-long` takes all with two seeds, and
`make test-crash` goes on with further seeds; IIFUSE_CRASH_SEED is the first seed.
"""

import multiprocessing
import os
import time

import pytest
from crash_explore import Options, Tally, explore
from crash_scenarios import SCENARIOS
from samples import some

WORKERS = 2
SEEDS = 2
SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))
DRAWN = 2
"""Scenarios, each with one of the seeds, in `make test`."""
IMAGES_MIN = 100
"""Of each scenario and seed; the shortest ones make few."""
IMAGES_MIN_MEAN = 2000
"""Over all of them."""


def _explore(job):
    name, seed = job
    return name, explore(name, SCENARIOS[name], seed, Options())


@pytest.mark.sampled
def test_power_loss_at_every_write_and_sync_loses_nothing():
    jobs = [(name, seed) for seed in range(SEED, SEED + SEEDS) for name in SCENARIOS]
    drawn = some(jobs, DRAWN, "power loss")
    images = _run(drawn).images
    assert len(drawn) < len(jobs) or images >= IMAGES_MIN_MEAN * len(jobs)


def test_power_loss_is_explored_alike_for_the_same_seed():
    first, second = (
        explore("first_touches-dep-4", SCENARIOS["first_touches-dep-4"], 3, Options(per_stop=10))
        for _ in range(2)
    )
    assert (first.images, first.judged, first.stops) == (second.images, second.judged, second.stops)


def _run(jobs):
    total, began = Tally(), time.monotonic()
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=20) as pool:
        for name, tally in pool.imap_unordered(_explore, jobs):
            assert tally.images >= IMAGES_MIN, f"{name}: {tally}"
            total.add(tally)
    total.seconds = time.monotonic() - began
    print(f"\n{len(jobs)} scenarios: {total}")
    return total


@pytest.mark.long
def test_power_loss_with_further_seeds_loses_nothing(long_seconds):
    stop, seed = time.monotonic() + long_seconds, SEED + SEEDS
    while time.monotonic() < stop:
        _run([(name, seed) for name in SCENARIOS])
        print(f"seed {seed} done", flush=True)
        seed += 1
