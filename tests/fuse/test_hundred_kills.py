"""SIGKILL at random moments of every verb, on and on with the same sets.

The truth is kept outside: of each file what it showed and every write since, with when it was sent
and answered. A kill of the service costs no write that was answered, since the page cache of the
raw volumes survives it; one without an answer may be there, sector by sector.

IIFUSE_CRASH_SEED draws another script; the script is the same for a seed, the moments are not.
"""

import os
import time

import pytest
from kill_script import Script
from kill_world import World
from samples import WHOLE

KILLS = 100 if WHOLE else 30
SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))


@pytest.fixture
def play(disk_place):
    """Play one script until `enough` says so of its tally."""
    worlds = []

    def run(seed, enough):
        print(f"seed {seed}", flush=True)
        (disk_place / str(seed)).mkdir()
        worlds.append(World(disk_place / str(seed), seed))
        worlds[-1].begin()
        script = Script(worlds[-1])
        while not enough(script.world.tally):
            script.play()
        script.finish()
        print(script.report(), flush=True)

    try:
        yield run
    finally:
        for world in worlds:
            world.close()


@pytest.mark.sampled
def test_hundred_kills_lose_nothing(play):
    """F1, F3, F4, F5, F6, F25: beside the kills that cut a start."""
    play(SEED, lambda tally: tally.kills - tally.starts_cut >= KILLS)


@pytest.mark.long
def test_kills_for_hours_lose_nothing(play, long_seconds):
    """F1, F3, F4, F5, F6, F25"""
    end, seed = time.monotonic() + long_seconds, SEED
    while time.monotonic() < end:
        seed += 1
        stop = min(end, time.monotonic() + 600)
        play(seed, lambda _, stop=stop: time.monotonic() > stop)
