"""The fingerprint of a lent shadow: checksums of some of its chunks.

It tells the shadow of a ticket from another one of the same size. Some chunks are always the same:
the first ones and the last, where file systems keep their UUID, and some in between. The others are
drawn for each export, and holes are passed over, because empty chunks are alike everywhere.
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
    """Of the first `size_bytes` of a volume. Blocks; raises OSError."""
    count = Geometry(size_bytes).chunks
    chunks = {*range(min(_FIRST, count)), count - 1}
    chunks |= {count * part // _SPREAD for part in range(_SPREAD)}
    draw = Random(seed)  # noqa: S311 - not secret: nobody gains by forging a shadow
    for _ in range(_DRAWN):
        at = draw.randrange(count)
        start, end = volume.data_from(at * CHUNK_BYTES, size_bytes)
        chunks.add(start // CHUNK_BYTES if start < end else at)
    return {chunk: _checksum(volume, chunk, size_bytes) for chunk in sorted(chunks)}


def differing(volume: Volume, size_bytes: int, prints: Fingerprint) -> set[int]:
    """The chunks that do not fit. Blocks; raises OSError."""
    return {at for at, sum_ in prints.items() if _checksum(volume, at, size_bytes) != sum_}


def telling(prints: Fingerprint, size_bytes: int) -> set[int]:
    """The chunks of which a fit is worth something: those that are not all zeros."""
    return {at for at, sum_ in prints.items() if sum_ != _of(bytes(_length(at, size_bytes)))}


def _checksum(volume: Volume, chunk: int, size_bytes: int) -> str:
    return _of(volume.read(chunk * CHUNK_BYTES, _length(chunk, size_bytes)))


def _length(chunk: int, size_bytes: int) -> int:
    return min(CHUNK_BYTES, size_bytes - chunk * CHUNK_BYTES)


def _of(data: bytes) -> str:
    return blake2b(data, digest_size=8).hexdigest()
