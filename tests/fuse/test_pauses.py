"""K9: time in which the service itself stood still costs nobody anything."""

import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
from hang import PATIENCE_SECONDS
from harness import BIN, CHUNK, Service

PAUSE_S = 4
"""Longer than each time limit below."""


def pause(service: Service) -> None:
    """Nothing of the service runs, as in a paused container."""
    os.kill(service.pid, signal.SIGSTOP)
    try:
        time.sleep(PAUSE_S)
    finally:
        os.kill(service.pid, signal.SIGCONT)


@contextmanager
def closed_meanwhile(held: int):
    """Somebody closes a file just now, which the service learns of when it goes on."""
    closing = threading.Thread(target=lambda: (time.sleep(0.2), os.close(held)))
    closing.start()
    yield
    closing.join(PATIENCE_SECONDS)


def _touch_all(service: Service, volume, stop: threading.Event) -> None:
    """First touches, one after the other, so that some call is under way at any time."""
    fd = os.open(service.path(volume), os.O_WRONLY)
    try:
        for at in range(0, volume.stat().st_size - CHUNK, CHUNK):
            os.pwrite(fd, b"x" * 100, at)
            if stop.is_set():
                return
    finally:
        os.close(fd)


@pytest.mark.finding("K9.1")
def test_shadow_with_a_time_limit_outlives_pauses(new_service, volume, disk_place):
    service = new_service()
    master, shadow = volume("m", 64 << 20), disk_place / "s"
    words = ("-o", "limit=2", "-e", "dep", master, shadow, disk_place / "b")
    assert service.run("iiadm", *words).returncode == 0
    kept, enough = service.read(shadow), threading.Event()
    writers = [
        threading.Thread(target=_touch_all, args=(service, place, enough))
        for place in (master, shadow)
    ]
    for writer in writers:
        writer.start()
    try:
        for _ in range(2):
            time.sleep(0.3)
            assert any(writer.is_alive() for writer in writers), "there is nothing to give up"
            pause(service)
            time.sleep(0.3)
            assert service.status(shadow).offline == ()
    finally:
        enough.set()
        for writer in writers:
            writer.join(PATIENCE_SECONDS)
    found = service.read(shadow)
    for at in range(0, len(kept), CHUNK):
        assert found[at + 100 : at + CHUNK] == kept[at + 100 : at + CHUNK]


def test_verb_waits_for_handles_as_long_as_it_says(service, volume, place):
    """Who has closed a file while the service stood still has closed it."""
    master, shadow = volume("m"), place / "s"
    service.enable("dep", master, shadow)
    held = os.open(service.path(shadow), os.O_RDONLY)
    command = [str(BIN / "iiadm"), "--socket", str(service.socket)]
    verb = subprocess.Popen([*command, "-d", str(shadow)], stderr=subprocess.PIPE)
    time.sleep(1)
    with closed_meanwhile(held):
        pause(service)
    assert verb.wait(PATIENCE_SECONDS) == 0, verb.stderr.read()
    verb.stderr.close()


def test_stop_waits_for_files_as_long_as_it_says(new_service, volume):
    service = new_service("app", "stop_wait=3")
    master = volume("m")
    assert service.run("svadm", "-e", master).returncode == 0
    held = os.open(service.path(master), os.O_RDONLY)
    os.kill(service.pid, signal.SIGTERM)
    time.sleep(0.5)
    with closed_meanwhile(held):
        pause(service)
    assert service.wait_for_end(PATIENCE_SECONDS) == 0
