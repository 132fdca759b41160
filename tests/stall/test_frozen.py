"""A local file system that is frozen: `-o remote=` keeps it from holding up its instance (K8)."""

import contextlib
import fcntl
import os
import subprocess
import threading
import time

import pytest
from devices import let_go
from filesystems import make as make_file_system
from harness import CHUNK, losetup

SIZE = 8 * CHUNK
DISK = 64 << 20
FIFREEZE, FITHAW = 0xC0045877, 0xC0045878
MORE_S = 0.1


@pytest.fixture
def local(place):
    """A directory on a disk of this machine. It goes after the services that use it."""
    image, directory = place / "disk.img", place / "disk"
    image.write_bytes(bytes(DISK))
    directory.mkdir()
    device = losetup(image)
    try:
        make_file_system("ext4", device)
        subprocess.run(["mount", device, directory], check=True)
        yield directory
    finally:
        subprocess.run(["umount", "-l", directory], check=False)
        let_go(device)


@contextlib.contextmanager
def frozen(directory):
    """No write to the file system ends. No child is made meanwhile, which would close our files."""
    fd = os.open(directory, os.O_RDONLY)
    fcntl.ioctl(fd, FIFREEZE, 0)
    try:
        yield
    finally:
        fcntl.ioctl(fd, FITHAW, 0)
        os.close(fd)


def write(service, master):
    """A program that comes to the frozen volume."""
    fd = os.open(service.path(master), os.O_RDWR)
    try:
        os.pwrite(fd, b"frozen", 3 * CHUNK)
        os.fsync(fd)
    finally:
        os.close(fd)


@pytest.fixture
def frozen_set(local, place):
    """A set whose master lies there, of a service of which it is said to be far away or not."""

    def make(service):
        master = local / "m"
        master.write_bytes(os.urandom(SIZE))
        service.enable("dep", master, place / "s")
        return master

    return make


@pytest.fixture
def service(local, new_service):
    return new_service("app", "stop_wait=1", f"remote={local}")


@pytest.mark.finding("K8.4")
def test_volume_that_is_said_to_be_remote_holds_up_no_other(service, local, near, frozen_set):
    master = frozen_set(service)
    before = near.slowest()
    program = threading.Thread(target=write, args=(service, master), daemon=True)
    with frozen(local):
        program.start()
        time.sleep(0.2)  # it is stuck in a system call, which tells nobody
        assert program.is_alive()
        assert near.slowest() < before + MORE_S
        assert service.client.status(), "it answers"
    program.join(60)
    assert not program.is_alive()


@pytest.mark.finding("K8.4")
def test_instance_of_its_own_is_held_up_by_no_frozen_disk(
    service, new_service, local, frozen_set, near
):
    """The manual's advice: one instance for each application."""
    other = new_service("other", "stop_wait=1", f"local={local}")
    master = frozen_set(other)
    before = near.slowest()
    program = threading.Thread(target=write, args=(other, master), daemon=True)
    with frozen(local):
        program.start()
        time.sleep(0.2)
        assert program.is_alive()
        assert near.slowest() < before + MORE_S
    program.join(60)
    assert not program.is_alive()
