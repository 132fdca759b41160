"""A volume that does not answer stops its own set alone: nobody waits for a stranger (K8)."""

import os
import threading
import time
from itertools import product

import pytest
from devices import let_go
from far import forget
from harness import CHUNK, losetup
from samples import sample

SIZE = 8 * CHUNK
MORE_S = 0.1
"""So much longer the slowest request to another volume may take."""

DATA = ("read", "write", "fsync")
"""What a program's request makes the service ask; the rest it asks by itself, or for a verb."""

STATES = {"idle": (), "copying": ("-c", "s"), "restoring": ("-n", "-c", "m"), "exported": ()}
"""The verb that runs meanwhile."""


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


@pytest.fixture
def place_far_away(far):
    """A volume on the file server, or a block device over one."""
    devices = []

    def make(name, content, via):
        path = far.file(name, content)
        if via == "file":
            return path
        devices.append(losetup(path))
        return devices[-1]

    yield make
    far.go()
    for device in devices:
        let_go(device)


def is_possible(kind, state, role, operation, via):
    if role == "bitmap" and operation == "read":
        return False  # which happens at a start only
    if state == "exported" and (kind == "dep" or role == "shadow"):
        return False  # and the shadow is not this host's
    return via == "file" or operation in DATA  # a loop device has its file open for good


CASES = [
    (*case, limit)
    for case in product(
        ["ind", "dep"], STATES, ["master", "shadow", "bitmap"],
        [*DATA, "open", "getattr", "statfs"], ["file", "loop"],
    )
    for limit in (0, 1)
    if is_possible(*case)
]  # fmt: skip


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize(
    ("kind", "state", "role", "operation", "via", "limit"), sample(CASES, 4, "data goes on")
)
def test_stalled_volume_holds_up_no_other(
    service, volume, place, far, near, place_far_away, kind, state, role, operation, via, limit
):
    content = os.urandom(SIZE)
    paths = {"master": volume("m", size=SIZE), "shadow": place / "s", "bitmap": place / "b"}
    size = {"master": SIZE, "shadow": SIZE, "bitmap": 64 * 1024}[role]
    paths[role] = place_far_away(role, content if role == "master" else bytes(size), via)
    service.enable(kind, *paths.values())
    service.wait(paths["shadow"])
    assert role in service.status(paths["shadow"]).remote
    if limit:
        done = service.run("iiadm", "-o", f"limit={limit}", paths["shadow"])
        assert done.returncode == 0, done.stderr
    if state == "exported":
        assert service.run("iiadm", "-E", paths["shadow"]).returncode == 0
    before = near.slowest()
    forget(paths[role])
    forget(far.mountpoint / role)
    far.hold(operation)
    file = paths["shadow"] if role == "shadow" else paths["master"]
    users = [threading.Thread(target=use, args=(service, file, operation), daemon=True)]
    if STATES[state]:
        words = ("iiadm", *STATES[state], paths["shadow"])
        users.append(threading.Thread(target=service.run, args=words, daemon=True))
    for user in users:
        user.start()
    if state == "idle" and operation in DATA and (
        role != "shadow" or operation != "read" or kind == "ind"
    ):  # fmt: skip
        assert far.held.wait(60), "the request has come to the server"
    assert near.slowest() < before + MORE_S
    began = time.monotonic()
    assert service.run("iiadm", "-i", "--json").returncode == 0
    assert time.monotonic() - began < 2
    if state != "exported":
        os.stat(service.path(paths["shadow"]))
    os.stat(service.path(paths["master"]))
    assert sorted(os.listdir(service.path(place)))
    assert near.slowest() < before + MORE_S
    far.go()
    for user in users:
        user.join(60)
        assert not user.is_alive()
