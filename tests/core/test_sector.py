"""Damage is told from an honest crash; a moved or foreign sector is never believed."""

import os
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.bitmap import SECTOR_BIT_BYTES, SECTOR_CHUNKS
from iifuse.core.sector import (
    SECTOR_BYTES,
    Region,
    bitmap_bytes,
    decode,
    encode,
    encode_rows,
    region_offset,
)

UUID = bytes(range(16))


def rows(count: int):
    return np.frombuffer(os.urandom(count * SECTOR_BIT_BYTES), np.uint8).reshape(count, -1)


@given(st.integers(1, 5), st.integers(0, 1 << 40), st.sampled_from(Region))
def test_sector_comes_back_as_it_was(count, first, region):
    bits = rows(count)
    found, bad = decode(UUID, region, first, encode(UUID, region, first, bits))
    assert (found == bits).all()
    assert bad == []


@given(st.integers(0, 3 * SECTOR_BYTES - 1), st.integers(0, 7))
def test_sector_with_any_bit_flipped_is_damaged_and_reads_as_zeros(at, bit):
    bits = rows(3)
    blob = bytearray(encode(UUID, Region.SHADOW, 10, bits))
    blob[at] ^= 1 << bit
    found, bad = decode(UUID, Region.SHADOW, 10, bytes(blob))
    wrong = at // SECTOR_BYTES
    assert bad == [10 + wrong]
    assert not found[wrong].any()
    assert all((found[n] == bits[n]).all() for n in range(3) if n != wrong)


@pytest.mark.parametrize(
    ("uuid", "region", "first"),
    [(bytes(16), Region.SHADOW, 4), (UUID, Region.COPY, 4), (UUID, Region.SHADOW, 5)],
    ids=["foreign", "other-region", "moved"],
)
def test_sector_out_of_place_is_not_believed(uuid, region, first):
    blob = encode(UUID, Region.SHADOW, 4, rows(1))
    assert decode(uuid, region, first, blob)[1] == [first]


row_strategy = st.sampled_from(
    [bytes(508), b"\xff" * 508, b"\xff" * 507 + b"\x7f", bytes(507) + b"\1", os.urandom(508)]
)


@given(
    st.lists(row_strategy, min_size=1, max_size=30), st.integers(0, 1 << 62),
    st.sampled_from(Region), st.binary(min_size=16, max_size=16),
)  # fmt: skip
def test_sectors_of_many_rows_are_those_of_the_manual(found, first, region, uuid):
    """iifuse-bitmap(5): CRC-32 over set UUID, region, sector number and the bits."""
    bits = np.frombuffer(b"".join(found), np.uint8).reshape(-1, SECTOR_BIT_BYTES)
    numbers = first + 3 * np.arange(len(found))
    expected = [
        row + struct.pack("<I", zlib.crc32(uuid + struct.pack("<BQ", region, number) + row))
        for row, number in zip(found, numbers.tolist(), strict=True)
    ]
    assert encode_rows(uuid, region, numbers, bits).tobytes() == b"".join(expected)
    for number, row, sector in zip(numbers.tolist(), found, expected, strict=True):
        bits, bad = decode(uuid, region, number, sector)
        assert (bits.tobytes(), bad) == (row, [])


@given(st.lists(row_strategy, min_size=1, max_size=30), st.integers(0, 1 << 40))
def test_sectors_are_the_same_one_by_one_and_together(found, first):
    bits = np.frombuffer(b"".join(found), np.uint8).reshape(-1, SECTOR_BIT_BYTES)
    together = encode(UUID, Region.COPY, first, bits)
    alone = [encode(UUID, Region.COPY, first + n, bits[n : n + 1]) for n in range(len(bits))]
    assert together == b"".join(alone)


def test_sector_of_zeros_that_nobody_wrote_is_damaged():
    assert decode(UUID, Region.SHADOW, 0, bytes(SECTOR_BYTES))[1] == [0]


@given(st.integers(1, 10**7))
def test_sector_regions_fill_the_bitmap_volume_exactly(chunks):
    size = -(-chunks // SECTOR_CHUNKS) * SECTOR_BYTES
    assert region_offset(Region.SHADOW, chunks) == 24 * 1024
    assert region_offset(Region.COPY, chunks) == 24 * 1024 + size
    assert bitmap_bytes(chunks) == 24 * 1024 + 2 * size
