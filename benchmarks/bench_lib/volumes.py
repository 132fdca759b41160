"""Volumes of a content that no two of their blocks share, and what the page cache has of them."""

import os
from pathlib import Path

import numpy as np

from .place import MIB


def fill_alike(path: Path, size: int, seed: int = 1) -> Path:
    """A volume that nothing in it repeats; of the same bytes in every call with this seed."""
    rng = np.random.default_rng(seed)
    with open(path, "wb") as file:
        file.writelines(rng.bytes(min(MIB, size - at)) for at in range(0, size, MIB))
    return path


def cool(path: Path) -> None:
    """Make a file durable and drop it from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def warm(path: Path) -> None:
    """Bring all of a file into the page cache, as far as memory suffices."""
    with open(path, "rb", buffering=0) as file:
        buffer = bytearray(MIB)
        while file.readinto(buffer):
            pass
