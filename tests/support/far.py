"""A volume that lies far away, on a file server that answers when the test says so."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import file_server
from hang import PATIENCE_SECONDS


class Far:
    """The file server: its files are in `directory`, and seen below `mountpoint`.

    `held`: set once a request has come that is not answered.
    """

    def __init__(self, root: Path) -> None:
        self.directory, self.mountpoint = root / "far/fs", root / "far/mnt"
        self.directory.mkdir(parents=True)
        self.mountpoint.mkdir()
        program = [sys.executable, file_server.__file__, str(self.directory), str(self.mountpoint)]
        self.process = subprocess.Popen(
            program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "ready\n"
        self.held, self._obeyed = threading.Event(), threading.Semaphore(0)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            if line.startswith("held"):
                self.held.set()
            else:
                self._obeyed.release()

    def _order(self, what: str) -> None:
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._obeyed.acquire(timeout=PATIENCE_SECONDS)

    def hold(self, *operations: str) -> None:
        self.held.clear()
        for operation in operations:
            self._order(f"hold {operation}")

    def freeze(self) -> None:
        """It answers nothing at all."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def go(self) -> None:
        self._order("go")

    def file(self, name: str, content: bytes) -> Path:
        (self.directory / name).write_bytes(content)
        return self.mountpoint / name

    def end(self) -> None:
        """After all that has its files open."""
        self.thaw()
        with contextlib.suppress(OSError, AssertionError):
            self.go()
        subprocess.run(["umount", "-l", self.mountpoint], check=False)
        self.process.terminate()
        self.process.wait(30)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def forget(path: Path | str) -> None:
    """Else the kernel would answer for the server."""
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


@contextlib.contextmanager
def far(root: Path) -> Iterator[Far]:
    """One that runs."""
    server = Far(root)
    try:
        yield server
    finally:
        server.end()
