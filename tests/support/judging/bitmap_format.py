"""The bitmap volume as its manual page describes it, read without the product's help."""

import struct
import zlib
from dataclasses import dataclass

from shown import CHUNK, Bits

LOCAL, EXPORTED, IMPORTED = 0, 1, 2


@dataclass(frozen=True)
class Found:
    """A header and two bitmaps, as integers of which bit n is that of chunk n."""

    uuid: bytes
    sequence: int
    kind: int
    progress: int
    custody: int
    offline: int
    pit: int
    pending: int
    closure: int
    size: int
    export: int
    shadow: int = 0
    copy: int = 0

    @property
    def bits(self) -> Bits:
        return Bits(self.kind, self.progress, self.shadow, self.copy)


def slot(blob: bytes) -> Found | None:
    """One header slot; None unless its checksum is right."""
    if len(blob) < 392 or blob[:8] != b"iifusebm":
        return None
    length, crc = struct.unpack_from("<II", blob, 12)
    body = blob[:16] + bytes(4) + blob[20:length]
    if not 392 <= length <= len(blob) or zlib.crc32(body) != crc:
        return None
    kind, progress, _, custody, offline = blob[49:54]
    sequence, pit = struct.unpack_from("<Q", blob, 24)[0], struct.unpack_from("<Q", blob, 72)[0]
    size, export = (struct.unpack_from("<Q", blob, at)[0] for at in (64, 104))
    what = (kind, progress, custody, offline, pit, blob[144], blob[145], size, export)
    return Found(blob[32:48], sequence, *what)


def newest(blob: bytes) -> Found | None:
    """The header that counts, without bits; None when neither slot is right."""
    slots = [found for at in (0, 12288) if (found := slot(blob[at : at + 12288]))]
    return max(slots, key=lambda found: found.sequence, default=None)


def read(blob: bytes) -> Found | None:
    """A bitmap volume; None when it has no header. Raises ValueError on damaged bits."""
    found = newest(blob)
    if found is None:
        return None
    chunks = -(-found.size // CHUNK)
    sectors = -(-chunks // 4064)
    bits = [
        _region(blob[24576 + region * sectors * 512 :], found.uuid, region + 1, sectors, chunks)
        for region in (0, 1)
    ]
    return Found(**{**vars(found), "shadow": bits[0], "copy": bits[1]})


def _region(blob: bytes, uuid: bytes, region: int, sectors: int, chunks: int) -> int:
    found = 0
    for number in range(sectors):
        sector = blob[number * 512 : number * 512 + 512]
        place = zlib.crc32(struct.pack("<BQ", region, number), zlib.crc32(uuid))
        if zlib.crc32(sector[:508], place) != struct.unpack("<I", sector[508:])[0]:
            raise ValueError(f"sector {number} of region {region} is damaged")
        found |= int.from_bytes(sector[:508], "little") << 4064 * number
    return found & ((1 << chunks) - 1)
