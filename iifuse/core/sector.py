"""The 512-byte sectors in which a bitmap lies on disk; specified in iifuse-bitmap(5).

508 bytes of bits, then CRC-32 (little-endian) over set UUID, region, sector number and the bits.
The disk keeps or loses a sector as a whole, so a wrong CRC means damage, never an honest crash,
and a sector of another set, region or place is never believed.
"""

import struct
import zlib
from collections.abc import Callable
from enum import IntEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from iifuse.core.bitmap import SECTOR_BIT_BYTES, Packed, sectors_for, words_of

SECTOR_BYTES: Final = 512
HEADER_REGION_BYTES: Final = 24 * 1024
"""The shadow bitmap begins here; the copy bitmap follows it."""

_PLACE: Final = struct.Struct("<BQ")
_CRC: Final = struct.Struct("<I")
_FEW: Final = 8
"""Up to so many rows are encoded faster one by one."""

Numbers = npt.NDArray[np.int64]
"""shape (rows,): numbers of sectors."""

Sums = npt.NDArray[np.uint32]


class Region(IntEnum):
    """Which of the two bitmaps a sector belongs to."""

    SHADOW = 1
    COPY = 2


def region_offset(region: Region, chunks: int) -> int:
    """Bytes from the start of the bitmap volume to the first sector of a region."""
    skip = 0 if region is Region.SHADOW else sectors_for(chunks) * SECTOR_BYTES
    return HEADER_REGION_BYTES + skip


def bitmap_bytes(chunks: int) -> int:
    """Bytes that a bitmap volume needs for `chunks` chunks."""
    return HEADER_REGION_BYTES + 2 * sectors_for(chunks) * SECTOR_BYTES


def encode(uuid: bytes, region: Region, first: int, bits: Packed) -> bytes:
    """Sectors for rows of packed bits, the first of them being sector number `first`."""
    if len(bits) > _FEW:
        return encode_rows(uuid, region, np.arange(first, first + len(bits)), bits).tobytes()
    begin, blob = zlib.crc32(uuid), bits.tobytes()
    parts: list[bytes] = []
    for number, at in enumerate(range(0, len(blob), SECTOR_BIT_BYTES), first):
        part = blob[at : at + SECTOR_BIT_BYTES]
        place = zlib.crc32(_PLACE.pack(region, number), begin)
        parts += (part, _CRC.pack(zlib.crc32(part, place)))
    return b"".join(parts)


def encode_rows(uuid: bytes, region: Region, numbers: Numbers, bits: Packed) -> Packed:
    """Sectors for rows of packed bits, each with its own number; shape (rows, 512), uint8."""
    sectors = np.empty((len(bits), SECTOR_BYTES), np.uint8)
    sectors[:, :SECTOR_BIT_BYTES] = bits
    sectors.view("<u4")[:, -1] = _checksums(uuid, region, numbers, bits)
    return sectors


def decode(uuid: bytes, region: Region, first: int, blob: bytes) -> tuple[Packed, list[int]]:
    """(packed bits, numbers of the damaged sectors); damaged rows come back as zeros."""
    rows = np.frombuffer(blob, np.uint8).reshape(-1, SECTOR_BYTES)
    bits = rows[:, :SECTOR_BIT_BYTES].copy()
    sums = _checksums(uuid, region, np.arange(first, first + len(bits)), bits)
    wrong = np.flatnonzero(rows.view("<u4")[:, -1] != sums)
    bits[wrong] = 0
    return bits, [first + row for row in wrong.tolist()]


# -- checksums of many rows -----------------------------------------------------------------
#
# CRC-32 is linear: crc(data, start) == crc(data, 0) ^ shift(start), and shift() is an XOR of one
# table entry for each byte of `start`. So what differs from row to row, its number, needs no loop,
# and a row of zeros or of ones, which most are, needs no look at its bytes.


def _checksums(uuid: bytes, region: Region, numbers: Numbers, bits: Packed) -> Sums:
    places = _look_up(_OF_NUMBER, numbers.astype("<u8"))
    places ^= np.uint32(zlib.crc32(_PLACE.pack(region, 0), zlib.crc32(uuid)))
    return _look_up(_OF_START, places.astype("<u4")) ^ _plain(bits)


def _look_up(tables: Sums, values: npt.NDArray[Any]) -> Sums:
    """XOR over the bytes of each value, the lowest first, of that byte's entry in its table."""
    by_byte = values.view(np.uint8).reshape(len(values), len(tables))
    found = np.zeros(len(values), np.uint32)
    for place, table in enumerate(tables):
        found ^= table[by_byte[:, place]]
    return found


def _plain(bits: Packed) -> Sums:
    """CRC-32 of each row by itself."""
    words = words_of(bits)
    some, every = np.bitwise_or.reduce(words, axis=1), np.bitwise_and.reduce(words, axis=1)
    full = every == _ONES
    found = np.where(full, np.uint32(zlib.crc32(b"\xff" * SECTOR_BIT_BYTES)), _CRC_OF_ZEROS)
    mixed = np.flatnonzero((some != 0) & ~full)
    found[mixed] = [zlib.crc32(bits[row]) for row in mixed.tolist()]
    return found


def _tables(length: int, crc: Callable[[int], int]) -> Sums:
    """What each byte adds to `crc` of an integer: shape (length, 256), dtype uint32."""
    nothing = crc(0)
    entries = [[crc(b << 8 * place) ^ nothing for b in range(256)] for place in range(length)]
    return np.array(entries, np.uint32)


_ONES: Final = np.uint32(0xFFFFFFFF)
_CRC_OF_ZEROS: Final = np.uint32(zlib.crc32(bytes(SECTOR_BIT_BYTES)))
_OF_NUMBER: Final = _tables(8, lambda number: zlib.crc32(_PLACE.pack(0, number)))
_OF_START: Final = _tables(4, lambda start: zlib.crc32(bytes(SECTOR_BIT_BYTES), start))
