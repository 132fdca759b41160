"""A name that somebody changes while a volume is opened: that volume, or a refusal (F16)."""

import os
import threading

import pytest
from descriptors import open_below

from iifuse import errors
from iifuse.store import volume as store
from iifuse.store.volume import open_volume

TRIES = 400


@pytest.fixture
def names(disk_place):
    """A volume, a file that is nobody's business, and the name that leads to the first."""
    (disk_place / "volume").write_bytes(b"v" * 4096)
    (disk_place / "secret").write_bytes(b"s" * 8192)
    (disk_place / "name").symlink_to(disk_place / "volume")
    return disk_place


def at(monkeypatch, owner, function, swap, path=None):
    """Swap a moment before the first call of `function`, or the first for `path`."""
    real, swaps = getattr(owner, function), [swap]

    def swapping(name, *arguments, **options):
        while swaps and str(name) == str(path or name):
            swaps.pop()()
        return real(name, *arguments, **options)

    monkeypatch.setattr(owner, function, swapping)


def test_open_volume_refuses_another_file_that_took_the_name(names, monkeypatch):
    def swap():
        os.symlink(names / "secret", names / "other")
        os.rename(names / "other", names / "name")

    at(monkeypatch, store.os.path, "realpath", swap)
    with pytest.raises(errors.Busy, match="was replaced"):
        open_volume(str(names / "name"))
    assert (names / "secret").read_bytes() == b"s" * 8192


def test_open_volume_follows_no_link_that_took_the_place_of_the_file(names, monkeypatch):
    def swap():
        os.unlink(names / "volume")
        os.symlink(names / "secret", names / "volume")

    at(monkeypatch, store.os, "open", swap, names / "volume")
    with pytest.raises(errors.BadVolume, match="cannot be opened"):
        open_volume(str(names / "name"))


def test_open_volume_follows_no_directory_that_was_swapped(names, monkeypatch):
    for folder in ("a", "b"):
        (names / folder).mkdir()
        (names / folder / "v").write_bytes(folder.encode() * 4096)

    def swap():
        os.rename(names / "a", names / "gone")
        os.symlink(names / "b", names / "a")

    at(monkeypatch, store.os, "open", swap)
    with pytest.raises(errors.Busy, match="was replaced"):
        open_volume(str(names / "a" / "v"))


def test_open_volume_leaves_no_descriptor_and_no_wrong_size_in_a_race(names):
    """Somebody swaps all the time: what is opened is one file or the other, wholly."""
    done = threading.Event()

    def swap():
        while not done.is_set():
            for target in ("secret", "volume"):
                os.symlink(names / target, names / "other")
                os.rename(names / "other", names / "name")

    swapper = threading.Thread(target=swap)
    swapper.start()
    opened = refused = 0
    try:
        for _ in range(TRIES):
            try:
                volume = open_volume(str(names / "name"), exclusive=False)
            except (errors.BadVolume, errors.Busy):
                refused += 1
                continue
            content = volume.read(0, volume.size_bytes)
            volume.close()
            assert content in (b"v" * 4096, b"s" * 8192)
            opened += 1
    finally:
        done.set()
        swapper.join(60)
    assert opened
    assert opened + refused == TRIES
    assert not open_below(names)
