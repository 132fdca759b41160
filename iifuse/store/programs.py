"""Programs of the host that look at a volume for us. They are run by somebody else.

Whoever has volumes open starts none: a new process begins by closing what it has inherited, and
does not come to its end while one of those volumes does not answer.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

NAME: Final = "iifuse-nursery"
"""What ps(1) calls the process that runs them."""
GONE: Final = (
    "this process of the service has ended, without which it can neither look at volumes that come "
    "in nor sync open files for a point in time"
)
RESTART: Final = "stop the service and start it again when it suits; it serves all files until then"


class ProgramOutput(msgspec.Struct, frozen=True):
    """What a program has said, and its exit code."""

    code: int
    out: bytes = b""
    err: bytes = b""


class Programs(Protocol):
    """Whoever can run them."""

    @property
    def is_there(self) -> bool:
        """Can they still be run?"""

    def ask(self, words: Sequence[str], fd: int, path: str, limit_s: float) -> ProgramOutput:
        """Let a program look at the open volume `fd`, whose name comes after the words.

        Blocks for `limit_s` seconds at most, and names `path` when it fails. Raises OSError
        (FileNotFoundError: there is no such program) or ServiceError.
        """
