"""Loop devices, file systems and mortal services for the tests here."""

import subprocess

import pytest
from devices import attach, loops, mounted
from refusing import refused

__all__ = ["attach", "loops", "mounted", "refused"]


@pytest.fixture
def disk(service, volume):
    """Make a volume that is on the mount with no set; (volume, its file)."""

    def make(name="disk", size=5 * 32768 + 1000):
        path = volume(name, size)
        done = service.run("svadm", "-e", path)
        assert done.returncode == 0, done.stderr
        return path, service.path(path)

    return make


@pytest.fixture
def small_place(place):
    """A file system of 2 MiB in memory, and how to make room on it."""
    directory = place / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "small", directory], check=True)

    def enlarge():
        subprocess.run(["mount", "-o", "remount,size=64m", directory], check=True)

    yield directory, enlarge
    subprocess.run(["umount", "-l", directory], check=True)
