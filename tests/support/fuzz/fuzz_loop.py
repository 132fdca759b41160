"""Inputs without end, each of which a seed makes again: what every fuzzed part has to promise.

A part is asked with one input at a time. It may refuse it with an error of ours, and nothing else;
it may take neither a second of processor time nor 64 MiB.
"""

import logging
import random
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

SECONDS_MAX = 1.0
"""Of processor time, for one input; noise on the machine does not count."""
BYTES_MAX = 64 << 20
TRACED = 8
"""The memory of each eighth input is measured, which is slow."""

Try = Callable[[random.Random], bool]
"""Make an input and ask the part; True if it was accepted. Raises AssertionError for a defect."""


@dataclass(frozen=True)
class Part:
    """`count`: inputs in `make test`. `rig`: what stands ready while inputs are tried."""

    name: str
    count: int
    rig: Callable[[], AbstractContextManager[Try]]


@dataclass
class Tally:
    """What one part was asked. `seconds`, `bytes`: the most that one input took."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    bytes: int = 0


def run(part: Part, seed: int, count: int, *, until: float = float("inf")) -> Tally:
    """Try `count` inputs of a seed, fewer when the clock (time.monotonic) reaches `until`."""
    tally = Tally()
    with part.rig() as try_one, _silence():
        for number in range(count):
            if time.monotonic() > until:
                break
            try:
                with _limits(tally, traced=number % TRACED == 0):
                    tally.accepted += try_one(random.Random(f"{part.name} {seed} {number}"))
            except BaseException as error:
                error.add_note(f"{part.name}: input {number} of seed {seed}")
                raise
    return tally


@contextmanager
def _silence() -> Iterator[None]:
    """What a million inputs let the product log would fill the memory."""
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


@contextmanager
def _limits(tally: Tally, *, traced: bool) -> Iterator[None]:
    if traced:
        tracemalloc.start()
    began, taken = time.thread_time(), 0
    try:
        yield
        if traced:
            taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    seconds = time.thread_time() - began
    assert seconds < SECONDS_MAX, f"one input took {seconds:.1f} s"
    assert taken < BYTES_MAX, f"one input took {taken >> 20} MiB"
    tally.inputs += 1
    tally.seconds, tally.bytes = max(tally.seconds, seconds), max(tally.bytes, taken)
