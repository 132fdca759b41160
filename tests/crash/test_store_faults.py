"""Every call of the store fails: once with EIO, once with ENOSPC, once short, once for good.

`make test-long` takes an even choice of the calls, which IIFUSE_CRASH_SEED moves, `make test` draws
some of the scenarios for it, and `make test-crash` takes all calls. To repeat one: PYTHONHASHSEED=0
and what the message says.
"""

import multiprocessing
import os
import random
import time

import pytest
from crash_explore import recorded
from crash_images import Durable
from crash_judge import Case
from fault_bugs import BUGS
from fault_inject import Fault, Mode
from fault_judge import calls_of, calls_of_start, judge_fault, judge_start
from fault_scenarios import FAULT_SCENARIOS
from lost import Lost
from samples import some

WORKERS = 2
SEED = int(os.environ.get("IIFUSE_CRASH_SEED", "1"))
STRIDE = 8
"""One of so many calls is tried, but for `make test-crash`."""
DRAWN = 3
"""Scenarios in `make test`."""
STARTS = 2
"""Images a scenario on which the start fails."""


def chosen(calls, stride, chance):
    """(number, mode) of an even choice."""
    found = []
    for mode in Mode:
        able = [number for number, call in enumerate(calls, 1) if call.can(mode)]
        found += [(number, mode) for number in able[chance.randrange(stride) :: stride]]
    return found


def fail_calls(job):
    """One scenario; the number of failures that were judged."""
    name, seed, stride = job
    scenario = FAULT_SCENARIOS[name]
    faults = chosen(calls_of(name, scenario, seed), stride, random.Random(f"{name} {seed}"))
    for number, mode in faults:
        judge_fault(name, scenario, seed, Fault(number, mode))
    return len(faults)


def fail_starts(job):
    """Starts on what a kill at random moments has left."""
    name, seed, stride = job
    chance, count = random.Random(f"{name} {seed}"), 0
    recording = recorded(name, FAULT_SCENARIOS[name], seed)
    for position in sorted(chance.sample(range(len(recording.log)), STARTS)):
        state = Durable(recording.base)
        for at, event in enumerate(recording.log[:position]):
            state.apply(at, event)
        case = Case(recording, position, state.whole(), killed=True)
        for number, mode in chosen(calls_of_start(case), stride, chance):
            if mode is not Mode.GONE:  # that is for -R, not for a start
                judge_start(Case(recording, position, case.image, killed=True), Fault(number, mode))
                count += 1
    return count


def run_all(work, seed, stride, names=tuple(FAULT_SCENARIOS)):
    """Scenarios in two processes; prints and answers the number of failures for each."""
    os.environ["PYTHONHASHSEED"] = "0"
    began, total = time.monotonic(), 0
    jobs = [(name, seed, stride) for name in names]
    with multiprocessing.get_context("spawn").Pool(WORKERS) as pool:
        for count in pool.imap_unordered(work, jobs):
            assert count, "a scenario without a failure"
            total += count
    print(f"\n{work.__name__}: {total} failures, seed {seed}, {time.monotonic() - began:.0f} s")
    return total / len(jobs)


@pytest.mark.sampled
def test_store_call_that_fails_breaks_no_promise():
    """F7, F8, F9, F10, F11, F24, and F12 as far as the order of things goes."""
    assert run_all(fail_calls, SEED, STRIDE, some(FAULT_SCENARIOS, DRAWN, "calls")) >= 8


@pytest.mark.sampled
def test_store_call_that_fails_at_a_start_breaks_no_promise():
    """F8, F9, F11."""
    assert run_all(fail_starts, SEED, STRIDE, some(FAULT_SCENARIOS, DRAWN, "starts")) >= 2


@pytest.mark.long
def test_every_store_call_that_fails_breaks_no_promise(long_seconds):
    stop, seed = time.monotonic() + long_seconds, SEED
    while time.monotonic() < stop:
        run_all(fail_calls, seed, 1)
        run_all(fail_starts, seed, 1)
        seed += 1


@pytest.mark.parametrize("scenario", ["group-update", "group-restore"])
def test_record_of_a_group_that_fails_is_followed_by_all_sets_or_by_none(scenario):
    for seed in (SEED, SEED + 1):
        fail_calls_on("/transitions", scenario, seed)


@pytest.mark.parametrize("name", BUGS)
def test_planted_answer_to_a_failure_is_caught(name):
    plant, scenario, file = BUGS[name]
    with plant(), pytest.raises(Lost) as caught:
        for seed in range(SEED, SEED + 20):
            fail_calls_on(file, scenario, seed)
    print(caught.value)


def fail_calls_on(file, scenario, seed):
    """Every call on one file of a scenario."""
    for number, call in enumerate(calls_of(scenario, FAULT_SCENARIOS[scenario], seed), 1):
        for mode in (Mode.EIO, Mode.ENOSPC, Mode.SHORT, Mode.GONE):
            if call.can(mode) and call.path.endswith(f"-{file}" if file[0] != "/" else file):
                judge_fault(scenario, FAULT_SCENARIOS[scenario], seed, Fault(number, mode))
