"""Failures that no error code tells of: dead locks, a stalled disk, memory, defects, clocks."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from devices import opened, refuses
from hang import PATIENCE_SECONDS
from harness import CHUNK

CHUNKS = 40
SIZE = CHUNKS * CHUNK


@pytest.fixture
def planted(place, monkeypatch):
    """Run services with some Python of ours in them; what it finds at `trigger` tells it when."""

    def plant(code):
        directory = place / "planted"
        directory.mkdir()
        head = f"import os\nTRIGGER = {str(place / 'trigger')!r}\n"
        (directory / "sitecustomize.py").write_text(head + code)
        monkeypatch.setenv("PYTHONPATH", str(directory))
        return place / "trigger"

    return plant


# -- locks ------------------------------------------------------------------------------------


def test_nothing_of_a_dead_service_locks_anybody_out(service, new_service, volume, place):
    """F19: kernel locks die with the process; its socket, mount and state stop no start."""
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    second = new_service("second")
    assert second.run("svadm", "-e", master).returncode == 2
    service.kill()
    assert second.run("svadm", "-e", master).returncode == 0
    assert second.run("svadm", "-d", master).returncode == 0
    assert service.socket.exists()
    service.start()
    assert service.read(shadow) == service.read(master)


# -- a disk that stalls -----------------------------------------------------------------------


def thaw(directory):
    subprocess.run(["fsfreeze", "-u", directory], capture_output=True, check=False)


@pytest.fixture
def slow(service, volume, attach, mounted):
    """A file system that can be frozen. Before it goes, the service does."""
    image = volume("image", 16 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    directory = mounted(attach(image), "slow")
    yield directory
    thaw(directory)
    service.clean_up()


def test_stalled_shadow_blocks_its_writers_and_nothing_is_skipped(service, volume, place, slow):
    """F27: with no time limit a first touch waits, however long; what needs no shadow goes on."""
    master, shadow = volume("m", SIZE), slow / "s"
    service.enable("dep", master, shadow, place / "b")
    bystander = volume("other", SIZE)
    assert service.run("svadm", "-e", bystander).returncode == 0
    kept = service.read(shadow)
    writer = threading.Thread(target=service.write, args=(master, 9 * CHUNK, b"waits"))
    watchdog = threading.Timer(PATIENCE_SECONDS, thaw, (slow,))  # hanging ends
    subprocess.run(["fsfreeze", "-f", slow], check=True)
    try:
        watchdog.start()
        writer.start()
        service.write(bystander, 0, b"goes on")
        writer.join(2)
        assert writer.is_alive(), "the shadow could not be written, but the write was done"
        assert master.read_bytes() == kept
        with opened(service.path(master), os.O_RDONLY) as fd:
            assert os.pread(fd, 4096, 20 * CHUNK) == kept[20 * CHUNK :][:4096]
        assert service.status(shadow).offline == ()
    finally:
        watchdog.cancel()
        thaw(slow)
        writer.join(60)
    assert not writer.is_alive()
    assert service.read(master)[9 * CHUNK :][:5] == b"waits"
    assert service.read(shadow) == kept


def fio(path, depth, size):
    """Asynchronous first touches, so many at a time."""
    return [
        "fio", "--name=x", f"--filename={path}", "--rw=write", "--bs=32k", f"--size={size}",
        "--ioengine=libaio", "--direct=1", f"--iodepth={depth}", "--allow_file_create=0",
    ]  # fmt: skip


def test_as_many_requests_as_a_client_has_wait_for_a_stalled_shadow_and_others_go_on(
    service, volume, place, slow
):
    """F27: neither the kernel nor the service may run out of places for other volumes' requests."""
    depth = 100
    master, shadow = volume("m", depth * CHUNK), slow / "s"
    service.enable("dep", master, shadow, place / "b")
    bystander = volume("other", SIZE)
    service.enable("dep", bystander, place / "t")
    kept = service.read(shadow)
    watchdog = threading.Timer(PATIENCE_SECONDS, thaw, (slow,))
    subprocess.run(["fsfreeze", "-f", slow], check=True)
    client = subprocess.Popen(fio(service.path(master), depth, master.stat().st_size))
    try:
        watchdog.start()
        with pytest.raises(subprocess.TimeoutExpired):
            client.wait(2)
        subprocess.run(fio(service.path(bystander), 4, SIZE), check=True, timeout=PATIENCE_SECONDS)
        service.write(bystander, 0, b"goes on")
        assert client.poll() is None
    finally:
        watchdog.cancel()
        thaw(slow)
        assert client.wait(60) == 0
    assert service.read(shadow) == kept


WRITER = "import os, sys; os.pwrite(os.open(sys.argv[1], os.O_WRONLY), b'unseen', 9 * 32768)"


def test_client_killed_in_the_middle_of_its_write_leaves_it_whole_or_undone(
    service, volume, place, slow
):
    """F26: the write waits for a stalled shadow; what has begun is finished without the client."""
    master, shadow = volume("m", SIZE), slow / "s"
    service.enable("dep", master, shadow, place / "b")
    kept = service.read(shadow)
    watchdog = threading.Timer(PATIENCE_SECONDS, thaw, (slow,))
    subprocess.run(["fsfreeze", "-f", slow], check=True)
    with subprocess.Popen([sys.executable, "-c", WRITER, service.path(master)]) as client:
        try:
            watchdog.start()
            with pytest.raises(subprocess.TimeoutExpired):
                client.wait(3)
            client.kill()
        finally:
            watchdog.cancel()
            thaw(slow)
        assert client.wait(60) == -signal.SIGKILL
    written = service.read(master)
    assert written[9 * CHUNK :][:6] in (b"unseen", kept[9 * CHUNK :][:6])
    assert written[9 * CHUNK + 6 :] == kept[9 * CHUNK + 6 :]
    assert service.read(shadow) == kept
    service.write(master, 9 * CHUNK, b"later")
    assert service.read(shadow) == kept
    service.flip("s", shadow)
    assert service.read(shadow) == service.read(master)
    assert service.stop() == 0


# -- memory -----------------------------------------------------------------------------------


def test_memory_of_the_service_is_locked_and_in_no_core_file(service, volume):
    """F28: a page fault of its own could wait for its own mount; it holds other people's data."""
    service.run("svadm", "-e", volume("m", SIZE))
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{service.pid}/status").read_text().splitlines()
    )
    assert int(status["VmLck"].split()[0]) > 1024, "kB"
    assert int(status["VmSwap"].split()[0]) == 0
    assert os.stat(f"/proc/{service.pid}/io").st_uid == 0
    code = "import ctypes; print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    load = "from iifuse.service import _harden; from iifuse.loop.loop import Loop"
    harden = f"{load}; _harden(Loop()); {code}"
    done = subprocess.run(
        [sys.executable, "-c", harden], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["0"], "PR_GET_DUMPABLE"


# -- defects ----------------------------------------------------------------------------------

DEFECT = """
import iifuse.data.family, iifuse.data.view

def break_down(owner, name):
    real = getattr(owner, name)
    def broken(self, *words, **options):
        if os.path.exists(TRIGGER) and open(TRIGGER).read() == name:
            raise ZeroDivisionError("planted")
        return real(self, *words, **options)
    setattr(owner, name, broken)

break_down(iifuse.data.family.Family, "touch")
break_down(iifuse.data.view.ShadowView, "segments")
"""


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_defect_in_a_write_is_an_error_to_one_and_marks_the_set(
    planted, new_service, volume, place, kind
):
    """F29: EIO to that caller, the set suspect and so offline, the service alive; -R heals."""
    trigger = planted(DEFECT)
    service = new_service()
    master, shadow, bystander = volume("m", SIZE), place / "s", volume("other", SIZE)
    service.enable(kind, master, shadow)
    service.wait(shadow)
    assert service.run("svadm", "-e", bystander).returncode == 0
    with opened(service.path(master)) as fd:
        trigger.write_text("touch")
        refuses(errno.EIO, os.pwrite, fd, b"lost", 3 * CHUNK)
        trigger.unlink()
        assert os.pwrite(fd, b"fine", 4 * CHUNK) == 4
    service.write(bystander, 0, b"fine")
    status = service.status(shadow)
    assert status.offline == ("shadow",)
    assert "suspect" in status.offline_reason
    assert "ZeroDivisionError" in status.offline_reason
    assert "planted" in service.said()
    service.kill()
    service.start()
    assert service.status(shadow).offline == ("shadow",)
    assert service.run("iiadm", "-R", shadow).returncode == 0
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def test_defect_in_a_read_is_an_error_to_one_and_no_more(planted, new_service, volume, place):
    """F29: reading changes nothing, so nothing is suspect."""
    trigger = planted(DEFECT)
    service = new_service()
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("dep", master, shadow)
    trigger.write_text("segments")
    refuses(errno.EIO, service.read, shadow)
    assert service.read(master) == master.read_bytes()
    trigger.unlink()
    assert service.read(shadow) == master.read_bytes()
    assert service.status(shadow).offline == ()


# -- clocks -----------------------------------------------------------------------------------

CLOCK = """
import time
steps = iter(range(10**9))
WAYS = {
    "backwards": lambda real: real - next(steps) * 10**12,
    "still": lambda real: 1,
    "jumping": lambda real: (real * 7919) % (2 * 10**18),
}
REAL = time.time_ns
time.time_ns = lambda: WAYS[open(TRIGGER).read()](REAL())
time.time = lambda: time.time_ns() / 1e9
"""


@pytest.mark.sampled(1)
@pytest.mark.parametrize("way", ["backwards", "still", "jumping"])
def test_no_clock_decides_what_a_shadow_shows(planted, new_service, volume, place, way):
    """F30: points in time are counted; a clock that stands or jumps makes none of them wrong."""
    planted(CLOCK).write_text(way)
    service, other = new_service(), new_service("other")
    master, shadow, dependent = volume("m", SIZE), place / "s", place / "d"
    service.enable("ind", master, shadow)
    service.enable("dep", master, dependent)
    for number in range(2, 6):
        for path in (shadow, dependent):
            service.read(path)  # into the kernel's cache
        service.write(master, number * CHUNK, b"night %d" % number)
        live = service.read(master)
        service.wait(shadow)
        statuses = service.flip("s", shadow, dependent)
        assert [status.pit for status in statuses] == [number, number]
        service.write(master, number * CHUNK, b"later")
        assert service.read(shadow) == service.read(dependent) == live
        if number == 3:
            service.kill()
            service.start()
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    assert other.run("iiadm", "-I", shadow, place / "b").returncode == 0
    other.write(shadow, 30 * CHUNK, b"over there")
    other.disable(shadow)
    assert service.run("iiadm", "-J", shadow, place / "b").returncode == 0
    service.restart()
    assert service.run("iiresync", shadow).returncode == 0
    assert service.read(shadow) == service.read(master)
    assert service.status(shadow).pit == 6
