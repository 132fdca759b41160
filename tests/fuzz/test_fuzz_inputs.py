"""Hostile input of every kind: only failures of our own come out, in time and in little memory.

IIFUSE_CRASH_SEED is the first seed; a failure says which input of which seed it was.
"""

import os
import time

import pytest
from fuzz_formats import PARTS as FORMATS
from fuzz_loop import Tally, run
from fuzz_start import PARTS as START
from fuzz_state import PARTS as STATE
from fuzz_talk import PARTS as TALK
from fuzz_verbs import PARTS as VERBS

PARTS = [*FORMATS, *STATE, *TALK, *START, *VERBS]
SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))
INPUTS_MIN = 20_000
ROUND = 500
"""Inputs of one part before the next one has its turn, in the long run."""


@pytest.mark.sampled(6)
@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_fuzzed_input_is_refused_in_our_own_words_or_makes_sense(part):
    """F13, F32: garbled, forged and foreign bytes."""
    tally = run(part, SEED, part.count)
    _report(part.name, SEED, tally)
    assert tally.inputs == part.count
    assert 0 < tally.accepted < tally.inputs, "the inputs reach only one side of the checks"


def test_fuzzed_inputs_are_as_many_as_promised():
    assert sum(part.count for part in PARTS) >= INPUTS_MIN


@pytest.mark.long
def test_fuzzed_input_of_further_seeds_is_refused_or_makes_sense(long_seconds):
    until, seed, inputs = time.monotonic() + long_seconds, SEED + 1, 0
    while time.monotonic() < until:
        for part in PARTS:
            inputs += run(part, seed, ROUND, until=until).inputs
        print(f"fuzzing: seed {seed} done, {inputs} inputs so far", flush=True)
        seed += 1


def _report(name: str, seed: int, tally: Tally) -> None:
    print(
        f"{name}: seed {seed}, {tally.inputs} inputs, {tally.accepted} accepted, "
        f"at the most {tally.seconds * 1000:.0f} ms and {tally.bytes >> 10} KiB"
    )
