"""A client in a process of its own: writes without a pause, and knows how long each one took.

Run as a program it writes 4 KiB at random places in the first bytes of a file, past the page
cache, one after the other. A line with two times (CLOCK_MONOTONIC, nanoseconds) ends it; it answers
with the number of writes that were under way in between, and with the longest of them.
"""

import gc
import mmap
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Self

BYTES: Final = 4096
FIRST_WRITES: Final = 200
"""So many before the client counts as running."""


@dataclass(frozen=True)
class Seen:
    """What the client saw of a span of time."""

    writes: int
    longest_ms: float


class Client:
    """A running client on a file; `seed` chooses its places. Ends with the with statement.

    `span`: bytes from the start of the file in which it writes; None: everywhere.
    """

    def __init__(self, path: Path, seed: int, span: int | None = None) -> None:
        span = span or path.stat().st_size
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-u", __file__, str(path), str(seed), str(span)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._answer()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def seen(self, began_ns: int, ended_ns: int) -> Seen:
        """Stop writing; what happened to the writes that were under way in this span."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{began_ns} {ended_ns}\n")
        self._process.stdin.flush()
        writes, longest_ns = map(int, self._answer().split())
        return Seen(writes, longest_ns / 1e6)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client that writes has failed")
        return line


def longest_write_ms(path: Path, act: Callable[[], object], span: int | None = None) -> float:
    """Milliseconds of the longest write that is under way while `act` runs; `span`: see Client."""
    with Client(path, 1, span) as client:
        began = time.monotonic_ns()
        act()
        return client.seen(began, time.monotonic_ns()).longest_ms


def main(path: str, seed: int, span: int) -> None:
    """Write until told to stop."""
    enough = threading.Event()
    order: list[str] = []

    def listen() -> None:
        order.append(sys.stdin.readline())
        enough.set()

    threading.Thread(target=listen, daemon=True).start()
    times = _write(path, random.Random(seed), span // BYTES, enough)  # noqa: S311
    began, ended = map(int, order[0].split())
    found = [end - begin for begin, end in pairwise(times) if end > began and begin < ended]
    print(len(found), max(found))


def _write(path: str, dice: random.Random, places: int, enough: threading.Event) -> list[int]:
    """Times between writes, in nanoseconds: each write lasted from one to the next."""
    data = mmap.mmap(-1, BYTES)
    data[:] = dice.randbytes(BYTES)
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT)
    gc.disable()
    now, pwrite, is_enough = time.monotonic_ns, os.pwrite, enough.is_set
    times = [now()]
    while not is_enough():
        pwrite(fd, data, int(dice.random() * places) * BYTES)
        times.append(now())
        if len(times) == FIRST_WRITES:
            print("writing")
    os.close(fd)
    return times


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
