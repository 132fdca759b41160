"""What hangs is freed: the services of a test are killed, the connections of its mounts aborted.

A program that waits for an answer on a mount whose service cannot end is beyond every signal, and
the test with it. Who frees them is a process of its own: a test that waits for a mapped page holds
its interpreter, so that no thread of its own can run.
"""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HANG_SECONDS = 300.0
"""Far more than any test takes on a busy machine; a test that takes longer says so itself."""

PATIENCE_SECONDS = 120.0
"""For what takes moments, on a machine that is busy. Only a failure takes so long."""

PREFIX = f"iifuse-{os.getpid()}-"
"""How the directories of this process's tests begin. Others may run tests on this machine too."""

_CONNECTIONS = "/sys/fs/fuse/connections"


@dataclass(frozen=True)
class Mounted:
    point: str
    device: str
    kind: str


def mounts(part: str) -> list[Mounted]:
    """Mounts with this in their paths, the latest first. No mount is touched to find them."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        _, _, device, _, point = fields.split()[:5]
        path = os.fsdecode(re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), point))
        if part in f"{path}/":
            found.append(Mounted(path, device.decode(), rest.split()[0].decode()))
    return found[::-1]


def abort(part: str) -> None:
    """Every request on these FUSE mounts fails from now on, whatever has become of the service."""
    for mount in mounts(part):
        if mount.kind.startswith("fuse"):
            if not os.listdir(_CONNECTIONS):
                subprocess.run(["mount", "-t", "fusectl", "none", _CONNECTIONS], check=False)
            number = mount.device.partition(":")[2]
            with contextlib.suppress(OSError):  # it has ended by itself
                Path(_CONNECTIONS, number, "abort").write_text("1")


def unmount(part: str) -> None:
    """Nothing is mounted there any more, over a file or on a mount included."""
    abort(part)
    for mount in mounts(part):
        subprocess.run(["umount", "-l", mount.point], capture_output=True, check=False)


def kill(part: str) -> None:
    """SIGKILL for every program that was started with such a path."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has just ended
            if os.fsencode(part) in Path("/proc", name, "cmdline").read_bytes():
                os.kill(int(name), signal.SIGKILL)


class Watchdog:
    """Frees everything when nobody has fed it for so long; also when this process has ended."""

    def __init__(self) -> None:
        self.seconds = 0.0  # a benchmark takes as long as it takes
        self._process: subprocess.Popen[bytes] | None = None

    def watch(self, seconds: float = HANG_SECONDS) -> None:
        """From now on; until `rest`."""
        self.seconds = seconds
        self.feed()

    def feed(self) -> None:
        """All is well; the time begins anew."""
        if not self.seconds:
            return
        if self._process is None:
            words = [sys.executable, "-I", "-S", __file__, PREFIX]
            self._process = subprocess.Popen(words, stdin=subprocess.PIPE, start_new_session=True)
        self._tell(self.seconds)

    def rest(self) -> None:
        """Nothing runs that could hang."""
        self.seconds = 0.0
        if self._process is not None:
            self._tell(0)

    def _tell(self, seconds: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n".encode())
        self._process.stdin.flush()


WATCHDOG = Watchdog()


def _watch(part: str) -> None:
    deadline = float("inf")
    while True:
        left = None if deadline == float("inf") else max(0.0, deadline - time.monotonic())
        if select.select([0], [], [], left)[0]:
            told = os.read(0, 4096).split()
            if not told:
                break
            deadline = time.monotonic() + float(told[-1]) if float(told[-1]) else float("inf")
        else:
            print("a test hangs: its services and mounts are ended", file=sys.stderr, flush=True)
            abort(part)
            kill(part)
            deadline = time.monotonic() + 5  # what it has begun meanwhile may hang too
    kill(part)
    unmount(part)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _watch(sys.argv[1])
