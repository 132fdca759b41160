"""What volumes hold, chunk by chunk: found out by reading them, without asking the service."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt

CHUNK_BYTES: Final = 32 * 1024
PART_BYTES: Final = 4 * 1024 * 1024
THREADS: Final = 2

Image = npt.NDArray[np.uint64]
"""A volume at one instant: the 128-bit digest of each chunk, shape (chunks, 2)."""
ChunkSet = npt.NDArray[np.bool_]
"""Some chunks of a volume: shape (chunks,)."""


def count(size_bytes: int) -> int:
    """Chunks of a volume, the partial last one included."""
    return -(-size_bytes // CHUNK_BYTES)


def bitmap_bytes(size_bytes: int) -> int:
    """Size of the bitmap volume: header region, two bitmaps in sectors of 4,064 chunks."""
    return 24 * 1024 + 2 * 512 * -(-count(size_bytes) // 4064)


def image(path: str) -> Image:
    """What a volume holds now."""

    def part(volume: int, offset: int) -> bytes:
        data = memoryview(os.pread(volume, PART_BYTES, offset))
        return b"".join(blake2b(one, digest_size=16).digest() for one in _cut(data))

    with ExitStack() as files:
        volume = _open(files, path)
        digests = b"".join(_in_parts(path, lambda offset: part(volume, offset)))
    return np.frombuffer(digests, np.uint64).reshape(-1, 2)


def changed(before: Image, after: Image) -> ChunkSet:
    """The chunks in which two images differ."""
    result: ChunkSet = (before != after).any(axis=1)
    return result


def differing(path: str, other: str) -> ChunkSet:
    """The chunks in which two volumes differ, compared byte for byte; `path` says the size."""

    def part(volumes: tuple[int, int], offset: int) -> bytes:
        one, two = (os.pread(volume, PART_BYTES, offset) for volume in volumes)
        if one == two:
            return bytes(count(len(one)))
        pairs = zip(_cut(memoryview(one)), _cut(memoryview(two)), strict=False)
        return bytes(a != b for a, b in pairs)

    with ExitStack() as files:
        volumes = _open(files, path), _open(files, other)
        marks = b"".join(_in_parts(path, lambda offset: part(volumes, offset)))
    return np.frombuffer(marks, np.bool_)


def _in_parts(path: str, part: Callable[[int], bytes]) -> Iterator[bytes]:
    """Answers of `part` for all offsets, in their order, found by some threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        yield from threads.map(part, range(0, os.stat(path).st_size, PART_BYTES))


def _open(files: ExitStack, path: str) -> int:
    volume = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    files.callback(os.close, volume)
    return volume


def _cut(data: memoryview) -> Iterator[memoryview]:
    for offset in range(0, len(data), CHUNK_BYTES):
        yield data[offset : offset + CHUNK_BYTES]
