"""What runs, and what it holds, as /proc has it."""

import os
from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Processes whose parent it is, those that have ended and nobody has asked for among them."""
    return [int(one) for task in _tasks(pid) for one in _words(task / "children")]


def descendants(pid: int) -> list[int]:
    """The same, and theirs."""
    found = children(pid)
    return found + [below for one in found for below in descendants(one)]


def name(pid: int) -> str:
    """As ps(1) shows it."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def state(pid: int) -> str:
    """R, S, D, Z ...; empty: there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def runs(pid: int) -> bool:
    return state(pid) not in ("", "Z")


def holds(pid: int) -> dict[int, str]:
    """What each of its descriptors leads to."""
    found = {}
    for number in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            found[int(number)] = os.readlink(f"/proc/{pid}/fd/{number}")
    return found


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def nursery(service: int) -> int:
    """The one that a service has started."""
    (found,) = [one for one in children(service) if name(one) == "iifuse-nursery"]
    return found


def _tasks(pid: int) -> list[Path]:
    with suppress(OSError):
        return list(Path(f"/proc/{pid}/task").iterdir())
    return []


def _words(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text().split()
    return []
