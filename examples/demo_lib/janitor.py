"""Cleans up after the demonstration, whatever ends it; a process of its own, in its own session.

    janitor.py ROOT < pipe

Lines on the pipe say which file system is frozen (`frozen PATH`, `thawed PATH`); one that stays
frozen for too long is thawed. When the pipe ends, because the demonstration is done or was killed,
or when it takes far too long, everything that it started or mounted below ROOT is ended and
removed. What is left is named on stdout.
"""

# ruff: noqa: S603  # it runs what stands here, with names from /proc and /sys

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

FROZEN_S_MAX = 30.0
DEMO_S_MAX = 600.0
ENDING_S_MAX = 15.0
COMMAND_S_MAX = 5.0
MARK = "IIFUSE_DEMO"
"""Environment variable that every process of the demonstration has, with ROOT as its value."""
SERVICE_MARK = "IIFUSE_DEMO_SERVICE"


def main() -> int:
    """Watch until the pipe ends, then clean up; 1 when something is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    root = sys.argv[1]
    watch()
    left = clean_up(root)
    for what in left:
        print(what, flush=True)
    return 1 if left else 0


def watch() -> None:
    """Follow the pipe to its end; thaw what is frozen for too long."""
    last = time.monotonic() + DEMO_S_MAX
    deadlines: dict[str, float] = {}
    buffer = b""
    while time.monotonic() < last:
        wait = min(deadlines.values(), default=last) - time.monotonic()
        if select.select([0], [], [], max(0.0, wait))[0]:
            part = os.read(0, 4096)
            if not part:
                return
            *lines, buffer = (buffer + part).split(b"\n")
            for line in lines:
                _note(line.decode(), deadlines)
        for path in [p for p, deadline in deadlines.items() if deadline <= time.monotonic()]:
            thaw(path)
            del deadlines[path]


def _note(line: str, deadlines: dict[str, float]) -> None:
    word, _, path = line.partition(" ")
    if word == "frozen":
        deadlines[path] = time.monotonic() + FROZEN_S_MAX
    else:
        deadlines.pop(path, None)


def thaw(path: str) -> None:
    """Let writes go on; no harm where nothing is frozen."""
    _quiet("fsfreeze", "--unfreeze", path)


def clean_up(root: str) -> list[str]:
    """Thaw, end programs, unmount, detach, end services, remove; what is left, for people."""
    disks = [point for point, kind in mounts(root) if not kind.startswith("fuse")]
    for point in disks:
        thaw(point)
    end(list(processes(root, services=False)))
    release(root, disks)
    end(list(processes(root, services=True)))
    release(root, [point for point, _ in mounts(root)])
    left = [f"still mounted: {point}" for point, _ in mounts(root)]
    if not left:  # never remove through a mount
        shutil.rmtree(root, ignore_errors=True)
    left += [f"loop device still there: {device}" for device in loop_devices(root)]
    return left + [f"directory still there: {root}"] * Path(root).exists()


def release(root: str, points: list[str]) -> None:
    """Unmount, and let go of all loop devices."""
    for point in points:
        unmount(point)
    for device in loop_devices(root):
        _quiet("losetup", "--detach", device)


def mounts(root: str) -> list[tuple[str, str]]:
    """(mount point, type) below root, the last one mounted first."""
    lines = Path("/proc/self/mounts").read_text().splitlines()
    found = [(words[1], words[2]) for words in (line.split() for line in lines)]
    return [pair for pair in reversed(found) if pair[0].startswith(root + "/")]


def unmount(point: str) -> None:
    """Unmount, in order if that is possible."""
    if not _quiet("umount", point):
        _quiet("umount", "--lazy", point)


def loop_devices(root: str) -> list[str]:
    """Loop devices over files below root."""
    found = []
    for link in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            if link.read_text().startswith(root + "/"):
                found.append(f"/dev/{link.parts[3]}")
    return found


def processes(root: str, *, services: bool) -> Iterator[int]:
    """Processes that the demonstration has started, this one aside."""
    mark = f"{MARK}={root}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            environment = (entry / "environ").read_bytes().split(b"\0")
            is_service = f"{SERVICE_MARK}=1".encode() in environment
            if mark in environment and is_service == services and int(entry.name) != os.getpid():
                yield int(entry.name)


def end(pids: list[int]) -> None:
    """Ask processes to end, and make those that do not."""
    for number in (signal.SIGCONT, signal.SIGTERM):
        _signal(pids, number)
    deadline = time.monotonic() + ENDING_S_MAX
    while (alive := [pid for pid in pids if _lives(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal(alive, signal.SIGKILL)
    while any(_lives(pid) for pid in alive) and time.monotonic() < deadline + 5:
        time.sleep(0.05)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _lives(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def _quiet(*command: str) -> bool:
    """Run a command; one that hangs is left behind, it ends when the service does."""
    nothing = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)
    with suppress(subprocess.TimeoutExpired):
        return process.wait(COMMAND_S_MAX) == 0
    process.kill()
    return False


if __name__ == "__main__":
    sys.exit(main())
