"""Programs that write through the mount until they are stopped or their service is killed."""

import os
import random
import threading
from pathlib import Path

from kill_sectors import WINDOW, Truth, offset_of
from stamps import SECTOR, stamped

CHUNK_SECTORS = 64
EXTENT_SECTORS = 3 * CHUNK_SECTORS
PAUSE_SECONDS = 0.002
HOW = {"buffered": 0, "synced": 0, "direct": os.O_DIRECT, "dsync": os.O_DSYNC}


class Writer(threading.Thread):
    """Writes extents at random places of one window of a file.

    `gone` is set when its service is killed.
    """

    def __init__(
        self, truth: Truth, path: Path, how: str, seed: int, gone: threading.Event
    ) -> None:
        super().__init__(daemon=True)
        self.truth, self.path, self.how, self.gone = truth, path, how, gone
        self.dice = random.Random(seed)
        self.window = self.dice.choice(truth.windows)
        self.failure: BaseException | None = None
        self._enough = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            fd = os.open(self.path, os.O_RDWR | HOW[self.how])
            try:
                while not self._enough.wait(self.dice.random() * PAUSE_SECONDS):
                    self._write(fd)
            finally:
                os.close(fd)
        except BaseException as error:
            if not (self.gone.is_set() and isinstance(error, OSError)):
                self.failure = error

    def _write(self, fd: int) -> None:
        count = self.dice.choice((1, 1, 8, 16, CHUNK_SECTORS, self.dice.randint(1, EXTENT_SECTORS)))
        start = self.window * WINDOW
        end = min(start + WINDOW, self.truth.count)
        first = self.dice.randrange(start, end - count + 1)
        write = self.truth.begin(first, count)
        if write is None:
            return
        done = os.pwrite(fd, stamped(write.tag, first * SECTOR, count * SECTOR), offset_of(first))
        if done != count * SECTOR:  # its service died on the way, or it must not happen
            raise OSError(f"{self.path}: {done} of {count * SECTOR} bytes")
        if self.how == "synced" and self.dice.random() < 0.2:
            os.fsync(fd)
        self.truth.acknowledge(write)

    def stop(self) -> None:
        """Raise what went wrong, if it was not the kill."""
        self._enough.set()
        self.join(30)
        assert not self.is_alive(), f"a write to {self.path} hangs"
        if self.failure is not None:
            raise self.failure
