"""Rows 5 to 7: the first write to each chunk of a dependent set, whose old content is preserved."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from harness import Service

from .contenders import nbd, qemu
from .figures import OURS, Case
from .fio import Work
from .place import Place, fill

Present = Callable[[Place], Path]
"""Starts a contender with nothing preserved; the file to write to."""


def process(place: Place) -> list[Case]:
    """Rows 5 and 7: neither side survives a power loss."""
    peers = {"qemu": (2.0, 1.0, 1.3), "nbdkit cow": (1.2, 1.2, 1.2)}
    return _cases(place, 5, place.service("process", "durability=process"), peers)


def ordered(place: Place) -> list[Case]:
    """Row 6: ours survives a power loss, the peer does not."""
    return _cases(place, 6, place.service("ordered"), {"qemu": (0.6, 0.8, 0.95)})


def _cases(
    place: Place, row: int, service: Service, peers: dict[str, tuple[float, ...]]
) -> list[Case]:
    """The peers begin anew for each measurement, ours makes a new point in time."""
    scale = place.scale
    present: dict[str, Present] = {OURS: _ours(place, service)}
    for name in peers:
        present[name] = (_qemu if name == "qemu" else _nbd)(place)
    count, many = scale.touches, scale.volume >> 20
    works = [
        ("4 KiB random write, depth 1", Work("randwrite", count=count), "IOPS"),
        ("4 KiB random write, depth 16", Work("randwrite", depth=16, count=count), "IOPS"),
        ("1 MiB sequential write", Work("write", block="1m", count=many), "MiB/s"),
    ]
    return [
        Case(
            row, f"first touches: {what}", unit,
            {name: _Measure(place, start, work, unit) for name, start in present.items()},
            {name: least[number] for name, least in peers.items()},
        )
        for number, (what, work, unit) in enumerate(works)
    ]  # fmt: skip


class _Measure:
    """One measurement: a contender with nothing preserved yet, other chunks in each round."""

    def __init__(self, place: Place, present: Present, work: Work, unit: str) -> None:
        self.place, self.present, self.work, self.unit = place, present, work, unit
        self.turn = 0

    def __call__(self) -> float:
        self.turn += 1
        work = replace(self.work, seed=self.turn)
        with ExitStack() as stack:
            here = Place(self.place.memory, self.place.disk, stack, self.place.scale)
            path = str(self.present(here))
            os.sync()
            return work.mib_s(path) if self.unit == "MiB/s" else work.iops(path)


def _ours(place: Place, service: Service) -> Present:
    master = fill(place.disk / "ours", place.scale.touched)
    shadow = fill(place.disk / "ours.shadow", place.scale.touched)
    service.enable("dep", master, shadow)

    def present(_: Place) -> Path:
        service.flip("s", shadow)
        return service.path(master)

    return present


def _qemu(place: Place) -> Present:
    master = fill(place.disk / "qemu", place.scale.touched)
    shadow = fill(place.disk / "qemu.shadow", place.scale.touched)
    return lambda here: qemu(here, master, shadow)


def _nbd(place: Place) -> Present:
    volume = fill(place.disk / "nbd", place.scale.touched)
    return lambda here: nbd(here, volume, "cow")
