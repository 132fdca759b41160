"""The power fails under the real service; of what was answered nothing is lost.

The service runs under strace with real verbs. From what it did to its files and directories images
are made of what a file system may have kept: data, sizes and names, each until its own sync. Each
image is given to the real start. `make test-crash` goes on with further seeds.
"""

import multiprocessing
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import pytest
from crash_explore import Tally
from fault_service import shim
from fs_bugs import BUGS
from fs_explore import FsOptions, check_live, explore
from fs_rig import FsRecording, FsRig
from fs_scenarios import SCENARIOS
from lost import Lost

__all__ = ["shim"]

SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))
JOURNALS = ("", "one", "two")
"""What POSIX promises; state and volumes on one file system with a journal, and on two."""
IMAGES_MIN = 2000
IMAGES_MIN_LONG = 50_000
DRAWN = 18
"""So many scenarios share the images of a run."""
DAYS = 5
"""So often a forgetful service is recorded, at the most."""
WORKERS = 2


def record(name: str, shim: Path, bug: str | None = None) -> FsRecording:
    """Play a scenario with the real service, on a disk."""
    place = Path(tempfile.mkdtemp(prefix="iifuse-test-", dir="/var/tmp"))
    rig = FsRig(place, bug=bug, env={"LD_PRELOAD": str(shim), "FAULTS": str(place / "faults")})
    try:
        SCENARIOS[name](rig)
        return rig.finish(name)
    finally:
        rig.clean_up()
        shutil.rmtree(place, ignore_errors=True)


def look_at(recording: FsRecording, stops: int, seed: int, journals=JOURNALS) -> Tally:
    """All kinds of file systems."""
    total = Tally()
    scratch = tempfile.mkdtemp(prefix="iifuse-test-", dir="/dev/shm")
    try:
        if not recording.may_be_offline:
            check_live(recording, scratch)
        for kind in journals:
            total.add(explore(recording, scratch, FsOptions(seed, kind, stops)))
    finally:
        shutil.rmtree(scratch)
    return total


@pytest.mark.sampled(DRAWN)
@pytest.mark.parametrize("name", SCENARIOS)
def test_power_loss_forgets_no_answer(name, shim):
    """F2 as file systems see it, and F24: K1 of the findings."""
    recording, seed, tally = record(name, shim), SEED, Tally()
    while tally.images < IMAGES_MIN / DRAWN:
        tally.add(look_at(recording, 10, seed))
        seed += 1
    print(name, tally)


@pytest.mark.parametrize("name", BUGS)
def test_forgetful_service_is_caught(name, shim):
    """In one of some days: which note of the service is its last depends on its threads."""
    bug = BUGS[name]
    with pytest.raises(Lost) as caught:
        for _ in range(DAYS):
            recording = record(bug.scenario, shim, name)
            for seed in range(SEED, SEED + 10):
                look_at(recording, 22, seed, journals=("",))
    print(caught.value)
    assert re.search(bug.says, str(caught.value)), "that is another failure than the planted one"


def _long(job: tuple[str, Path, int]) -> tuple[str, Tally]:
    name, shim, seed = job
    return name, look_at(record(name, shim), 40, seed)


@pytest.mark.long
def test_power_loss_with_further_seeds_forgets_no_answer(long_seconds, shim):
    """For its share of the time; of an hour and more, for so many images."""
    began, seed, total = time.monotonic(), SEED + 1, Tally()
    enough = IMAGES_MIN_LONG if long_seconds > 300 else 1
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=20) as pool:
        while time.monotonic() - began < long_seconds or total.images < enough:
            for _, tally in pool.imap_unordered(_long, [(n, shim, seed) for n in SCENARIOS]):
                total.add(tally)
            print(f"seed {seed} done: {total}", flush=True)
            seed += 1
