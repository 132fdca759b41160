"""A few cases of a matrix that is too large for every run; all of them in `make test-long`.

The cases are drawn anew in each run, so that many runs see all of them. A run says its seed;
IIFUSE_SEED draws the same cases again.
"""

import os
import random
from collections.abc import Iterable
from typing import TypeVar

import pytest

SEED = int(os.environ.setdefault("IIFUSE_SEED", str(random.SystemRandom().randrange(10**6))))
"""Kept in the environment: the workers of a parallel run have to draw what their parent draws."""

WHOLE = "IIFUSE_WHOLE" in os.environ
"""Nothing is left out (make test-long)."""

T = TypeVar("T")


def some(cases: Iterable[T], count: int, name: str = "") -> list[T]:
    """`count` of the cases, in their order; all of them in `make test-long`.

    For a loop inside a test that is marked `sampled`. The cases have a fixed order: no sets.
    `name`: of the matrix, so that two matrices of one size are not drawn alike.
    """
    whole = list(cases)
    if WHOLE or count >= len(whole):
        return whole
    chance = random.Random(f"{SEED} {name} {len(whole)}")
    return [whole[at] for at in sorted(chance.sample(range(len(whole)), count))]


def sample(cases: Iterable[object], count: int, name: str = "") -> list[object]:
    """The same for `pytest.mark.parametrize`. A tuple is one case of several arguments."""
    chosen = some(cases, count, name)
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.sampled)
        for case in chosen
    ]
