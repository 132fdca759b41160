"""The real service under strace."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devices import eventually
from fs_trace import tracer
from harness import Service

_RESERVED_BYTE = 0x40000001
"""Whoever writes to an SQLite file has locked this."""
PLANTED = Path(__file__).with_name("fs_bugs.py")


class Traced(Service):
    """A service whose calls are written down, perhaps with a planted bug."""

    bug: str | None = None
    starts = 0

    def command(self) -> list[str]:
        self.starts += 1
        command = super().command()
        if self.bug is not None:
            command = [sys.executable, str(PLANTED), self.bug, *command[1:]]
        return [*tracer(str(self.home / f"calls-{self.starts}")), *command]

    @contextmanager
    def no_transaction(self) -> Iterator[None]:
        """Nothing is written to the state database meanwhile: we have SQLite's lock for that.

        Nobody's file is rolled back by that, as it would be by a connection. And a service that is
        killed then leaves no write that the log does not have.
        """
        fd = os.open(self.state / "state.db", os.O_RDWR)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX, 1, _RESERVED_BYTE)
            yield
        finally:
            os.close(fd)

    def logs(self) -> Iterator[str]:
        """The logs of all its lives, each whole: the process is dead."""
        for number in range(1, self.starts + 1):
            yield whole_log(self.home / f"calls-{number}")


def whole_log(log: Path) -> str:
    eventually(lambda: _is_whole(log), "a whole trace")
    return log.read_text(encoding="latin-1")


def _is_whole(log: Path) -> bool:
    last = log.read_bytes().rstrip(b"\n").rpartition(b"\n")[2]
    return last.endswith(b"+++")
