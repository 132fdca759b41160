"""Programs of the host that look at a volume for us. The nursery runs them.

A process that has volumes open must not start a program. The new process would begin by closing the
descriptors that it has inherited, and that hangs while one of the volumes does not answer.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

NAME: Final = "iifuse-nursery"
"""The name of the process that runs the programs, as ps(1) shows it."""
GONE: Final = (
    "this process of the service has ended; without it the service can neither look at new volumes "
    "nor sync open files for a point in time"
)
RESTART: Final = "stop the service and start it again when it suits; it serves all files until then"


class ProgramOutput(msgspec.Struct, frozen=True):
    """The exit code of a program, and what it has written to its output and error streams."""

    code: int
    out: bytes = b""
    err: bytes = b""


class Programs(Protocol):
    """The object that runs programs."""

    @property
    def is_there(self) -> bool:
        """Can programs still be run?"""

    def ask(self, words: Sequence[str], fd: int, path: str, limit_s: float) -> ProgramOutput:
        """Run a program with these words and, as its last word, a name for the open volume `fd`.

        Blocks for at most `limit_s` seconds. Raises OSError with `path` (FileNotFoundError if there
        is no such program), or ServiceError.
        """
