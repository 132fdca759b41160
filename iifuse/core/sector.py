"""The 512-byte sectors in which a bitmap lies on disk; specified in iifuse-bitmap(5).

508 bytes of bits, then CRC-32 (little-endian) over set UUID, region, sector number and the bits.
The disk keeps or loses a sector as a whole, so a wrong CRC means damage, never an honest crash,
and a sector of another set, region or place is never believed.
"""

import struct
import zlib
from enum import IntEnum
from typing import Final

import numpy as np

from iifuse.core.bitmap import SECTOR_BIT_BYTES, Packed, sectors_for

SECTOR_BYTES: Final = 512
HEADER_REGION_BYTES: Final = 24 * 1024
"""The shadow bitmap begins here; the copy bitmap follows it."""

_PLACE: Final = struct.Struct("<BQ")
_CRC: Final = struct.Struct("<I")


class Region(IntEnum):
    """Which of the two bitmaps a sector belongs to."""

    SHADOW = 1
    COPY = 2


def region_offset(region: Region, chunks: int) -> int:
    """Bytes from the start of the bitmap volume to the first sector of a region."""
    skip = 0 if region is Region.SHADOW else sectors_for(chunks) * SECTOR_BYTES
    return HEADER_REGION_BYTES + skip


def bitmap_bytes(chunks: int) -> int:
    """Bytes that a bitmap volume needs for `chunks` chunks (design, section 4)."""
    return HEADER_REGION_BYTES + 2 * sectors_for(chunks) * SECTOR_BYTES


def encode(uuid: bytes, region: Region, first: int, bits: Packed) -> bytes:
    """Sectors for rows of packed bits, the first of them being sector number `first`."""
    begin = zlib.crc32(uuid)
    parts: list[bytes] = []
    blob = bits.tobytes()
    for row in range(len(bits)):
        part = blob[row * SECTOR_BIT_BYTES : (row + 1) * SECTOR_BIT_BYTES]
        place = zlib.crc32(_PLACE.pack(region, first + row), begin)
        parts += (part, _CRC.pack(zlib.crc32(part, place)))
    return b"".join(parts)


def decode(uuid: bytes, region: Region, first: int, blob: bytes) -> tuple[Packed, list[int]]:
    """(packed bits, numbers of the damaged sectors); damaged rows come back as zeros."""
    rows = np.frombuffer(blob, np.uint8).reshape(-1, SECTOR_BYTES)
    bits = rows[:, :SECTOR_BIT_BYTES].copy()
    bad = []
    for row in range(len(bits)):
        (stored,) = _CRC.unpack_from(blob, row * SECTOR_BYTES + SECTOR_BIT_BYTES)
        if stored != _crc(uuid, region, first + row, bits[row].tobytes()):
            bad.append(first + row)
            bits[row] = 0
    return bits, bad


def _crc(uuid: bytes, region: Region, number: int, bits: bytes | bytearray) -> int:
    return zlib.crc32(bits, zlib.crc32(_PLACE.pack(region, number), zlib.crc32(uuid)))
