"""Who has a file of the mount open: read from links in /proc and /sys, never by a stat of it."""

import contextlib
import glob
import os
from collections.abc import Iterator


def holders(paths: list[str]) -> list[str]:
    """Programs and loop devices that have one of `paths` open or mapped, for people."""
    found = dict.fromkeys(_processes(set(paths)))
    found |= dict.fromkeys(_loop_devices(set(paths)))
    return list(found)


def _processes(paths: set[str]) -> Iterator[str]:
    for process in glob.glob("/proc/[0-9]*"):
        pid = int(process.rpartition("/")[2])
        if pid != os.getpid() and _has_open(process, paths):
            yield f"{_command(process)} (pid {pid})"


def _has_open(process: str, paths: set[str]) -> bool:
    links = glob.iglob(f"{process}/fd/*")
    return any(_link(link) in paths for link in links) or _has_mapped(process, paths)


def _has_mapped(process: str, paths: set[str]) -> bool:
    with contextlib.suppress(OSError), open(f"{process}/maps", errors="surrogateescape") as maps:
        return any(line.split(maxsplit=5)[-1].rstrip("\n") in paths for line in maps)
    return False


def _link(path: str) -> str:
    with contextlib.suppress(OSError):
        return os.readlink(path)
    return ""


def _command(process: str) -> str:
    with contextlib.suppress(OSError), open(f"{process}/comm") as file:
        return file.read().strip()
    return "?"


def _loop_devices(paths: set[str]) -> Iterator[str]:
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
        with contextlib.suppress(OSError), open(path, errors="surrogateescape") as file:
            if file.read().rstrip("\n") in paths:
                yield f"loop device /dev/{path.split('/')[3]}"
