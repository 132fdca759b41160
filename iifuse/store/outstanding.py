"""Which descriptors the threads of this process wait with, by what the kernel says of them."""

import os
from contextlib import suppress
from typing import Final

_DESCRIPTORS: Final = (1, 2, 3)
"""The words of /proc/PID/task/TID/syscall that may be one: of most calls the first argument, of
sendfile the second too, of copy_file_range the third. A number that is one by chance costs an early
release."""


def descriptors() -> set[int]:
    """Those that a thread is inside a system call with, for ever perhaps."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):  # it has ended
            with open(f"/proc/self/task/{thread}/syscall") as file:
                words = file.read().split()
            found |= {int(words[n], 16) for n in _DESCRIPTORS if n < len(words)}
    return found
