"""Reads and writes one file of the mount in every way that the kernel has, and checks each read.

A program of its own (see exercise.py), because a mapping of a killed service ends with SIGBUS.
It exits 0 once its standard input is closed, 1 when a byte is wrong, 2 when the file system gives
an error.
"""

import json
import mmap
import os
import random
import select
import sys
from typing import NoReturn

from exercise_log import DONE, LAZY, SYNC, THROUGH, Entry, Log
from stamps import SECTOR, difference, stamped, tag_of

LENGTHS = [1, 7, 100, 511, 512, 513, 3000, 4095, 4096, 4097, 10_000, 32_768, 40_000, 65_536]
SYNC_FLAGS = [0, 0, 0, os.O_DSYNC, os.O_SYNC]
CHUNK, REGION_BYTES = 32 * 1024, 4 << 20
HOT_BYTES = 100_000
"""Half of all operations go to a place of this size, so that much is written again."""


class Worker:
    """One file, held open in two ways and mapped; `content` is what it must show."""

    def __init__(self, plan: dict) -> None:
        self.path, self.volume = plan["path"], plan["volume"]
        self.number, self.writeback = plan["number"], plan["writeback"]
        self.dice = random.Random(plan["seed"])
        with open(plan["content"], "rb") as file:
            self.content = bytearray(file.read())
        os.unlink(plan["content"])
        self.size = len(self.content)
        self.hot = self.dice.randrange(self.size)
        self.log = Log(plan["log"])
        self.buffer = mmap.mmap(-1, 1 << 17)
        self.fds: dict[str, int] = {}
        self.memory: mmap.mmap | None = None
        self.synchronous: dict[str, bool] = {}
        for how in ("plain", "direct"):
            self.open(how)
        self.map()

    # -- opening ----------------------------------------------------------------------------

    def open(self, how: str) -> None:
        if how in self.fds:
            os.close(self.fds.pop(how))
        flags = self.dice.choice(SYNC_FLAGS)
        self.synchronous[how] = bool(flags)
        self.fds[how] = os.open(
            self.path, os.O_RDWR | flags | (os.O_DIRECT if how == "direct" else 0)
        )

    def map(self) -> None:
        if self.memory is not None:
            self.memory.close()
        self.memory = mmap.mmap(self.fds["plain"], self.size)

    def reopen(self) -> None:
        how = self.dice.choice(["plain", "direct", "map"])
        if how == "map":
            self.map()
        else:
            self.open(how)

    # -- where ------------------------------------------------------------------------------

    def extent(self, unit: int = 1) -> tuple[int, int]:
        """(offset, length): inside the volume, both multiples of `unit`."""
        length = max(self.dice.choice(LENGTHS) // unit, 1) * unit
        dice = self.dice.random()
        if dice < 0.5:
            offset = self.hot + self.dice.randrange(HOT_BYTES)
        elif dice < 0.6:  # from one region that is marked ahead into the next
            offset = self.dice.randrange(REGION_BYTES, self.size, REGION_BYTES) - length // 2
        else:
            offset = self.dice.randrange(self.size)
        if self.dice.random() < 0.3:
            offset -= offset % self.dice.choice([512, 4096, 32_768])
        offset = min(offset, self.size - length)
        return offset // unit * unit, length

    def scatter(self, writes: int) -> None:
        """Touch so many chunks, no two side by side, so that the next copy takes its time."""
        for chunk in self.dice.sample(range(0, self.size // CHUNK, 2), writes):
            self.write_at(chunk * CHUNK + self.dice.randrange(CHUNK // 2), 600)

    # -- what -------------------------------------------------------------------------------

    def check(self, offset: int, found: bytes, length: int, how: str) -> None:
        wrong = difference(offset, found, self.content[offset : offset + length])
        if wrong:
            self.stop(f"{how}: {wrong}")

    def read(self) -> None:
        offset, length = self.extent()
        self.check(offset, self.pread(length, offset), length, "read")

    def read_direct(self) -> None:
        offset, length = self.extent(SECTOR)
        done = 0
        while done < min(length, self.size - offset):
            part = memoryview(self.buffer)[done:length]
            done += os.preadv(self.fds["direct"], [part], offset + done) or self.stop("no bytes")
        self.check(offset, self.buffer[:done], length, "direct read")

    def pread(self, length: int, offset: int) -> bytes:
        """All of it: where a service dies there may be a part, and then the error."""
        data = b""
        while part := os.pread(self.fds["plain"], length - len(data), offset + len(data)):
            data += part
        return data

    def pwrite(self, how: str, data, offset: int) -> None:
        done = 0
        while done < len(data):
            done += os.pwrite(self.fds[how], data[done:], offset + done)

    def stop(self, why: str) -> NoReturn:
        print(f"{self.path}: {why}", file=sys.stderr)
        sys.exit(1)

    def read_mapped(self) -> None:
        offset, length = self.extent()
        self.check(offset, self.memory[offset : offset + length], length, "mapped read")

    def read_across_the_end(self) -> None:
        length = self.dice.choice(LENGTHS)
        offset = self.size - self.dice.randrange(length + 1)
        self.check(offset, self.pread(length, offset), length, "read at the end")

    def stamp(self, kind: bytes, offset: int, length: int) -> bytes:
        """The bytes of the next write, which is noted."""
        self.number += 1
        self.log.note(Entry(kind, offset, length, self.number))
        data = stamped(tag_of(self.volume, self.number), offset, length)
        self.content[offset : offset + length] = data
        return data

    def done(self) -> None:
        self.log.note(Entry(DONE))

    def write(self) -> None:
        self.write_at(*self.extent())

    def write_at(self, offset: int, length: int) -> None:
        lazy = self.writeback and not self.synchronous["plain"]
        data = self.stamp(LAZY if lazy else THROUGH, offset, length)
        self.pwrite("plain", data, offset)
        self.done()

    def write_direct(self) -> None:
        offset, length = self.extent(SECTOR)
        self.buffer[:length] = self.stamp(THROUGH, offset, length)
        self.pwrite("direct", memoryview(self.buffer)[:length], offset)
        self.done()

    def write_mapped(self) -> None:
        offset, length = self.extent()
        self.memory[offset : offset + length] = self.stamp(LAZY, offset, length)
        self.done()

    def write_across_the_end(self) -> None:
        """Taken as far as the volume goes, as by a disk."""
        if self.writeback:  # then the kernel takes it without asking
            return self.write()
        length = self.dice.choice(LENGTHS)
        inside = self.dice.randrange(1, length + 1)
        self.memory.flush()  # else the kernel forgets what was stored in the last page (iifuse(8))
        data = self.stamp(THROUGH, self.size - inside, inside)
        done = os.pwrite(self.fds["plain"], data + bytes(length - inside), self.size - inside)
        self.pwrite("plain", data[done:], self.size - inside + done)
        if done > inside:
            self.stop(f"{done} bytes of {inside} were taken at the end")
        return self.done()

    def sync(self) -> None:
        self.log.note(Entry(SYNC))
        how = self.dice.choice(["fsync", "fdatasync", "direct", "msync"])
        if how == "msync":
            self.memory.flush()
        elif how == "direct":
            os.fsync(self.fds["direct"])
        else:
            getattr(os, how)(self.fds["plain"])
        self.done()

    def turn(self) -> None:
        actions = list(WEIGHTS)
        (action,) = self.dice.choices(actions, [WEIGHTS[a] for a in actions])
        action(self)


WEIGHTS = {
    Worker.read: 20,
    Worker.read_direct: 9,
    Worker.read_mapped: 8,
    Worker.read_across_the_end: 3,
    Worker.write: 24,
    Worker.write_direct: 12,
    Worker.write_mapped: 12,
    Worker.write_across_the_end: 3,
    Worker.sync: 4,
    Worker.reopen: 5,
}


def main() -> int:
    plan = json.loads(sys.argv[1])
    try:
        worker = Worker(plan)
        worker.scatter(plan["scatter"])
        while not select.select([sys.stdin], [], [], 0)[0]:
            for _ in range(5):
                worker.turn()
    except OSError as error:
        print(f"{plan['path']}: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
