"""Standard streams that somebody has closed (`>&-`)."""

import os
from contextlib import suppress


def hold_places() -> None:
    """Let nothing that is opened later take the number of a standard stream that is closed.

    A library that complains to number 2 would write into a volume. What Python thinks of the
    stream stays: `sys.stdout` is None.
    """
    for number in (0, 1, 2):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest that is free
