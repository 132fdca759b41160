"""Programs that write to the files of a mount at once, each held to what it has synced.

Each has sectors of its own, so that what one writes never hides what another has lost. A sync is of
the whole file: it promises what every program had written to it before.
"""

import os
import random
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from crash_disk import CHUNK
from crash_history import Line, Put
from devices import opened
from harness import Service
from stamps import SECTOR, stamped

ROUNDS = 12
_STAMPS_FROM = 0x1000


@dataclass
class Writer:
    """`number`: its sectors in each chunk are those, and no other writer's."""

    service: Service
    line: Line
    name: str
    number: int

    def run(self) -> None:
        """Write, and sync now and then, and at the end."""
        chance = random.Random(self.number)
        with opened(self.service.path(self.name)) as fd:
            for turn in range(ROUNDS):
                chunk = chance.randrange(len(self.line.base) // CHUNK)
                self._write(fd, chunk * CHUNK + self.number * SECTOR, turn)
                if turn == ROUNDS - 1 or chance.random() < 0.5:
                    self._sync(fd)

    def _write(self, fd: int, offset: int, turn: int) -> None:
        number = _STAMPS_FROM + len(self.line.puts) + (self.number << 16) + (turn << 24)
        put = Put(time.time_ns(), offset, stamped(number, offset, SECTOR))
        self.line.puts.append(put)
        assert os.pwrite(fd, put.data, offset) == SECTOR
        put.ended = time.time_ns()

    def _sync(self, fd: int) -> None:
        began = time.time_ns()
        os.fsync(fd)
        self.line.syncs.append((began, time.time_ns()))


def run_all(writers: Iterable[Writer]) -> None:
    """All begin together; the first that fails is told of when all have ended."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor())
        for one in [pool.submit(writer.run) for writer in writers]:
            stack.callback(one.result)
