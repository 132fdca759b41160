"""Partitions of a loop device (losetup -P), also under a kernel that reads no partition tables."""

import ctypes
import fcntl
import os
import struct

_BLKPG = 0x1269
_ADD = 1


def add_partition(device: str, number: int, start: int, length: int) -> str:
    """Make bytes of a device its partition; the node. It goes with the loop device."""
    part = struct.pack("qqi64s64s4x", start, length, number, b"", b"")
    buffer = ctypes.create_string_buffer(part, len(part))
    fd = os.open(device, os.O_RDONLY)
    try:
        words = struct.pack("iiiP", _ADD, 0, len(part), ctypes.addressof(buffer))
        fcntl.ioctl(fd, _BLKPG, words)
    finally:
        os.close(fd)
    return f"{device}p{number}"
