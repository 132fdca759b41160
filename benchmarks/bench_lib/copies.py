"""Rows 9 and 10: copies to the shadow, of what differs and of everything."""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from harness import CHUNK, Service

from iifuse.control.protocol import Target, Wait
from iifuse.errors import IifuseError

from .contenders import marked_set, until
from .figures import OURS, Case
from .fio import Work
from .place import MIB, Place, fill
from .volumes import cool, fill_alike, warm

RUN_CHUNKS = 256
EXTENT_CHUNKS = MIB // CHUNK
LOAD_SECONDS = 3600.0
"""Of the load beside a copy, which ends it."""

Choice = Callable[[random.Random, int], list[int]]
"""Chooses some of a number of chunks; ascending."""


@dataclass(frozen=True)
class Pair:
    """The raw volumes of a set, or of a peer that copies from one file to the other."""

    master: Path
    shadow: Path

    def differ(self) -> bool:
        """Is there a byte in which they differ?"""
        with open(self.master, "rb") as master, open(self.shadow, "rb") as shadow:
            while piece := master.read(MIB):
                if piece != shadow.read(MIB):
                    return True
            return bool(shadow.read(1))

    def cache(self, others: Iterable["Pair"]) -> None:
        """Have all of this pair in the page cache, and nothing of the others.

        So nobody needs fresh memory, whose price in a virtual machine is a matter of luck.
        """
        for pair in others:
            if pair is not self:
                cool(pair.master)
                cool(pair.shadow)
        warm(self.master)
        warm(self.shadow)
        os.sync()


def independent(service: Service, pair: Pair) -> None:
    """A set whose copy is complete."""
    service.enable("ind", pair.master, pair.shadow)
    wait(service, pair)


def wait(service: Service, pair: Pair) -> None:
    """Until no copy of the set runs, however long it takes."""
    service.client.notes(Wait(Target((str(pair.shadow),))))


# -- row 9 ----------------------------------------------------------------------------------


def resync(place: Place) -> list[Case]:
    """Row 9: an update copies what differs, against a plain loop and rsync."""
    bench = _Resync(place)
    size = f"{place.scale.big / (1 << 30):g} GiB"
    return [
        bench.case(f"fast resync of {size}, 1 % of the chunks at random", scattered),
        bench.case(f"fast resync of {size}, 25 % of the chunks in runs of 8 MiB", in_runs),
    ]


def scattered(rng: random.Random, chunks: int) -> list[int]:
    """One chunk of a hundred."""
    return sorted(rng.sample(range(chunks), chunks // 100))


def in_runs(rng: random.Random, chunks: int) -> list[int]:
    """A quarter of the chunks, in runs."""
    starts = rng.sample(range(0, chunks, RUN_CHUNKS), chunks // RUN_CHUNKS // 4)
    return [chunk for start in sorted(starts) for chunk in range(start, start + RUN_CHUNKS)]


class _Resync:
    """Three pairs with the same content, which the same writes change in every round."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.chunks = place.scale.big // CHUNK
        self.service = place.service("resync")
        self.pairs = {
            name: Pair(place.disk / f"{name}.master", place.disk / f"{name}.shadow")
            for name in (OURS, "loop", "rsync")
        }
        for pair in self.pairs.values():
            fill_alike(pair.master, place.scale.big)
            fill_alike(pair.shadow, place.scale.big)
        independent(self.service, self.pairs[OURS])

    def case(self, work: str, choose: Choice) -> Case:
        """All of it is durable when it ends: the loop syncs its target, and so does rsync."""
        case = Case(9, work, "s", {}, {"loop": 0.7, "rsync": 10.0}, smaller_is_better=True)
        ways = {OURS: self.update, "loop": loop, "rsync": self.rsync}
        for name, way in ways.items():
            case.contenders[name] = self._contender(case, name, way, choose)
        return case

    def _contender(
        self, case: Case, name: str, way: Callable[[Pair, list[int]], str], choose: Choice
    ) -> Callable[[], float]:
        rounds, pair = count(1), self.pairs[name]

        def measure() -> float:
            rng = random.Random(f"{case.work} {next(rounds)}")  # noqa: S311
            chosen = choose(rng, self.chunks)
            self._change(name, chosen, rng)
            began = time.perf_counter()
            note = way(pair, chosen)
            took = time.perf_counter() - began
            assert not pair.differ(), f"{name}: the target is not what the source is"
            if note:
                case.notes[:] = [note]
            return took

        return measure

    def _change(self, name: str, chosen: list[int], rng: random.Random) -> None:
        """Write the chosen chunks, ours through the mount, and have them durable."""
        pair = self.pairs[name]
        pair.cache(self.pairs.values())
        way = self.service.path(pair.master) if name == OURS else pair.master
        with open(way, "r+b", buffering=0) as file:
            for chunk in chosen:
                os.pwrite(file.fileno(), rng.randbytes(CHUNK), chunk * CHUNK)
            os.fsync(file.fileno())
        os.sync()

    def update(self, pair: Pair, chosen: list[int]) -> str:
        """A new point in time, until its copy is complete; what it has copied."""
        before = _written_bytes(self.service.pid)
        self.service.flip("s", pair.shadow)
        wait(self.service, pair)
        wrote = _written_bytes(self.service.pid) - before
        copied = self.service.status(pair.shadow).copied_chunks
        assert copied == len(chosen), f"{copied} chunks were copied, {len(chosen)} had changed"
        return (
            f"{copied} chunks changed, {copied * CHUNK} bytes copied, "
            f"{wrote} bytes written by the service in all"
        )

    def rsync(self, pair: Pair, chosen: list[int]) -> str:  # noqa: ARG002
        """rsync, which finds out itself what differs."""
        words = ("--inplace", "--no-whole-file", "--ignore-times", "--fsync")
        self.place.run("rsync", *words, pair.master, pair.shadow)
        return ""


def loop(pair: Pair, chosen: list[int]) -> str:
    """The plainest program that could do it, told which chunks."""
    buffer = bytearray(MIB)
    with open(pair.master, "rb") as source, open(pair.shadow, "r+b") as target:
        for offset, length in extents(chosen):
            view = memoryview(buffer)[:length]
            assert os.preadv(source.fileno(), [view], offset) == length
            assert os.pwrite(target.fileno(), view, offset) == length
        os.fdatasync(target.fileno())
    return ""


def extents(chunks: list[int]) -> Iterator[tuple[int, int]]:
    """(offset, length) in bytes of neighbouring chunks together, 1 MiB at the most."""
    first = previous = -1
    for chunk in chunks:
        if first < 0 or chunk != previous + 1 or chunk - first == EXTENT_CHUNKS:
            if first >= 0:
                yield first * CHUNK, (previous + 1 - first) * CHUNK
            first = chunk
        previous = chunk
    if first >= 0:
        yield first * CHUNK, (previous + 1 - first) * CHUNK


def _io(pid: int, name: str) -> int:
    """A counter of /proc/PID/io."""
    with open(f"/proc/{pid}/io") as file:
        return int(dict(line.split(": ") for line in file)[name])


def _written_bytes(pid: int) -> int:
    return _io(pid, "wchar")


# -- row 10 ---------------------------------------------------------------------------------


def full_copy(place: Place) -> list[Case]:
    """Row 10: a copy of everything, alone and beside a program that writes to another set."""
    bench = _FullCopy(place)
    what = f"copy of {place.scale.big / (1 << 30):g} GiB on disk"
    peer = "dd bs=1M with fdatasync, as the copy is durable too"
    return [
        Case(
            10, f"full {what}; {peer}", "MiB/s",
            {OURS: bench.copy, "dd": bench.dd}, {"dd": 0.8},
        ),
        Case(
            10, f"4 KiB random write of row 1, beside a {what}", "IOPS",
            {OURS: bench.load_beside, "no copy": bench.load}, {"no copy": 0.5},
        ),
        Case(
            10, f"full {what} beside that load; {peer}, without load", "MiB/s",
            {OURS: bench.copy_beside, "dd": bench.dd}, {"dd": 0.25},
        ),
    ]  # fmt: skip


class _FullCopy:
    """One service with a set in memory, for the load, and a set on disk, which is copied."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.service = place.service("full")
        self.pair, self.peer = (
            Pair(place.disk / f"{name}.master", place.disk / f"{name}.shadow")
            for name in ("ours", "dd")
        )
        for pair in (self.pair, self.peer):
            fill_alike(pair.master, place.scale.big)
            fill_alike(pair.shadow, place.scale.big)
        independent(self.service, self.pair)
        memory = fill(place.memory / "load", place.scale.volume)
        self.loaded = str(marked_set(self.service, memory, place.memory))

    def copy(self) -> float:
        """MiB/s of `iiadm -c s`, until it is complete."""
        self.pair.cache([self.peer])
        took = self._copy()
        assert not self.pair.differ()
        return self.place.scale.big / MIB / took

    def _copy(self) -> float:
        began = time.perf_counter()
        self.service.flip("s", self.pair.shadow, full=True)
        wait(self.service, self.pair)
        return time.perf_counter() - began

    def dd(self) -> float:
        """MiB/s of dd onto a file that has all its space, as the shadow has."""
        self.peer.cache([self.pair])
        files = f"if={self.peer.master}", f"of={self.peer.shadow}"
        began = time.perf_counter()
        self.place.run("dd", *files, "bs=1M", "conv=notrunc,fdatasync")
        return self.place.scale.big / MIB / (time.perf_counter() - began)

    def load(self) -> float:
        """IOPS of row 1's random write."""
        os.sync()
        return Work("randwrite", seconds=self.place.scale.seconds).iops(self.loaded)

    def load_beside(self) -> float:
        """The same while a copy runs all the time."""
        self.pair.cache([self.peer])
        with self._copying():
            return Work("randwrite", seconds=self.place.scale.seconds).iops(self.loaded)

    @contextmanager
    def _copying(self) -> Iterator[None]:
        """One copy after the other; the last one is aborted."""
        begun, enough = threading.Event(), threading.Event()

        def copy_on() -> None:
            while not enough.is_set():
                self.service.flip("s", self.pair.shadow, full=True)
                begun.set()
                with suppress(IifuseError):  # aborted
                    wait(self.service, self.pair)

        thread = threading.Thread(target=copy_on)
        thread.start()
        try:
            begun.wait()
            yield
        finally:
            enough.set()
            while thread.is_alive():
                with suppress(IifuseError):  # it has just ended by itself
                    self.service.abort(self.pair.shadow)
                thread.join(0.1)

    def copy_beside(self) -> float:
        """MiB/s of a copy while the load runs all the time."""
        self.pair.cache([self.peer])
        with self._load():
            took = self._copy()
        return self.place.scale.big / MIB / took

    @contextmanager
    def _load(self) -> Iterator[None]:
        process = self.place.start(*Work("randwrite", seconds=LOAD_SECONDS).command(self.loaded))
        try:
            until(lambda: _io(process.pid, "syscw") > 1000, "fio writes")
            yield
            assert process.poll() is None, "fio has ended early"
        finally:
            process.terminate()
            process.wait()
