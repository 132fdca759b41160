"""What the kernel remembers of a file may not outlive its content."""

import os

import pytest

TIME = 10**18


@pytest.mark.parametrize("kind", ["dep", "ind"])
def test_update_is_seen_though_somebody_sets_the_times_back(service, volume, place, kind):
    """As `cp -p`, `touch -r`, tar and rsync do."""
    master, shadow = volume("prod/v"), place / "shadow"
    service.enable(kind, master, shadow)
    os.utime(service.path(shadow), ns=(TIME, TIME))
    assert service.read(shadow) == service.read(master)
    service.write(master, 0, b"new content")
    service.flip("s", shadow)
    os.utime(service.path(shadow), ns=(TIME, TIME))
    assert service.read(shadow) == service.read(master)
