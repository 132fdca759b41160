"""A volume far away, and one near by on the same mount."""

import os
import time
from pathlib import Path

import pytest
from far import far as far_server
from harness import CHUNK

PROBES = 20
"""Requests to a volume near by, of which the slowest counts."""


@pytest.fixture
def service(new_service):
    return new_service("app", PATIENT)


@pytest.fixture
def far(place):
    with far_server(place) as server:
        yield server


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


SIZE = 8 * CHUNK
PATIENT = "stop_wait=1"
"""A stop may take five seconds more."""


@pytest.fixture
def far_set(service, volume, place, far):
    """The master and the shadow of a set one of whose volumes lies far away."""

    def make(role, kind="ind"):
        sizes = {"master": SIZE, "shadow": SIZE, "bitmap": 64 * 1024}
        paths = {"master": volume("m", size=SIZE), "shadow": place / "s", "bitmap": place / "b"}
        content = os.urandom(SIZE) if role == "master" else bytes(sizes[role])
        paths[role] = far.file(role, content)
        service.enable(kind, *paths.values())
        service.wait(paths["shadow"])
        return paths["master"], paths["shadow"]

    return make
