"""Rows 1 to 4, and 7: chunks that are marked already."""

from .contenders import marked_set, nbd, qemu
from .figures import OURS, Case
from .fio import Work
from .place import Place, fill


def in_memory(place: Place) -> list[Case]:
    """Rows 1 to 3 and 7: volumes on tmpfs, against FUSE exports without a bitmap."""
    size, seconds = place.scale.volume, place.scale.seconds
    service = place.service("memory")
    files = {
        OURS: marked_set(service, fill(place.memory / "ours", size), place.memory),
        "qemu": qemu(place, fill(place.memory / "qemu", size)),
        "nbdfuse": nbd(place, fill(place.memory / "nbd", size)),
    }
    deep = {"depth": 16}
    many = {"jobs": 4}

    def case(row: int, what: str, rw: str, least: float, **more: object) -> Case:
        work = Work(rw, seconds=seconds, **more)  # type: ignore[arg-type]
        big = work.block != "4k"
        return Case(
            row, what, "MiB/s" if big else "IOPS",
            {n: lambda f=f: (work.mib_s if big else work.iops)(str(f)) for n, f in files.items()},
            {"qemu": least, "nbdfuse": 1.2},
        )  # fmt: skip

    return [
        case(1, "4 KiB random read, depth 1", "randread", 1.5),
        case(1, "4 KiB random write, depth 1", "randwrite", 1.3),
        case(2, "4 KiB random read, depth 16", "randread", 0.9, **deep),
        case(2, "4 KiB random write, depth 16", "randwrite", 0.9, **deep),
        case(2, "4 KiB random read, 4 jobs", "randread", 1.0, **many),
        case(2, "4 KiB random write, 4 jobs", "randwrite", 1.0, **many),
        case(3, "1 MiB sequential read", "read", 2.0, block="1m"),
        case(3, "1 MiB sequential write", "write", 0.9, block="1m"),
    ]
