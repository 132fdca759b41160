"""A run in namespaces of its own: whatever ends it, no process, mount or directory stays behind.

The program starts itself again below unshare(1) and stays outside, to remove the directory. The
kernel ends every process inside when the first of them ends, and every mount with the last. A
directory that even the one outside could not remove, being killed, is removed by the next run.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PREFIX: Final = "iifuse-bench."
ROOT_VARIABLE: Final = "IIFUSE_BENCH_ROOT"
_CONTROL_VARIABLE: Final = "IIFUSE_BENCH_CONTROL"
_UNSHARE: Final = (
    "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip


def parent_directory() -> Path:
    """Where directories on disk are made: TMPDIR, or /var/tmp, which is seldom in memory."""
    return Path(os.environ.get("TMPDIR", "/var/tmp"))  # noqa: S108


def is_inside() -> bool:
    """Is this the process that measures?"""
    return _CONTROL_VARIABLE in os.environ


def outside() -> int:
    """Start this program again inside, and wait for it; its exit code."""
    with _root() as root:
        control, orders = os.pipe()
        environment = {ROOT_VARIABLE: str(root), _CONTROL_VARIABLE: str(control)}
        process = subprocess.Popen(  # noqa: S603
            [*_UNSHARE, sys.executable, *sys.argv],
            env=os.environ | environment, pass_fds=[control], start_new_session=True,
        )  # fmt: skip
        os.close(control)
        _pass_on_signals(process, orders)
        code = process.wait()
    return code if code >= 0 else 128 - code


def _pass_on_signals(process: subprocess.Popen[bytes], orders: int) -> None:
    """One interrupt ends the run in order; a second one, or another signal, at once."""
    interrupts = 0

    def handle(number: int, _frame: object) -> None:
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if number == signal.SIGINT and interrupts == 1:
            os.write(orders, b"!")
        else:
            process.kill()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def obey() -> None:
    """Inside: from now on the one outside can interrupt the run, and its death ends it."""
    control = int(os.environ[_CONTROL_VARIABLE])
    os.set_inheritable(control, False)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    main = threading.get_ident()

    def listen() -> None:
        while os.read(control, 1):
            signal.pthread_kill(main, signal.SIGINT)
        os._exit(128 + signal.SIGKILL)

    threading.Thread(target=listen, daemon=True).start()


@contextmanager
def _root() -> Iterator[Path]:
    """A directory that the next run knows as one in use."""
    _remove_abandoned()
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent_directory()))
    root.chmod(0o755)  # PostgreSQL's user has to get through
    try:
        with _locked(root):
            yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether the lock could be had; it is held until the end."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def _remove_abandoned() -> None:
    for directory in parent_directory().glob(f"{PREFIX}*"):
        with _locked(directory) as had:
            if had:
                shutil.rmtree(directory, ignore_errors=True)
