"""A volume that stands on a file of a service's own mount is refused: the service would wait for
itself, beyond a kill.
"""

import subprocess

import pytest
from harness import CHUNK

SIZE = 16 << 20


@pytest.fixture
def stacked(service, volume, attach, mounted):
    """A file system on a loop device over a file of the mount; (that device, its mount point)."""
    below = volume("below", SIZE)
    assert service.run("svadm", "-e", below).returncode == 0
    device = attach(service.path(below))
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    return device, mounted(device, "stacked")


@pytest.mark.finding("K3.2")
@pytest.mark.parametrize("of", ["this service", "another service"])
def test_volume_that_stands_on_a_file_of_a_mount_is_refused(
    service, new_service, volume, stacked, place, of
):
    asked = service if of == "this service" else new_service("other")
    device, directory = stacked
    above, new = directory / "above", directory / "new"
    above.write_bytes(bytes(4 * CHUNK))
    fresh, s, b = volume("fresh", 4 * CHUNK), place / "s", place / "b"
    for program, *words in [
        ("svadm", "-e", device), ("svadm", "-e", above),
        ("iiadm", "-e", "dep", device, s, b), ("iiadm", "-e", "dep", above, s, b),
        ("iiadm", "-e", "dep", fresh, above, b), ("iiadm", "-e", "dep", fresh, new, b),
        ("iiadm", "-e", "dep", fresh, s, above), ("iiadm", "-e", "dep", fresh, s, new),
        ("iiadm", "-e", "dep", fresh, s, device),
    ]:  # fmt: skip
        done = asked.run(program, *words)
        assert done.returncode == 2, words
        assert "the mount of an iifuse service" in done.stderr
        assert device in done.stderr
        assert not any(path.exists() for path in (s, b, new)), words
    assert asked.client.status() == []
