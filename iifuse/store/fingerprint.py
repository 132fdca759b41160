"""The fingerprint of an exported shadow: checksums of some of its chunks.

By it the shadow of a ticket is told from another volume of the same size. Some chunks are always
used: the first ones and the last, where file systems keep their UUID, and some in between. The
others are drawn anew for each export. Holes are left out of the draw, because empty chunks are the
same in every volume.
"""

from hashlib import blake2b
from random import Random
from typing import Final

from iifuse.core.geometry import CHUNK_BYTES, Geometry
from iifuse.core.ticket import Fingerprint
from iifuse.store.volume import Volume

_FIRST: Final = 3
_SPREAD: Final = 12
_DRAWN: Final = 48


def take(volume: Volume, size_bytes: int, seed: str) -> Fingerprint:
    """Make the fingerprint of the first `size_bytes` bytes of a volume. Blocks; raises OSError.

    `seed` decides which chunks are drawn.
    """
    count = Geometry(size_bytes).chunks
    chunks = {*range(min(_FIRST, count)), count - 1}
    chunks |= {count * part // _SPREAD for part in range(_SPREAD)}
    draw = Random(seed)  # noqa: S311 - this is no secret: nobody gains by forging a shadow
    for _ in range(_DRAWN):
        at = draw.randrange(count)
        start, end = volume.data_from(at * CHUNK_BYTES, size_bytes)
        chunks.add(start // CHUNK_BYTES if start < end else at)
    return {chunk: _checksum(volume, chunk, size_bytes) for chunk in sorted(chunks)}


def differing(volume: Volume, size_bytes: int, prints: Fingerprint) -> set[int]:
    """The chunks of a volume that differ from a fingerprint. Blocks; raises OSError."""
    return {at for at, sum_ in prints.items() if _checksum(volume, at, size_bytes) != sum_}


def telling(prints: Fingerprint, size_bytes: int) -> set[int]:
    """The chunks of a fingerprint that are not all zeros. Only these can identify a volume."""
    return {at for at, sum_ in prints.items() if sum_ != _of(bytes(_length(at, size_bytes)))}


def _checksum(volume: Volume, chunk: int, size_bytes: int) -> str:
    return _of(volume.read(chunk * CHUNK_BYTES, _length(chunk, size_bytes)))


def _length(chunk: int, size_bytes: int) -> int:
    return min(CHUNK_BYTES, size_bytes - chunk * CHUNK_BYTES)


def _of(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
