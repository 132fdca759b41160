"""A state directory that does not answer: verbs wait for it, data goes on (K8)."""

import os
import subprocess
import threading
import time

import pytest
from devices import eventually, let_go
from filesystems import make as make_file_system
from harness import CHUNK, losetup
from samples import sample

SIZE = 8 * CHUNK
DISK = 64 << 20
MORE_S = 0.1


@pytest.fixture
def far_directory(place, far):
    """A directory on a file system on a block device over a file of the far server."""
    device = losetup(far.file("disk", bytes(DISK)))
    directory = place / "disk"
    directory.mkdir()
    try:
        make_file_system("ext4", device)
        subprocess.run(["mount", device, directory], check=True)
        yield directory
    finally:
        far.go()
        subprocess.run(["umount", "-l", directory], check=False)
        let_go(device)


@pytest.fixture
def service(far_directory, new_service):
    return new_service("app", "stop_wait=1", root=far_directory)


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize("verb", sample(["update", "enable"], 1, "state hangs"))
def test_data_goes_on_while_verbs_wait(service, place, volume, far, near, verb):
    master, shadow = volume("m", size=SIZE), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 0, b"changed")
    words = {
        "update": ("-u", "s", shadow),
        "enable": ("-e", "dep", volume("new"), place / "new-s", place / "new-b"),
    }
    before = near.slowest()
    far.hold("write", "fsync")
    waits = threading.Thread(target=service.run, args=("iiadm", *words[verb]), daemon=True)
    waits.start()
    assert far.held.wait(60), "the state directory was written"
    assert near.slowest() < before + MORE_S
    began = time.monotonic()
    assert service.run("iiadm", "-i", "--json").returncode == 0
    assert time.monotonic() - began < 2
    fd = os.open(service.path(master), os.O_RDWR)
    os.pwrite(fd, b"later", 3 * CHUNK)
    os.fsync(fd)
    os.close(fd)
    assert waits.is_alive()
    far.go()
    waits.join(60)
    assert not waits.is_alive()
    assert service.run("iiadm", "-i", "--json").returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


@pytest.mark.finding("K8.4")
def test_stop_ends_though_the_state_directory_hangs(service, place, volume, far, near):
    far.hold("write", "fsync")
    near.slowest()
    began = time.monotonic()
    service.tell_to_stop()
    eventually(lambda: not os.path.ismount(service.mountpoint), "the service has unmounted")
    assert time.monotonic() - began < 1 + 5 + 2
    left = service.part()
    far.go()
    assert left.wait(60) in {0, 4}
    service.start()
    assert near.slowest() < 1
