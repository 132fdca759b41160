"""Handles standard streams that the caller has closed (`>&-`)."""

import os
from contextlib import suppress


def hold_places() -> None:
    """Open /dev/null in the place of each standard stream that is closed.

    Otherwise a volume could be opened as descriptor 2, and a library that writes a message to
    standard error would write into the volume. Python still has None for such a stream.
    """
    for number in (0, 1, 2):
        with suppress(OSError):
            os.fstat(number)
            continue
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest free number
