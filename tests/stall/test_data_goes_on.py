"""A volume that does not answer stops its own set alone: nobody waits for a stranger (K8)."""

import os
import threading
import time
from itertools import product

import pytest
from harness import CHUNK
from samples import sample

SIZE = 8 * CHUNK
MORE_S = 0.1
"""So much longer the slowest request to another volume may take."""


def use(service, path, operation):
    """A program that comes to the far volume by the file of it on the mount."""
    fd = os.open(service.path(path), os.O_RDWR)
    try:
        if operation == "read":
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.pread(fd, 4096, 5 * CHUNK)
        else:
            os.pwrite(fd, b"far away", 5 * CHUNK)
            os.fsync(fd)
    except OSError:
        pass  # given up
    finally:
        os.close(fd)


def forget(path):
    """Else the kernel would answer for the server."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


CASES = [
    case
    for case in product(
        ["ind", "dep"], ["master", "shadow", "bitmap"], ["read", "write", "fsync"], [0, 1]
    )
    if case[1:3] != ("bitmap", "read")  # which happens at a start only
]


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize(("kind", "role", "operation", "limit"), sample(CASES, 10, "data goes on"))
def test_stalled_volume_holds_up_no_other(
    service, volume, place, far, near, kind, role, operation, limit
):
    content = os.urandom(SIZE)
    paths = {"master": volume("m", size=SIZE), "shadow": place / "s", "bitmap": place / "b"}
    size = {"master": SIZE, "shadow": SIZE, "bitmap": 64 * 1024}[role]
    paths[role] = far.file(role, content if role == "master" else bytes(size))
    service.enable(kind, paths["master"], paths["shadow"], paths["bitmap"])
    service.wait(paths["shadow"])
    assert role in service.status(paths["shadow"]).remote
    if limit:
        done = service.run("iiadm", "-o", f"limit={limit}", paths["shadow"])
        assert done.returncode == 0, done.stderr
    before = near.slowest()
    forget(paths[role])
    far.hold(operation)
    file = paths["shadow"] if role == "shadow" else paths["master"]
    program = threading.Thread(target=use, args=(service, file, operation), daemon=True)
    program.start()
    if role != "shadow" or operation != "read" or kind == "ind":
        assert far.held.wait(60), "the request has come to the server"
    assert near.slowest() < before + MORE_S
    began = time.monotonic()
    assert service.run("iiadm", "-i", "--json").returncode == 0
    assert time.monotonic() - began < 2
    for path in paths.values():
        if path != paths["bitmap"]:
            os.stat(service.path(path))
    assert sorted(os.listdir(service.path(place)))
    far.go()
    program.join(60)
    assert not program.is_alive()
