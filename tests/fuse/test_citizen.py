"""Terminals that close, signals that come twice, sockets that vanish: the service goes on (K14)."""

import os
import signal
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from devices import eventually, opened
from hang import unmount
from harness import BIN, Service


@pytest.fixture
def on_mount(service, volume):
    """A file of the mount."""
    path = volume("v")
    assert service.run("svadm", "-e", path).returncode == 0
    return service.path(path)


def answers(service):
    return service.run("svadm", "-i").returncode == 0


@pytest.mark.finding("K14.2")
def test_terminal_that_closes_does_not_end_the_service(service, on_mount):
    for _ in range(3):
        os.kill(service.pid, signal.SIGHUP)
    eventually(lambda: "SIGHUP" in service.log.read_text(), "it says so")
    assert on_mount.read_bytes()
    assert service.stop() == 0


@pytest.mark.finding("K14.3")
@pytest.mark.parametrize("instead", ["nothing", "a file", "a directory"])
def test_socket_that_was_removed_keeps_no_service_from_its_end(service, on_mount, instead):
    service.socket.unlink()
    if instead == "a file":
        service.socket.write_text("mine")
    elif instead == "a directory":
        service.socket.mkdir()
    assert service.stop() == 0
    assert "Traceback" not in service.log.read_text()
    assert instead != "a file" or service.socket.read_text() == "mine"


@pytest.mark.finding("K14.3")
def test_socket_that_was_removed_is_made_anew(service, on_mount):
    for number in range(1, 3):
        service.socket.unlink()
        eventually(lambda: answers(service), "the service answers again")
        assert service.said().count("is made again") == number
    assert service.socket.stat().st_mode & 0o777 == 0o600
    assert service.stop() == 0
    assert not service.socket.exists()


@pytest.mark.finding("K14.3")
def test_socket_of_another_service_is_not_taken_away(service, new_service, on_mount):
    """It was given the same name, which was free for a moment."""
    other = new_service("other", "stop_wait=2")
    service.socket.unlink()
    os.rename(other.socket, service.socket)
    assert service.stop() == 0
    assert service.socket.exists()


@pytest.mark.finding("K14.4")
def test_second_signal_ends_the_wait_for_open_files_in_order(new_service, volume):
    service = new_service("app", "stop_wait=100")
    path = volume("v")
    assert service.run("svadm", "-e", path).returncode == 0
    with opened(service.path(path)) as fd:
        os.pwrite(fd, b"synced", 0)
        os.fsync(fd)
        os.kill(service.pid, signal.SIGTERM)
        eventually(lambda: "waiting up to" in service.log.read_text(), "it waits")
        assert service.stop() == 3
    assert path.read_bytes()[:6] == b"synced"


@pytest.mark.finding("K14.4")
def test_signals_by_the_dozen_end_the_service_once_and_in_order(service, on_mount):
    for number in range(12):
        os.kill(service.pid, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3])
    code = None
    while code is None:  # until its process has gone
        os.kill(service.pid, signal.SIGTERM)
        code = service.process.poll()
    assert service.wait_for_end(10) == 0
    assert "Traceback" not in service.log.read_text()


@pytest.mark.finding("K14.6")
def test_mount_point_inside_another_services_mount_is_refused(service, on_mount, place):
    second = Service(place, "second")
    second.mountpoint = on_mount.parent
    done = subprocess.run(second.command(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "inside the mount of another service" in done.stderr
    assert on_mount.read_bytes()


@pytest.mark.finding("K14.6")
def test_what_a_mount_hides_is_told(place):
    service = Service(place, "app", ("stop_wait=2",))
    (service.mountpoint / "file").write_text("mine")
    try:
        service.start()
        assert "is not empty" in service.log.read_text()
        assert service.stop() == 0
        assert (service.mountpoint / "file").read_text() == "mine"
    finally:
        service.clean_up()


# -- in the background ------------------------------------------------------------------------


@pytest.fixture
def daemon(place):
    """Run `iifuse --daemon`; what has come up is ended."""
    (place / "mnt").mkdir()

    def start(*words, mountpoint=place / "mnt"):
        paths = ["--state", place / "state", "--socket", place / "s"]
        return subprocess.run(
            [BIN / "iifuse", "--daemon", *paths, *words, mountpoint],
            capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip

    yield start
    if pid := pid_of(place / "s"):
        os.kill(pid, signal.SIGKILL)
    unmount(f"{place}/")


def pid_of(path):
    """Who listens at a socket; 0: nobody."""
    with socket.socket(socket.AF_UNIX) as client:
        if client.connect_ex(str(path)):
            return 0
        peer = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        return struct.unpack("3i", peer)[0]


def test_daemon_returns_when_its_mount_is_ready_and_holds_no_terminal(daemon, place, volume):
    done = daemon("--log", place / "log")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pid = pid_of(place / "s")
    assert {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)} == {os.devnull}
    assert os.readlink(f"/proc/{pid}/cwd") == "/"
    assert os.getsid(pid) == pid
    assert "ready at" in (place / "log").read_text()
    os.rename(place / "log", place / "log.1")  # as logrotate does
    os.kill(pid, signal.SIGHUP)
    eventually((place / "log").exists, "a new log")
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), "its end")
    assert not os.path.ismount(place / "mnt")


@pytest.mark.skipif(os.path.exists("/dev/log"), reason="this machine has a syslog")
def test_daemon_without_a_syslog_logs_into_its_state_directory(daemon, place):
    """As in a container: no traceback for each line, and the terminal is told where they go."""
    done = daemon()
    assert done.returncode == 0
    assert done.stderr == f"iifuse: there is no /dev/log: the log goes to {place}/state/log\n"
    assert "ready at" in (place / "state" / "log").read_text()


def test_daemon_that_is_told_to_use_a_syslog_that_is_not_there_says_so(daemon):
    if os.path.exists("/dev/log"):
        pytest.skip("this machine has a syslog")
    done = daemon("--log", "syslog")
    assert (done.returncode, done.stdout) == (2, "")
    assert "/dev/log" in done.stderr


def test_daemon_that_cannot_start_says_why_to_whoever_started_it(daemon, place):
    done = daemon("--log", place / "log", mountpoint=place / "none")
    assert done.returncode == 2
    assert "mkdir -p" in done.stderr
    done = daemon("--log", place / "none" / "log")
    assert done.returncode == 2
    assert "--log" in done.stderr
    assert not (place / "s").exists()
