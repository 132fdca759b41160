"""A volume that lies far away, on a file server that answers when the test says so."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import file_server
import pytest
from hang import PATIENCE_SECONDS

PROBES = 20
"""Requests to a volume near by, of which the slowest counts."""


class Far:
    """The file server. `held`: set once a request has come that is not answered."""

    def __init__(self, directory: Path, mountpoint: Path) -> None:
        self.directory, self.mountpoint = directory, mountpoint
        directory.mkdir(parents=True)
        mountpoint.mkdir()
        program = [sys.executable, file_server.__file__, str(directory), str(mountpoint)]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"
        self.held, self._obeyed = threading.Event(), threading.Semaphore(0)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            if line.startswith("held"):
                self.held.set()
            else:
                self._obeyed.release()

    def _order(self, what: str) -> None:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._obeyed.acquire(timeout=PATIENCE_SECONDS)

    def hold(self, *operations: str) -> None:
        self.held.clear()
        for operation in operations:
            self._order(f"hold {operation}")

    def go(self) -> None:
        self._order("go")

    def file(self, name: str, content: bytes) -> Path:
        (self.directory / name).write_bytes(content)
        return self.mountpoint / name

    def end(self) -> None:
        with contextlib.suppress(OSError, AssertionError):
            self.go()
        subprocess.run(["umount", "-l", self.mountpoint], check=False)
        self.process.terminate()
        self.process.wait(30)
        self.process.stdin.close()


@pytest.fixture
def far(place):
    server = Far(place / "far/fs", place / "far/mnt")
    yield server
    server.end()


class Near:
    """A volume of this machine on the same mount; how long its requests take."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def slowest(self) -> float:
        """Seconds that the slowest of some reads and synced writes takes."""
        fd, took = os.open(self.path, os.O_RDWR), []
        try:
            for number in range(PROBES):
                began = time.monotonic()
                os.pwrite(fd, b"x" * 512, number * 40960)
                os.fsync(fd)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                os.pread(fd, 512, number * 40960)
                took.append(time.monotonic() - began)
        finally:
            os.close(fd)
        return max(took)


@pytest.fixture
def near(service, volume):
    master = volume("near", size=1 << 20)
    service.enable("dep", master, master.with_name("near-s"))
    return Near(service.path(master))
