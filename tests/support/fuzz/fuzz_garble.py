"""Garbled bytes, numbers and JSON, made by a seeded random generator."""

import json
import struct
import zlib
from random import Random
from typing import Any

NUMBERS = (0, 1, 2, 3, 5, 7, 127, 128, 255, 256, 4064, 32767, 32768, 65535, 1 << 31, 1 << 32)
EDGES = (*NUMBERS, *((1 << n) - 1 for n in (31, 32, 48, 60, 62, 63, 64)), 1 << 60, 1 << 62, 1 << 63)


def number(random: Random, bits: int) -> int:
    """A number of so many bits, near an edge rather often."""
    value = random.choice(EDGES) if random.random() < 0.7 else random.getrandbits(bits)
    return (value + random.choice((0, 0, -1, 1))) & ((1 << bits) - 1)


def garble(random: Random, blob: bytes, most: int = 6) -> bytearray:
    """Bytes turned, runs of them overwritten, moved, cut off or put in; or no change at all."""
    result = bytearray(blob)
    for _ in range(random.randint(0, most)):
        _GARBLES[random.randrange(len(_GARBLES))](random, result)
    return result


def _turn(random: Random, blob: bytearray) -> None:
    if blob:
        blob[random.randrange(len(blob))] ^= 1 << random.randrange(8)


def _fill(random: Random, blob: bytearray) -> None:
    at, length = _extent(random, blob)
    blob[at : at + length] = bytes([random.choice((0, 255, 32, 47, 91))]) * length


def _noise(random: Random, blob: bytearray) -> None:
    at, length = _extent(random, blob)
    blob[at : at + length] = random.randbytes(length)


def _move(random: Random, blob: bytearray) -> None:
    at, length = _extent(random, blob)
    to = random.randrange(len(blob) + 1)
    blob[to : to + length] = blob[at : at + length]


def _cut(random: Random, blob: bytearray) -> None:
    if random.random() < 0.3:
        del blob[random.randrange(len(blob) + 1) :]


def _insert(random: Random, blob: bytearray) -> None:
    if random.random() < 0.3:
        at = random.randrange(len(blob) + 1)
        blob[at:at] = random.randbytes(random.randint(1, 20))


_GARBLES = (_turn, _turn, _fill, _noise, _move, _cut, _insert)


def _extent(random: Random, blob: bytearray) -> tuple[int, int]:
    at = random.randrange(len(blob) + 1)
    return at, min(len(blob) - at, random.choice((1, 2, 4, 8, 16, 512)))


def put_number(random: Random, blob: bytearray, at: int) -> None:
    """A number of 1, 2, 4 or 8 bytes, little-endian, at an offset."""
    width, code = random.choice(((1, "B"), (2, "H"), (4, "I"), (8, "Q")))
    if at + width <= len(blob):
        struct.pack_into(f"<{code}", blob, at, number(random, 8 * width))


def fix_header(blob: bytearray, at: int = 0) -> None:
    """Give a header slot the checksum that it should have, as somebody who means harm would."""
    if len(blob) < at + 24:
        return
    length = min(struct.unpack_from("<I", blob, at + 12)[0], 12 * 1024, len(blob) - at)
    if length >= 24:
        covered = blob[at : at + 16] + bytes(4) + blob[at + 20 : at + length]
        struct.pack_into("<I", blob, at + 16, zlib.crc32(covered))


def fix_sector(blob: bytearray, at: int, uuid: bytes, region: int, number: int) -> None:
    """The same for a sector of bits."""
    place = uuid + struct.pack("<BQ", region, number)
    struct.pack_into("<I", blob, at + 508, zlib.crc32(place + blob[at : at + 508]))


# -- JSON -----------------------------------------------------------------------------------

TEXTS = (
    "", "/", "/no/v", "relative", "/no/../b/c", "/nul\0byte", "/\ud800", "/" + "x" * 5000,
    "\x1b[31m", "/no/\u202egpj",
    "null", "ind", "dep", "0", "iifuse-ticket-1", "9999-12-31T23:59:59Z",
    "00000000-0000-0000-0000-000000000007", "9" * 400,
)  # fmt: skip


def value(random: Random, depth: int = 0) -> Any:
    """Any JSON value, of a kind that is likely to be in the way."""
    kind = random.randrange(9 if depth < 3 else 6)
    if kind < 2:
        return random.choice(TEXTS)
    if kind < 4:
        return random.choice((-1, 1)) * number(random, 64)
    if kind == 4:
        return random.choice((None, True, False))
    if kind == 5:
        return random.choice((0.5, -1.0, 1e308, -1e308, 1e-300, 10**30, -(10**30)))
    if kind == 6:
        return [value(random, depth + 1) for _ in range(random.randint(0, 3))]
    if kind == 7:
        return {random.choice(TEXTS): value(random, depth + 1) for _ in range(2)}
    deep: Any = 0
    for _ in range(random.choice((10, 100, 900))):
        deep = [deep]
    return deep


def change(random: Random, found: Any) -> Any:
    """JSON with one value in it changed, gone, doubled or added."""
    if isinstance(found, dict) and found and random.random() < 0.9:
        key = random.choice(list(found))
        if random.random() < 0.12:
            return {k: v for k, v in found.items() if k != key}
        if random.random() < 0.06:
            return {**found, random.choice(TEXTS): value(random)}
        return {**found, key: change(random, found[key])}
    if isinstance(found, list) and found and random.random() < 0.9:
        at = random.randrange(len(found))
        rest = [found[at]] * random.randint(0, 2)
        return [*found[:at], change(random, found[at]), *rest, *found[at + 1 :]]
    return value(random)


def line(random: Random, found: Any, *, raw: float = 0.25) -> bytes:
    """A JSON line that was garbled as a value, as bytes, or both; never with a line end inside.

    `raw`: how often its bytes are; then a path in it may become any other path.
    """
    for _ in range(random.choice((0, 1, 1, 1, 2, 3))):
        found = change(random, found)
    blob = json.dumps(found, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    if random.random() < raw:
        blob = bytes(garble(random, blob))
    return blob.replace(b"\n", b" ")
