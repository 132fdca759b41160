"""Sectors that describe themselves: a wrong byte names the write that it came from.

A sector of 512 bytes is a tag of 16 bytes (volume, sector, number of the write) over and over, and
at its end a CRC-32, so that it is told whole from mixed, and each part of a mixed one is told too.
"""

import struct
import zlib

SECTOR = 512
_TAG = struct.Struct("<HHIII")
_MAGIC = 0x1175


def sector(volume: int, index: int, number: int) -> bytes:
    """What write `number` makes of a sector."""
    tag = _TAG.pack(_MAGIC, volume, index, number, 0)
    body = tag * 31 + tag[:12]
    return body + zlib.crc32(body).to_bytes(4, "little")


def stamped(volume: int, number: int, offset: int, length: int) -> bytes:
    """What write `number` brings to these bytes; parts of sectors at both ends."""
    first, last = offset // SECTOR, (offset + length - 1) // SECTOR
    whole = b"".join(sector(volume, index, number) for index in range(first, last + 1))
    return whole[offset - first * SECTOR :][:length]


def explain(data: bytes) -> str:
    """Whose bytes these are."""
    if not any(data):
        return "zeros"
    tags = {bytes(data[at : at + 12]) for at in range(0, len(data), 16)}
    found = sorted({_name(tag) for tag in tags if len(tag) == 12})
    whole = len(data) == SECTOR and zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little")
    return found[0] if whole and len(found) == 1 else f"a mix of {', '.join(found[:6])}"


def _name(tag: bytes) -> str:
    magic, volume, index, number, _ = _TAG.unpack(tag + bytes(4))
    if magic != _MAGIC:
        return f"no stamp ({tag.hex()})"
    return f"write {number} of volume {volume} to sector {index}"


def difference(offset: int, found: bytes, want: bytes) -> str:
    """The first sector in which bytes read at `offset` are not what they should be; '' if none."""
    if found == want:
        return ""
    if len(found) != len(want):
        return f"{len(found)} bytes instead of {len(want)} at {offset}"
    at = next(i for i in range(len(want)) if found[i] != want[i])
    index = (offset + at) // SECTOR
    low = max(index * SECTOR - offset, 0)
    high = (index + 1) * SECTOR - offset
    return (
        f"byte {offset + at} (sector {index}): found {explain(found[low:high])}, "
        f"expected {explain(want[low:high])}"
    )
