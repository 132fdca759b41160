"""A point in time syncs its source through our own mount; nothing may wait for itself there."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from harness import CHUNK

from iifuse import errors

CHUNKS = 8_000
"""Dirty pages, one a chunk, so that the sync of the source takes a while."""

OPENERS = 80
"""More than the mount serves at a time."""

_DIRTY = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
view = mmap.mmap(fd, 0)
for at in range(0, len(view), 32768):
    view[at] = 1
print("dirty", flush=True)
sys.stdin.read()
"""


def keep_dirty_pages(mountpoint):
    """The kernel would write most of them before it is asked to: a mount has a low limit."""
    device = os.stat(mountpoint).st_dev
    limit = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/strict_limit")
    if limit.exists():  # since Linux 6.2
        limit.write_text("0")


@pytest.fixture
def dirty(service, place):
    """A dependent set whose master has many dirty pages in the page cache: (master, shadow)."""
    keep_dirty_pages(service.mountpoint)
    master, shadow = place / "m", place / "s"
    with master.open("wb") as file:
        file.truncate(CHUNKS * CHUNK)
    service.enable("dep", master, shadow)
    with subprocess.Popen(
        [sys.executable, "-c", _DIRTY, str(service.path(master))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as program:  # fmt: skip
        try:
            assert program.stdout.readline() == b"dirty\n"
            yield master, shadow
        finally:
            program.kill()


@contextlib.contextmanager
def unmounted_in_the_end(service):
    """A service that cannot end is let go, so that only the test fails."""
    try:
        yield
    except subprocess.TimeoutExpired:
        subprocess.run(["umount", "-f", service.mountpoint], check=False)
        raise


def update(service, shadow):
    """An update under way: its thread, and what came of it."""
    outcome = []

    def run():
        try:
            outcome.append(service.flip("s", shadow))
        except errors.IifuseError as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    time.sleep(0.05)
    return thread, outcome


def test_crowd_that_opens_the_target_while_the_source_syncs_hangs_nobody(service, dirty):
    """Whoever waits inside a request may wait for nothing that needs another request."""
    _, shadow = dirty
    thread, outcome = update(service, shadow)
    with contextlib.ExitStack() as stack:
        crowd = [
            stack.enter_context(
                subprocess.Popen(
                    ["head", "-c", "10", str(service.path(shadow))], stdout=subprocess.DEVNULL
                )
            )
            for _ in range(OPENERS)
        ]
        try:
            thread.join(40)
            assert outcome, "the update hangs"
            for program in crowd:
                assert program.wait(60) == 0
        finally:
            if not outcome:
                with unmounted_in_the_end(service):
                    service.kill()
            for program in crowd:
                program.kill()


def test_service_killed_while_it_syncs_its_source_dies_and_the_next_start_works(service, dirty):
    """F1: none of its threads may wait for its own mount, or it can never end."""
    master, shadow = dirty
    thread, outcome = update(service, shadow)
    assert not outcome, "the sync took no time"
    with unmounted_in_the_end(service):
        service.kill()  # waits for the end, which must come
    thread.join(60)
    assert not thread.is_alive()
    service.start()
    assert service.status(shadow).pit == 1
    assert service.read(shadow)[: 100 * CHUNK] == bytes(100 * CHUNK)
    service.flip("s", shadow)
    assert service.stop() == 0
    assert master.stat().st_size == CHUNKS * CHUNK
