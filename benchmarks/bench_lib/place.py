"""Where a run takes place: directories in memory and on disk, gone when it ends."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness import Service

from .private import PREFIX, ROOT_VARIABLE, parent_directory

MIB = 1 << 20
GIB = 1 << 30
PIECE = 32 << 10


@dataclass(frozen=True)
class Scale:
    """How much work one measurement is. `seconds` of a timed one; `rounds` of each case."""

    rounds: int
    seconds: float
    volume: int
    """Bytes of a volume in memory or on disk."""
    touches: int
    """First touches of one measurement,"""
    touched: int
    """and bytes of the volume that they are spread over: few chunks are touched twice."""
    big: int
    """Bytes of a volume that is copied as a whole."""
    updates: int
    """Points in time of which the worst counts."""
    bench_seconds: float
    """Of one run of pgbench."""
    bench_scale: int
    """Of its tables, as pgbench counts."""
    idle_seconds: float


FULL = Scale(3, 3.0, 512 * MIB, 6000, 2 * GIB, 4 * GIB, 20, 15.0, 20, 20.0)
QUICK = Scale(1, 0.7, 128 * MIB, 1500, 256 * MIB, 512 * MIB, 4, 4.0, 5, 5.0)


class Place:
    """`memory` and `disk` are directories; what `stack` holds goes when the row ends."""

    def __init__(self, memory: Path, disk: Path, stack: ExitStack, scale: Scale) -> None:
        self.memory, self.disk, self.stack, self.scale = memory, disk, stack, scale

    def run(self, *command: object) -> str:
        """A command that has to succeed; what it prints."""
        done = subprocess.run(  # noqa: S603
            list(map(str, command)), check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def start(self, *command: object, log: str = "peer") -> subprocess.Popen[bytes]:
        """A program that runs until the row ends."""
        with open(self.disk / f"{log}.log", "ab") as file:
            process = subprocess.Popen(list(map(str, command)), stdout=file, stderr=file)  # noqa: S603
        self.stack.callback(_end, process)
        return process

    def service(self, name: str, *options: str) -> Service:
        """A running service; `options` as after -o."""
        service = Service(self.disk, name, options)
        self.stack.callback(service.clean_up)
        return service.start()

    def loop(self, path: Path, *options: str) -> str:
        """A loop device over a file.

        It is detached at once, and stays while it is in use: so it goes with us, however we end.
        """
        device = self.run("losetup", "-f", "--show", *options, path)
        self.stack.callback(os.close, os.open(device, os.O_RDONLY))
        self.run("losetup", "-d", device)
        return device

    def mount(self, device: str | Path, name: str, *options: str) -> Path:
        """A file system, mounted until the row ends."""
        point = self.disk / name
        point.mkdir(exist_ok=True)
        self.run("mount", *options, device, point)
        self.stack.callback(_unmount, point)
        return point


@contextmanager
def place(scale: Scale) -> Iterator[Place]:
    """Fresh directories; everything that was started in them is ended and removed."""
    root = os.environ.get(ROOT_VARIABLE, parent_directory())
    disk = Path(tempfile.mkdtemp(prefix=PREFIX, dir=root))
    disk.chmod(0o755)  # PostgreSQL's user has to get through
    try:
        with ExitStack() as stack:
            place = Place(disk / "memory", disk, stack, scale)
            place.mount("tmpfs", "memory", "-t", "tmpfs")
            yield place
    finally:
        shutil.rmtree(disk, ignore_errors=True)


def _unmount(point: Path) -> None:
    subprocess.run(["umount", "-l", str(point)], check=False)  # noqa: S603, S607


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def fill(path: Path, size: int) -> Path:
    """A volume of pseudo-random bytes, all of its space allocated and all of it cached.

    Written in pieces of 32 KiB, as programs and copies do: what is written in long pieces lies in
    the page cache in long pieces too, in which ext4 takes its time to find a block.
    """
    data = os.urandom(MIB)
    with open(path, "wb", buffering=0) as file:
        for at in range(0, size, PIECE):
            start = at % MIB
            file.write(data[start : start + min(PIECE, size - at)])
    return path
