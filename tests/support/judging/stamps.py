"""Sectors that describe themselves: a wrong byte names the write that it came from.

A sector of 512 bytes is its tag and its place (16 bytes in all) over and over, and at its end a
CRC-32, so that it is told whole from mixed, and each part of a mixed one is told too. A tag is the
volume that was written to (upper 16 bits) and the number of the write; where a test numbers all
writes to all its volumes, the number is the tag. A place counts sectors from the beginning of the
volume, or of what a test ever writes of it.
"""

import struct
import zlib

SECTOR = 512
NUMBER = (1 << 48) - 1
_STAMP = struct.Struct("<QQ")
_BODY = SECTOR - 4


def tag_of(volume: int, number: int) -> int:
    """What a write to a volume says of itself."""
    return volume << 48 | number


def sector(tag: int, place: int) -> bytes:
    """What a write makes of a whole sector."""
    body = (_STAMP.pack(tag, place) * 32)[:_BODY]
    return body + zlib.crc32(body).to_bytes(4, "little")


def stamped(tag: int, offset: int, length: int) -> bytes:
    """What a write brings to these bytes; parts of sectors at both ends."""
    first, last = offset // SECTOR, (offset + length - 1) // SECTOR
    whole = b"".join(sector(tag, place) for place in range(first, last + 1))
    return whole[offset % SECTOR :][:length]


def is_whole(data: bytes) -> bool:
    """Has a sector the checksum that it was written with?"""
    return zlib.crc32(data[:_BODY]) == int.from_bytes(data[_BODY:], "little")


def explain(data: bytes, skipped: int = 0) -> str:
    """Whose bytes these are: of one sector, without its first ones."""
    if not any(data):
        return "zeros"
    whole = bytes(skipped) + data
    stamps = {whole[at : at + 16] for at in range(-(-skipped // 16) * 16, _BODY - 12, 16)}
    found = sorted({_name(stamp) for stamp in stamps if len(stamp) == 16})
    sure = len(data) == SECTOR and is_whole(data) and len(found) == 1
    return found[0] if sure else f"a mix of {', '.join(found[:6])}"


def _name(stamp: bytes) -> str:
    tag, place = _STAMP.unpack(stamp)
    if place >> 32:
        return f"no stamp ({stamp.hex()})"
    return f"write {tag & NUMBER} of volume {tag >> 48} to sector {place}"


def difference(offset: int, found: bytes, want: bytes) -> str:
    """The first sector in which bytes read at `offset` are not what they should be; '' if none."""
    if found == want:
        return ""
    if len(found) != len(want):
        return f"{len(found)} bytes instead of {len(want)} at {offset}"
    at = next(i for i in range(len(want)) if found[i] != want[i])
    index = (offset + at) // SECTOR
    low = max(index * SECTOR - offset, 0)
    high, skipped = (index + 1) * SECTOR - offset, (offset + low) % SECTOR
    return (
        f"byte {offset + at} (sector {index}): found {explain(found[low:high], skipped)}, "
        f"expected {explain(want[low:high], skipped)}"
    )
