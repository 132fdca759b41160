"""A program that keeps its data on raw volumes: writes records of all sizes at any offset.

    rawwriter.py VOLUME...

Ends between two writes on SIGTERM.
"""

# ruff: noqa: S311  # chance, not secrets

import os
import random
import signal
import sys
import time

HOT = 0.15
"""The part of a volume in which it writes."""
PAUSE_S = 0.002


def write_record(volume: int, size_bytes: int) -> None:
    """Some random bytes in the hot part, or (one time in 50) at the very end."""
    record = os.urandom(random.choice((512, 4096, 5000, 40_000)))
    if random.randrange(50):
        offset = random.randrange(int(size_bytes * HOT))
    else:
        offset = size_bytes - len(record)
    os.pwrite(volume, record, offset)
    if not random.randrange(20):
        os.fdatasync(volume)


def main() -> None:
    """The program."""
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    volumes = [os.open(path, os.O_RDWR) for path in sys.argv[1:]]
    sizes = {volume: os.lseek(volume, 0, os.SEEK_END) for volume in volumes}
    while not stopped:
        volume = random.choice(volumes)
        write_record(volume, sizes[volume])
        time.sleep(PAUSE_S)


if __name__ == "__main__":
    main()
