"""Runs the service in the background: the command returns when the mount is ready (`--daemon`).

The service is started again as a program of its own. It says with sd_notify(3) that it is ready, as
it does to systemd. Until then its standard error is the terminal, for errors of the start.
"""

import os
import select
import socket
import subprocess
import sys
import tempfile
from typing import Final

_DETACHED: Final = "IIFUSE_DETACHED"
"""The environment variable that tells the service that it was started by `start`."""


def is_detached() -> bool:
    """Was this process started by `start`? The variable is removed, for the process's children."""
    return os.environ.pop(_DETACHED, None) is not None


def start() -> int:
    """Start this program again in the background. Returns 0, or its exit code if it fails."""
    with tempfile.TemporaryDirectory(prefix="iifuse-") as folder:
        path = os.path.join(folder, "ready")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(path)
            service = subprocess.Popen(  # noqa: S603 - it is this program
                [sys.executable, *sys.argv],
                env={**os.environ, "NOTIFY_SOCKET": path, _DETACHED: "1"},
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            return _await(service, ready)


def _await(service: subprocess.Popen[bytes], ready: socket.socket) -> int:
    end = os.pidfd_open(service.pid)
    try:
        while True:
            heard = select.select([ready.fileno(), end], [], [])[0]
            if ready.fileno() in heard and b"READY=1" in ready.recv(4096):
                service.returncode = 0  # so that Popen does not warn of a process that still runs
                return 0
            if end in heard:
                code = service.wait()
                return code if code > 0 else 2
    finally:
        os.close(end)


def let_go() -> None:
    """Give up the terminal and the socket of the process that has waited. The service is ready."""
    os.environ.pop("NOTIFY_SOCKET", None)
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
