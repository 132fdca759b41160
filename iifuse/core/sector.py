"""The 512-byte sectors in which a bitmap stands on disk (iifuse-bitmap(5)).

A sector has 508 bytes of bits, and then the CRC-32 (little-endian) over the set's UUID, the region,
the sector number and the bits. A disk writes a sector as a whole or not at all. So a wrong CRC
means damage and not a crash, and a sector of another set, region or place is never believed.
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
"""Bytes before the shadow bitmap. The copy bitmap follows the shadow bitmap."""

_PLACE: Final = struct.Struct("<BQ")
_CRC: Final = struct.Struct("<I")
_FEW_ROWS: Final = 8
"""Up to this many rows are encoded faster one by one than with numpy."""

Numbers = npt.NDArray[np.int64]
"""Numbers of sectors: shape (rows,), dtype int64."""

Sums = npt.NDArray[np.uint32]
"""Checksums: shape (rows,), dtype uint32; or tables of them."""


class Region(IntEnum):
    """Which of the two bitmaps a sector belongs to."""

    SHADOW = 1
    COPY = 2


def region_offset(region: Region, chunks: int) -> int:
    """Bytes from the start of the bitmap volume to the first sector of a region."""
    skip = 0 if region is Region.SHADOW else sectors_for(chunks) * SECTOR_BYTES
    return HEADER_REGION_BYTES + skip


def bitmap_bytes(chunks: int) -> int:
    """How many bytes a bitmap volume needs for `chunks` chunks."""
    return HEADER_REGION_BYTES + 2 * sectors_for(chunks) * SECTOR_BYTES


def encode(uuid: bytes, region: Region, first: int, bits: Packed) -> bytes:
    """The sectors for rows of packed bits, of which the first is sector number `first`."""
    if len(bits) > _FEW_ROWS:
        return encode_rows(uuid, region, np.arange(first, first + len(bits)), bits).tobytes()
    begin, blob = zlib.crc32(uuid), bits.tobytes()
    parts: list[bytes] = []
    for number, at in enumerate(range(0, len(blob), SECTOR_BIT_BYTES), first):
        part = blob[at : at + SECTOR_BIT_BYTES]
        place = zlib.crc32(_PLACE.pack(region, number), begin)
        parts += (part, _CRC.pack(zlib.crc32(part, place)))
    return b"".join(parts)


def encode_rows(uuid: bytes, region: Region, numbers: Numbers, bits: Packed) -> Packed:
    """The sectors for rows of packed bits with these numbers: shape (rows, 512), dtype uint8."""
    sectors = np.empty((len(bits), SECTOR_BYTES), np.uint8)
    sectors[:, :SECTOR_BIT_BYTES] = bits
    sectors.view("<u4")[:, -1] = _checksums(uuid, region, numbers, bits)
    return sectors


def decode(uuid: bytes, region: Region, first: int, blob: bytes) -> tuple[Packed, list[int]]:
    """Read sectors: (packed bits, numbers of the damaged sectors). Damaged rows are zeros."""
    rows = np.frombuffer(blob, np.uint8).reshape(-1, SECTOR_BYTES)
    bits = rows[:, :SECTOR_BIT_BYTES].copy()
    sums = _checksums(uuid, region, np.arange(first, first + len(bits)), bits)
    wrong = np.flatnonzero(rows.view("<u4")[:, -1] != sums)
    bits[wrong] = 0
    return bits, [first + row for row in wrong.tolist()]


# -- checksums of many rows -----------------------------------------------------------------
#
# CRC-32 is linear: crc(data, start) == crc(data, 0) ^ shift(start), and shift() is an XOR of one
# table entry for each byte of `start`. So no loop is needed for the number, which differs from row
# to row. And a row of zeros or of ones, as most are, has a known checksum.


def _checksums(uuid: bytes, region: Region, numbers: Numbers, bits: Packed) -> Sums:
    places = _look_up(_OF_NUMBER, numbers.astype("<u8"))
    places ^= np.uint32(zlib.crc32(_PLACE.pack(region, 0), zlib.crc32(uuid)))
    return _look_up(_OF_START, places.astype("<u4")) ^ _checksums_of_bits(bits)


def _look_up(tables: Sums, values: npt.NDArray[Any]) -> Sums:
    """For each value: the XOR of the table entries of its bytes. The first table is for byte 0."""
    by_byte = values.view(np.uint8).reshape(len(values), len(tables))
    found = np.zeros(len(values), np.uint32)
    for place, table in enumerate(tables):
        found ^= table[by_byte[:, place]]
    return found


def _checksums_of_bits(bits: Packed) -> Sums:
    """The CRC-32 of the bits of each row alone."""
    words = words_of(bits)
    some, every = np.bitwise_or.reduce(words, axis=1), np.bitwise_and.reduce(words, axis=1)
    full = every == _ONES
    found = np.where(full, np.uint32(zlib.crc32(b"\xff" * SECTOR_BIT_BYTES)), _CRC_OF_ZEROS)
    mixed = np.flatnonzero((some != 0) & ~full)
    found[mixed] = [zlib.crc32(bits[row]) for row in mixed.tolist()]
    return found


def _tables(length: int, crc: Callable[[int], int]) -> Sums:
    """What each byte of an integer adds to its `crc`: shape (length, 256), dtype uint32."""
    nothing = crc(0)
    entries = [[crc(b << 8 * place) ^ nothing for b in range(256)] for place in range(length)]
    return np.array(entries, np.uint32)


_ONES: Final = np.uint32(0xFFFFFFFF)
_CRC_OF_ZEROS: Final = np.uint32(zlib.crc32(bytes(SECTOR_BIT_BYTES)))
_OF_NUMBER: Final = _tables(8, lambda number: zlib.crc32(_PLACE.pack(0, number)))
_OF_START: Final = _tables(4, lambda start: zlib.crc32(bytes(SECTOR_BIT_BYTES), start))
