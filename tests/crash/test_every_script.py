"""Every script of operations on a few chunks, cut by a crash between any two steps.

A power loss leaves each unsynced write done, dropped or (of a chunk) torn; a kill leaves them all.
Then the real recovery decides, may be cut as well, and the script goes on. `make test` draws some
of the cases, `make test-long` takes all, `make test-crash` looks at longer scripts.
"""

import multiprocessing

import pytest
from crash_model import GARBAGE, Setup
from crash_scripts import Case, dep, dep_to_master, explore, ind, ind_to_master, to_shadow
from crash_twists import TWISTS
from lost import Lost
from samples import some

from iifuse.core.state import Kind, Verb

WORKERS = 2

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
other_dep, other_ind = Setup(DEP, shadow=GARBAGE, master=1), Setup(IND, shadow=10, master=1)

UPDATES = (Verb.UPDATE_SHADOW, Verb.UPDATE_MASTER)
COPIES = (*UPDATES, Verb.COPY_SHADOW, Verb.COPY_MASTER)
LENDING = (Verb.UPDATE_SHADOW, Verb.EXPORT)

CASES = {
    "dependent": (Case((dep,), 1, UPDATES), 9),
    "independent": (Case((ind,), 1, COPIES), 8),
    "lent and joined": (Case((ind,), 1, LENDING), 7),
    "dependent, two chunks": (Case((dep,), 2, UPDATES), 3),
    "independent, two chunks": (Case((ind,), 2, UPDATES), 3),
    "independent, marked ahead": (Case((ind,), 3, (Verb.UPDATE_SHADOW,), region=2), 3),
    "lent and joined, two chunks": (Case((ind,), 2, LENDING), 3),
    "copying to the shadow": (Case((to_shadow,), 2), 4),
    "restoring, independent": (Case((ind_to_master,), 2), 4),
    "restoring, dependent": (Case((dep_to_master,), 2), 4),
    "two dependent": (Case((dep, dep), 1, UPDATES), 4),
    "independent and dependent": (Case((ind, dep), 1, UPDATES), 4),
    "restoring beside a dependent": (Case((dep, ind_to_master), 1, UPDATES), 5),
    "group of two masters": (Case((dep, other_ind), 1, UPDATES, ((0, 1),)), 3),
    "group of one master": (Case((ind, dep), 1, (Verb.UPDATE_SHADOW,), ((0, 1),)), 4),
    "group restore": (Case((other_dep, ind), 1, (Verb.UPDATE_MASTER,), ((0, 1),)), 3),
}
"""Name -> (case, longest scripts)."""

DRAWN = 2
"""Cases in `make test`."""
IMAGES_MIN = 70_000
"""Of each case."""


def _explore(job):
    name, length, seconds = job
    return name, explore(CASES[name][0], length, seconds)


def _run(jobs):
    images = 0
    with multiprocessing.get_context("spawn").Pool(WORKERS, maxtasksperchild=4) as pool:
        for name, tally in pool.imap_unordered(_explore, jobs):
            print(f"{name}: {tally}", flush=True)
            images += tally.images
    return images


@pytest.mark.sampled
def test_every_script_cut_by_a_crash_anywhere_loses_nothing():
    """F1, F2: a kill, a power loss; F3, F4: during a copy in either direction; F5: during an
    update, export, import or join, of one set or of a group; F6: during the recovery of these."""
    drawn = some(CASES, DRAWN, "scripts")
    jobs = [(name, CASES[name][1], 3600) for name in drawn]
    images = _run(sorted(jobs, key=lambda job: -job[1]))
    print(f"{len(jobs)} cases, {images} images")
    assert images >= IMAGES_MIN * len(jobs)


def test_scripts_reach_every_verb_and_the_end_of_every_copy():
    """Of what use is a walk that never gets anywhere."""
    reached = explore(CASES["independent"][0], 4).reached
    assert reached >= {"write", "fsync", "copy_ahead", "copied", "start", *COPIES}
    reached = explore(CASES["lent and joined"][0], 4).reached
    assert reached >= {"lend", "take_in", "far_write", "join", "take_back"}


@pytest.mark.parametrize("name", TWISTS)
def test_script_model_finds_what_is_planted(name):
    """Among them each wrong order of the one-chunk model."""
    for case in TWISTS[name].cases:
        with TWISTS[name].plant(), pytest.raises(Lost) as caught:
            print(explore(case, TWISTS[name].length), case)
        print(caught.value)


@pytest.mark.long
def test_longer_scripts_lose_nothing(long_seconds):
    """Each case goes on for its share of the time, as far as memory reaches."""
    share = min(long_seconds * WORKERS / len(CASES), 1200)
    _run([(name, 99, share) for name in CASES])
