"""A shadow that is lent, or was, and lies where nobody answers, holds up no others (K8)."""

import os
import time

import pytest
from devices import eventually
from harness import CHUNK
from samples import sample

SIZE = 8 * CHUNK
SOON_S = 40


@pytest.fixture
def lent(service, volume, place, far):
    """An exported set with its shadow far away; its ticket stands beside a link to that."""
    master, shadow = volume("m", size=SIZE), place / "s"
    os.symlink(far.file("shadow", bytes(SIZE)), shadow)
    service.enable("ind", master, shadow, place / "b")
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    return master, shadow


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize("state", sample(["lent", "lent before"], 1, "lent far"))
def test_start_goes_on(service, far, near, lent, state):
    master, shadow = lent
    if state == "lent before":
        assert service.run("iiadm", "-n", "-R", shadow).returncode == 0
    service.stop()
    far.hold("lookup", "getattr", "open")
    began = time.monotonic()
    service.start()
    assert time.monotonic() - began < SOON_S
    assert near.slowest() < 1
    assert service.read(master)
    far.go()
    if state == "lent before":
        eventually(lambda: service.status(shadow).waiting is None, "the set is back")
        service.flip("s", shadow)
        service.wait(shadow)
        assert service.read(shadow) == service.read(master)


@pytest.mark.finding("K8.4")
def test_enable_of_another_set_goes_on(service, volume, place, far, near, lent):
    far.hold("lookup", "getattr", "open")
    began = time.monotonic()
    done = service.run("iiadm", "-e", "dep", volume("o"), place / "o-s", place / "o-b")
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - began < SOON_S
    assert near.slowest() < 1
    far.go()
