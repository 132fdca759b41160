"""The programs without what it costs to load them: each start is a fork of a process that has.

A run of the tests starts the service a thousand times and the tools more often, and a third of a
second of each start is nothing but imports. Here one process for each process of the tests has
imported everything and forks for each start. What runs then is the program from its `main` on.
`make test-long` starts every program anew, and so does whoever cares for what comes before `main`:
limits, tracers, libraries that are loaded first, memory.
"""

import atexit
import ctypes
import functools
import gc
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, distribution
from pathlib import Path
from typing import BinaryIO

from hang import PREFIX
from samples import WHOLE

BIN = Path(sys.executable).parent


_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class Child:
    """A process of this one, as `subprocess.Popen` shows it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """Its exit code, or minus the signal that has ended it; None: it runs."""
        with self._lock:
            if self.returncode is None:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The same at its end; TimeoutExpired after so many seconds."""
        code = self.poll()
        if code is None:
            end, events = os.pidfd_open(self.pid), select.poll()
            events.register(end, select.POLLIN)
            try:
                events.poll(None if timeout is None else timeout * 1000)
            finally:
                os.close(end)
            code = self.poll()
        if code is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens to a process that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Loaded:
    """The process that has loaded the programs. It is made when it is first wanted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._owner = 0

    def start(self, words: list[str], env: dict[str, str], files: tuple[int, int, int]) -> Child:
        """One of the programs with these descriptors as its standard input, output and error."""
        order = json.dumps({"words": words, "env": env, "cwd": os.getcwd()}).encode()
        with self._lock:
            line = self._open()
            _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # what it forks becomes a child of ours
            try:
                socket.send_fds(line, [order], list(files))
                return Child(int(line.recv(64)))
            finally:
                _libc.prctl(_PR_SET_CHILD_SUBREAPER, 0)

    def _open(self) -> socket.socket:
        """A new one too where a fork has inherited ours, or where a hang has had all killed."""
        alive = self._process is not None and self._process.poll() is None
        if self._line is None or self._owner != os.getpid() or not alive:
            self._line, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._owner = os.getpid()
            with far:
                self._process = subprocess.Popen(
                    [sys.executable, __file__, str(far.fileno()), PREFIX],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[far.fileno()],
                )
        return self._line


LOADED = Loaded()


def may_fork(words: list[str], env: dict[str, str]) -> bool:
    """Is it a program of ours, and does nobody care how it is loaded?"""
    ours = Path(words[0]).parent == BIN and Path(words[0]).name in programs()
    return ours and _loading(env) == _LOADING and not WHOLE


def _loading(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that say how a program is loaded; for them a fork comes too late."""
    return {name: env[name] for name in env if name.startswith(("LD_", "PYTHON"))}


_LOADING = _loading(os.environ)


def run(words: list[str], env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """As subprocess.run does it, with captured text and no input."""
    with open(os.devnull) as nothing, _memory() as out, _memory() as err:
        child = LOADED.start(words, env, (nothing.fileno(), out.fileno(), err.fileno()))
        try:
            code = child.wait(timeout)
        finally:
            child.kill()
        return subprocess.CompletedProcess(words, code, *map(_text, (out, err)))


def _memory() -> BinaryIO:
    return open(os.memfd_create("said"), "w+b")


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return io.TextIOWrapper(file).read()  # with the universal newlines of subprocess


@functools.cache
def programs() -> dict[str, EntryPoint]:
    """By name: what an installation puts into its directory of programs."""
    return {entry.name: entry for entry in distribution("iifuse").entry_points}


# -- in the process that has loaded them -----------------------------------------------------


def _serve(line: socket.socket) -> Callable[[], int]:
    """Fork for each order; what returns here is a new process, with the `main` that it runs."""
    mains = {name: entry.load() for name, entry in programs().items()}
    gc.freeze()  # a collection in a fork copies no page of what is shared
    while True:
        order, files, _, _ = socket.recv_fds(line, 1 << 20, 3)
        if not order:
            os._exit(0)
        if _fork(line):
            for file in files:
                os.close(file)
            continue
        line.close()
        words = _become(files, **json.loads(order))
        return mains[Path(words[0]).name]


def _fork(line: socket.socket) -> int:
    """A process whose parent ends at once, so that it becomes a child of the tests."""
    told, tell = os.pipe()
    parent = os.fork()
    if not parent:
        grandchild = os.fork()
        if grandchild:
            os.write(tell, str(grandchild).encode())
            os._exit(0)
        os.close(told)
        os.close(tell)
        return 0
    os.waitpid(parent, 0)
    line.send(os.read(told, 64))
    os.close(told)
    os.close(tell)
    return parent


def _become(files: list[int], words: list[str], env: dict[str, str], cwd: str) -> list[str]:
    """What a new process of this command has of its own."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = words
    _libc.prctl(_PR_SET_NAME, Path(words[0]).name.encode())
    return words


def _run(main: Callable[[], int]) -> None:
    """Its end without the dismantling of all modules, which takes longer than most programs."""
    try:
        sys.exit(main())
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            raise  # a message
        threading._shutdown()  # type: ignore[attr-defined]  # waits for its threads
        atexit._run_exitfuncs()
        sys.stdout.flush()
        os._exit(end.code or 0)


if __name__ == "__main__":
    del sys.path[0]  # the modules of the tests are none of the program's
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
