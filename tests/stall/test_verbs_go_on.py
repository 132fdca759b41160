"""While one verb waits for a volume that does not answer, others go on, and so does a stop (K8)."""

import os
import subprocess
import threading
import time
from contextlib import suppress

import pytest
from devices import eventually
from harness import CHUNK
from samples import sample
from set_looks import read_bitmap

from iifuse.service import UNSAVED

SIZE = 8 * CHUNK
PATIENT = "stop_wait=1"
"""A stop may take five seconds more."""

VERBS = {
    "update": ("-u", "s"),
    "restore": ("-n", "-u", "m"),
    "abort": ("-a",),
    "disable": ("-d",),
    "export": ("-E",),
}
WAYS = [(role, operation) for role in ("master", "shadow") for operation in ("write", "fsync")]
CASES = [(*way, verb) for way in WAYS for verb in VERBS]
STOPS = [
    (role, operation)
    for role in ("master", "shadow", "bitmap")
    for operation in ("read", "write", "fsync", "flush", "getattr", "statfs")
]


def begin(service, *words):
    """A verb in the background; the thread that waits for it."""
    thread = threading.Thread(target=service.run, args=("iiadm", *words), daemon=True)
    thread.start()
    return thread


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize(("role", "operation", "verb"), sample(CASES, 2, "verbs go on"))
def test_verbs_on_other_sets_go_on(
    service, place, volume, far, near, far_set, role, operation, verb
):
    master, shadow = far_set(role)
    service.write(master, 5 * CHUNK, b"something to copy")
    far.hold(operation)
    waits = begin(service, *VERBS[verb], shadow)
    far.held.wait(2)  # an abort, for one, may have nothing to ask of this volume
    near_shadow = place / "near-s"
    began = time.monotonic()
    for words in [
        ("-u", "s", near_shadow), ("-i", "--json"), ("-g", "-L"), ("-w", near_shadow),
        ("-e", "dep", volume("other"), place / "other-s", place / "other-b"),
        ("-d", place / "other-s"),
    ]:  # fmt: skip
        done = service.run("iiadm", *words)
        assert done.returncode == 0, (words, done.stderr)
    assert time.monotonic() - began < 10
    near.slowest()
    far.go()
    waits.join(60)
    assert not waits.is_alive()


def cut_off(service, master):
    """A program whose write is never answered."""
    with suppress(OSError):
        write_synced(service, master, b"x")


@pytest.mark.finding("K8.4")
def test_stop_ends_though_a_request_of_a_program_does_not(service, place, far, near, far_set):
    master, shadow = far_set("master")
    far.hold("write")
    program = threading.Thread(target=cut_off, args=(service, master), daemon=True)
    program.start()
    assert far.held.wait(60)
    near.slowest()
    began = time.monotonic()
    service.tell_to_stop()
    eventually(lambda: not os.path.ismount(service.mountpoint), "the service has unmounted")
    assert time.monotonic() - began < 1 + 5 + 5 + 2
    assert read_bitmap(str(place / "near-s.bmp"))[0].clean
    start_beside(service, far, near, master, shadow)
    program.join(60)
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def start_beside(service, far, near, held, shadow):
    """The next start, while the kernel keeps the process of the last one for a thread's sake.

    It serves all others, and says who has what it waits for; once that answers, the set is back.
    """
    left = service.part()
    began = time.monotonic()
    service.start()
    assert time.monotonic() - began < 20
    assert near.slowest() < 1
    said = service.run("iiadm", "-i", shadow).stdout
    assert "waiting for" in said, said
    assert str(held) in said, said
    if left.poll() is None and "not answer" not in said:
        assert f"pid {left.pid}" in said, said
    far.go()
    assert left.wait(60) in {0, UNSAVED}  # nothing is unsaved if only a look at a path hangs
    eventually(lambda: service.status(shadow).waiting is None, "the set is back")


def write_synced(service, master, what):
    fd = os.open(service.path(master), os.O_RDWR)
    os.pwrite(fd, what, 2 * CHUNK)
    os.fsync(fd)
    os.close(fd)


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize(("role", "operation"), sample(STOPS, 1, "stop ends"))
def test_stop_ends_and_the_next_start_finds_what_was_synced(
    service, place, far, near, far_set, role, operation
):
    """What has a volume that does not answer is left as by a kill; all else is saved."""
    master, shadow = far_set(role)
    held = far.mountpoint / role
    write_synced(service, master, b"synced")
    far.hold(operation)
    waits = begin(service, *VERBS["restore" if role == "master" else "update"], shadow)
    far.held.wait(2)  # some of it is asked for at the stop only, or not at all
    near.slowest()
    began = time.monotonic()
    service.tell_to_stop()
    eventually(lambda: not os.path.ismount(service.mountpoint), "the service has unmounted")
    assert time.monotonic() - began < 1 + 5 + 2
    waits.join(60)
    assert not waits.is_alive()
    assert read_bitmap(str(place / "near-s.bmp"))[0].clean
    if far.held.is_set():
        why = f"{held}: does not answer"
        eventually(lambda: why in service.log.read_text(), "the log names what is waited for")
        start_beside(service, far, near, held, shadow)
    else:
        assert service.stop() == 0
        far.go()
        service.start()
    if role != "master":  # else it was being restored
        assert service.read(master)[2 * CHUNK : 2 * CHUNK + 6] == b"synced"
    service.wait(shadow)
    assert service.status(shadow).progress == "idle"
    write_synced(service, master, b"later")
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


@pytest.mark.finding("K8.4")
def test_unmount_from_outside_ends_the_service_though_a_verb_hangs(
    service, place, far, near, far_set
):
    master, shadow = far_set("shadow")
    write_synced(service, master, b"synced")
    far.hold("write")
    waits = begin(service, *VERBS["update"], shadow)
    far.held.wait(2)
    near.slowest()
    began = time.monotonic()
    subprocess.run(["umount", "-l", service.mountpoint], check=True)
    why = f"{far.mountpoint / 'shadow'}: does not answer"
    eventually(lambda: why in service.log.read_text(), "the log names what is waited for")
    assert time.monotonic() - began < 1 + 5 + 2
    waits.join(60)
    assert not waits.is_alive()
    assert read_bitmap(str(place / "near-s.bmp"))[0].clean
    start_beside(service, far, near, far.mountpoint / "shadow", shadow)
    service.wait(shadow)
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)
