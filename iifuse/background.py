"""The service in the background: the command returns when the mount is ready (`--daemon`).

The service is started anew as a program of its own and says by sd_notify(3) that it is ready, as it
says to systemd. Until then it has the terminal's standard error, for what goes wrong at the start.
"""

import os
import select
import socket
import subprocess
import sys
import tempfile
from typing import Final

_DETACHED: Final = "IIFUSE_DETACHED"
"""The variable by which the service is told that it was started so."""


def is_detached() -> bool:
    """Was this process started by `start`? Asked once: its children are not."""
    return os.environ.pop(_DETACHED, None) is not None


def start() -> int:
    """Start the program's own command line in the background; its exit code if it fails."""
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
                service.returncode = 0  # it goes on without us
                return 0
            if end in heard:
                code = service.wait()
                return code if code > 0 else 2
    finally:
        os.close(end)


def let_go() -> None:
    """The service is ready: it holds the terminal, and the way to whoever waited, no longer."""
    os.environ.pop("NOTIFY_SOCKET", None)
    os.chdir("/")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.close(nowhere)
