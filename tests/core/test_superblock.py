"""How lately a file system was written: fields at their places, and bytes that are anything."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from iifuse.core.superblock import HEAD_BYTES, last_write


def ext(seconds, kbytes=0):
    head = bytearray(HEAD_BYTES)
    head[1024 + 0x38 : 1024 + 0x3A] = b"\x53\xef"
    struct.pack_into("<I", head, 1024 + 0x30, seconds & 0xFFFFFFFF)
    head[1024 + 0x274] = seconds >> 32
    struct.pack_into("<Q", head, 1024 + 0x178, kbytes)
    return bytes(head)


def xfs(number, version=5):
    head = bytearray(HEAD_BYTES)
    head[:4] = b"XFSB"
    struct.pack_into(">H", head, 100, 0xB4A0 | version)
    struct.pack_into(">Q", head, 240, number)
    return bytes(head)


def btrfs(generation):
    head = bytearray(HEAD_BYTES)
    head[65536 + 0x40 : 65536 + 0x48] = b"_BHRfS_M"
    struct.pack_into("<Q", head, 65536 + 0x48, generation)
    return bytes(head)


@given(st.integers(0, (1 << 40) - 1), st.integers(0, (1 << 63) - 1))
def test_superblock_tells_when_it_was_written(seconds, number):
    assert last_write(ext(seconds)) == seconds << 64
    assert last_write(xfs(number)) == number
    assert last_write(btrfs(number)) == number


def test_superblock_of_the_same_second_with_more_written_is_newer():
    assert last_write(ext(5, kbytes=7)) < last_write(ext(5, kbytes=8))
    assert last_write(ext(5, kbytes=8)) < last_write(ext(6, kbytes=1))


def test_superblock_of_an_old_xfs_tells_nothing():
    assert last_write(xfs(7, version=4)) is None


@given(st.sampled_from([ext(0, 1), xfs(1), btrfs(1), b""]), st.integers(0, HEAD_BYTES))
def test_superblock_that_is_cut_short_does_no_harm(head, length):
    assert last_write(head[:length]) in (None, 1)


@given(st.binary(max_size=4096))
def test_superblock_of_any_bytes_is_none_or_a_number(head):
    found = last_write(head)
    assert found is None or found >= 0
