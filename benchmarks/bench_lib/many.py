"""Rows 12 to 14: what a very large volume costs, what doing nothing costs, what many sets cost."""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from harness import Service

from .contenders import marked_set
from .figures import OURS, Case
from .fio import Work
from .latency import BYTES, longest_write_ms
from .place import GIB, MIB, Place, fill

HUGE_BYTES = 16 << 40
HUGE_GIB = HUGE_BYTES // GIB
BACKING_BYTES = 64 * GIB
"""Of the sparse file under the file system for the huge volumes."""
DIRTY_WRITES = 200
"""First touches before an update."""
WORST_WRITES = 4000
"""First touches before the update that is to be a bad one."""
IDLE_SETS = 50
CROWD_SETS = 200
SMALL_BYTES = 4 * MIB


def memory_kib(pid: int, name: str) -> int:
    """A figure of /proc/PID/status: VmRSS, or VmHWM, which is the largest VmRSS so far."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{name}:"))


def forget_peak(pid: int) -> None:
    """Let VmHWM begin anew."""
    with open(f"/proc/{pid}/clear_refs", "w") as file:
        file.write("5")


def sparse(path: Path, size: int) -> Path:
    """A volume without any data."""
    with open(path, "wb") as file:
        file.truncate(size)
    return path


# -- row 12 ---------------------------------------------------------------------------------


def huge(place: Place) -> list[Case]:
    """Row 12: a dependent set of 16 TiB, sparse on XFS."""
    bench = _Huge(place)
    memory = Case(12, "memory for a dependent set of 16 TiB", "KiB per GiB", {}, at_most=24)
    enable = Case(12, "enable dep of 16 TiB", "s", {}, at_most=5, smaller_is_better=True)
    update = Case(
        12, "update of 16 TiB while a client writes: its longest write", "ms", {},
        at_most=200, smaller_is_better=True, worst=True,
    )  # fmt: skip
    memory.contenders[OURS] = lambda: bench.memory(memory.notes)
    enable.contenders[OURS] = bench.enable
    update.contenders[OURS] = lambda: bench.update(update.notes)
    return [memory, enable, update]


class _Huge:
    """A file system for huge sparse files, and one service with one set on it."""

    def __init__(self, place: Place) -> None:
        self.place = place
        backing = sparse(place.disk / "xfs", BACKING_BYTES)
        place.run("mkfs.xfs", "-q", backing)
        self.home = place.mount(place.loop(backing, "--direct-io=on"), "huge")
        self.master, self.shadow = self.home / "master", self.home / "shadow"
        self.bitmap = self.home / "bitmap"
        self.service = place.service("huge-set")
        self.alone_kib = 0
        self.notes_made = False

    def enable(self) -> float:
        """Seconds until the first point in time exists; the set is a new one."""
        if self.service.client.status():
            self.service.disable(self.shadow)
        for path in (self.master, self.shadow, self.bitmap):
            path.unlink(missing_ok=True)
        sparse(self.master, HUGE_BYTES)
        self.service.restart()
        self.alone_kib = memory_kib(self.service.pid, "VmRSS")
        os.sync()
        began = time.perf_counter()
        self.service.enable("dep", self.master, self.shadow, self.bitmap)
        return time.perf_counter() - began

    def memory(self, notes: list[str]) -> float:
        """Resident memory above a service without a set, in KiB per GiB of the master."""
        self.enable()
        found = self._kib_per_gib("VmRSS")
        self._touch(DIRTY_WRITES)
        forget_peak(self.service.pid)
        self.service.flip("s", self.shadow)
        peak = self._kib_per_gib("VmHWM")
        notes[:] = [f"peak during an update: {peak:.1f} KiB per GiB"]
        return found

    def _kib_per_gib(self, name: str) -> float:
        return (memory_kib(self.service.pid, name) - self.alone_kib) / HUGE_GIB

    def update(self, notes: list[str]) -> float:
        """The longest write that a client sees during an update, in ms."""
        if not self.notes_made:
            self.notes_made = True
            self._bad_cases(notes)
        self._touch(DIRTY_WRITES)
        return self._update()

    def _update(self) -> float:
        os.sync()
        flip = partial(self.service.flip, "s", self.shadow)
        return longest_write_ms(self.service.path(self.master), flip, BYTES)

    def _touch(self, writes: int) -> None:
        """First touches all over the volume, through the mount."""
        words = ("--norandommap", "--random_generator=tausworthe64")
        work = Work("randwrite", depth=16, count=writes, seed=writes, words=words)
        work.run(str(self.service.path(self.master)))

    def _bad_cases(self, notes: list[str]) -> None:
        """An update with many dirty chunks, and starting again, after a stop and after a kill."""
        self._touch(WORST_WRITES)
        bits = self.service.status(self.shadow).shadow_bits
        notes.append(f"with {bits} dirty chunks: {self._update():.0f} ms")
        self._touch(DIRTY_WRITES)
        self.service.stop()
        notes.append(f"start after a clean stop: {self._start():.2f} s")
        self.service.kill()
        self.service.clean_up()
        notes.append(f"start after a kill: {self._start():.2f} s")

    def _start(self) -> float:
        began = time.perf_counter()
        self.service.start()
        return time.perf_counter() - began


# -- rows 13 and 14 -------------------------------------------------------------------------


def many_sets(service: Service, directory: Path, number: int) -> None:
    """Small idle independent sets."""
    shadows = []
    for index in range(number):
        master = fill(directory / f"small{index}", SMALL_BYTES)
        shadows.append(directory / f"small{index}.shadow")
        service.enable("ind", master, shadows[-1])
    service.wait(*shadows)


def cpu_seconds(pid: int) -> float:
    """What the process has used so far, user and system."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def idle(place: Place) -> list[Case]:
    """Row 13: nobody does anything."""
    service = place.service("idle")
    many_sets(service, place.disk, IDLE_SETS)

    def measure() -> float:
        before = cpu_seconds(service.pid)
        time.sleep(place.scale.idle_seconds)
        return 100 * (cpu_seconds(service.pid) - before) / place.scale.idle_seconds

    work = f"an idle service with {IDLE_SETS} sets"
    return [Case(13, work, "% of a core", {OURS: measure}, at_most=1, smaller_is_better=True)]


def crowd(place: Place) -> list[Case]:
    """Row 14: row 1, with and without many other sets in the service."""
    files = {}
    for name, others in ((OURS, CROWD_SETS - 1), ("one set", 0)):
        directory = place.memory / f"beside-{others}"
        directory.mkdir()
        service = place.service(f"beside-{others}")
        many_sets(service, directory, others)
        files[name] = marked_set(service, fill(directory / "master", place.scale.volume), directory)

    def contender(work: Work, file: Path) -> Callable[[], float]:
        return lambda: work.iops(str(file))

    return [
        Case(
            14, f"4 KiB random {way}, depth 1, with {CROWD_SETS} sets in the service", "IOPS",
            {
                name: contender(Work(f"rand{way}", seconds=place.scale.seconds), file)
                for name, file in files.items()
            },
            {"one set": 0.9},
        )
        for way in ("read", "write")
    ]  # fmt: skip
