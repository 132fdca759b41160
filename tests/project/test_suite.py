"""The tests themselves: they run wherever somebody runs them, in any choice and order."""

import os
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import samples

ROOT = Path(__file__).parents[2]


def pytest_of(*words, **options):
    """What a run of some tests says; they have to pass."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_background_job_of_a_shell_can_run_the_tests():
    """It has SIGINT ignored, and so has every program that it starts."""
    ignore = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    pytest_of("tests/tools/test_contract.py", "-k", "interrupt", preexec_fn=ignore)


def test_files_of_tests_can_be_named_in_any_order():
    """No file may lean on what another one, or a conftest.py before its own, has imported."""
    files = [str(path) for path in sorted(ROOT.glob("tests/*/test_*.py"))]
    random.Random(samples.SEED).shuffle(files)
    assert "error" not in pytest_of("--collect-only", *files).splitlines()[-1]


def test_sample_keeps_its_order_and_is_drawn_alike_by_every_worker():
    cases = range(1000)
    drawn = samples.some(cases, 40, "this")
    assert drawn == sorted(set(drawn))
    assert len(drawn) == 40
    assert drawn == samples.some(cases, 40, "this") != samples.some(cases, 40, "that")


def test_sample_is_everything_in_a_long_run(monkeypatch):
    monkeypatch.setattr(samples, "WHOLE", True)
    assert samples.some(range(1000), 40) == list(range(1000))


@pytest.mark.parametrize(("more", "whole"), [({}, False), ({"IIFUSE_WHOLE": "1"}, True)])
def test_cases_of_a_sampled_test_are_drawn_alike_and_whole_in_a_long_run(more, whole):
    env = {name: text for name, text in os.environ.items() if name != "IIFUSE_WHOLE"} | more
    words = ("--collect-only", "tests/fuse/test_failing_volumes.py")
    first, again = (pytest_of(*words, env=env) for _ in range(2))
    assert first.partition("\n\n")[0] == again.partition("\n\n")[0]
    assert ("deselected" in first) is not whole


def test_sampled_case_may_be_one_argument_or_several():
    one, several = samples.sample(["a"], 1), samples.sample([("a", "b")], 1)
    assert [case.values for case in one + several] == [("a",), ("a", "b")]
    assert all(case.marks == (pytest.mark.sampled,) for case in one + several)
