"""Row 4: through the page cache, on disk, chunks that are marked already, against the raw file."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from .contenders import marked_set
from .figures import OURS, Case
from .fio import Work
from .place import Place, fill

RAW = "raw file"


def on_disk(place: Place) -> list[Case]:
    """The kernel's cache serves ours as it serves any file; a sync goes through the service."""
    size, seconds = place.scale.volume, place.scale.seconds
    raw = fill(place.disk / "raw", size)
    plain = _mounted(place, "plain")
    cached = _mounted(place, "cached", "writeback_cache")

    def case(what: str, least: float | None, ours: Path, measure: Callable[[Path], float]) -> Case:
        contenders = {OURS: lambda: measure(ours), RAW: lambda: measure(raw)}
        reach = {} if least is None else {RAW: least}
        return Case(4, f"buffered: {what}", "IOPS", contenders, reach)

    reread = Work("randread", direct=False, seconds=seconds)
    stream = Work("read", block="1m", direct=False, seconds=seconds)
    safe = Work("randwrite", direct=False, seconds=seconds, words=("--fdatasync=1",))
    # fio counts the last fsync in; each block is written once, in random order.
    lazy = Work("randwrite", direct=False, words=("--end_fsync=1",))
    return [
        case("4 KiB random reads of cached data", 0.9, plain, lambda f: _read(reread, f)),
        # Without a reach: only the kernel is at work, and how it keeps the pages of a FUSE file.
        case("1 MiB sequential reads of cached data", None, plain, lambda f: _read(stream, f)),
        case("4 KiB random writes, each with fdatasync", 0.45, plain, _Write(safe)),
        case(
            f"-o writeback_cache, {size >> 12} random writes of 4 KiB and one fsync",
            0.5, cached, _Write(lazy),
        ),
    ]  # fmt: skip


def _mounted(place: Place, name: str, *options: str) -> Path:
    service = place.service(name, *options)
    return marked_set(service, fill(place.disk / f"{name}.master", place.scale.volume), place.disk)


def _read(work: Work, path: Path) -> float:
    """The file is in the cache when it is measured, and opened anew for it."""
    with open(path, "rb") as file:
        while file.read(1 << 20):
            pass
    return work.iops(str(path))


class _Write:
    """Other blocks in each round, and nothing of an earlier one is still on its way to the disk."""

    def __init__(self, work: Work) -> None:
        self.work = work

    def __call__(self, path: Path) -> float:
        self.work = replace(self.work, seed=self.work.seed + 1)
        os.sync()
        return self.work.iops(str(path))
