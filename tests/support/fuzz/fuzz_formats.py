"""Fuzzed formats: header, sectors of bits, bitmap volume, ticket. What is accepted makes sense."""

import os
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from uuid import UUID

import numpy as np
from bitmaps import make_bitmap
from fuzz_garble import fix_header, fix_sector, garble, line, number, put_number
from fuzz_loop import Part

from iifuse import errors
from iifuse.core import header as fmt
from iifuse.core import sector, ticket
from iifuse.core.bitmap import SECTOR_BIT_BYTES, SECTOR_CHUNKS, Bitmap, sectors_for
from iifuse.core.header import BitmapRole, Closure, Header, Pit, Stamp
from iifuse.core.sector import SECTOR_BYTES, Region
from iifuse.core.state import Change, Custody, Kind, Progress, Role
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import open_volume
from iifuse.verbs.exchange import Borrowing, _import_header
from iitools import ticketfile

UUID_HERE = UUID(int=7)
PATHS_BYTES_MAX = 3 * 4096


def header(random: Random) -> Header:
    """A header as a service might have written it."""
    idle = random.random() < 0.5
    kind = Kind.INDEPENDENT if not idle else random.choice(list(Kind))
    progress = Progress.IDLE if idle else random.choice(list(Progress))
    imported = idle and kind is Kind.INDEPENDENT and random.random() < 0.2
    return Header(
        uuid=UUID_HERE, kind=kind, size_bytes=random.randint(1, 1 << random.randint(1, 40)),
        master=_path(random, "m"), shadow=_path(random, "s"), bitmap=_path(random, "b"),
        sequence=random.randint(1, 1000), progress=progress,
        copying=progress is not Progress.IDLE and random.random() < 0.5,
        role=BitmapRole.IMPORTED if imported else BitmapRole.MAIN,
        custody=Custody.IMPORTED if imported else Custody.LOCAL,
        offline=Role(random.choice((0, 0, 2, 4, 6))), offline_reason="x" * random.choice((0, 40)),
        clean=random.random() < 0.5, closure=random.choice(list(Closure)), pit=_pit(random),
        export_number=random.randint(0, 9), boot_id=UUID(int=9), pending=Change.NONE,
        master_stamp=Stamp(5, 6, 7), joined=tuple(UUID(int=n) for n in range(random.randint(0, 8))),
    )  # fmt: skip


def _path(random: Random, name: str) -> str:
    return f"/{name}" * random.choice((1, 1, 1, 50, 1500))


def _pit(random: Random) -> Pit:
    return Pit(random.randint(1, 99), UUID(int=random.getrandbits(64)), random.getrandbits(60))


@contextmanager
def _headers():
    def try_one(random: Random) -> bool:
        blob = bytearray(fmt.pack(header(random)).ljust(fmt.SLOT_BYTES, b"\0"))
        blob = garble(random, blob, most=3)
        for _ in range(random.randint(0, 3)):
            put_number(random, blob, random.randrange(24, 400))
        if random.random() < 0.9:
            fix_header(blob)
        return judge_header(bytes(blob))

    yield try_one


def judge_header(blob: bytes) -> bool:
    """Refused by BadBitmap, or comes back from a second writing, and makes sense."""
    try:
        found = fmt.unpack("/b", blob)
    except errors.BadBitmap:
        return False
    again = fmt.pack(found)
    assert len(again) <= fmt.SLOT_BYTES
    assert fmt.unpack("/b", again) == found
    worse = replace(found, offline=Role.SHADOW, offline_reason="€" * 600, copying=False)
    assert len(fmt.pack(worse)) <= fmt.SLOT_BYTES, "a failure cannot be noted"
    _check_sense(found)
    return True


def _check_sense(found: Header) -> None:
    chunks, size = found.geometry.chunks, found.size_bytes
    assert 0 < size < 1 << 60
    assert (chunks - 1) << 15 < size <= chunks << 15
    for name in (found.master, found.shadow, found.bitmap):
        assert "\0" not in name
        assert not name or name.startswith("/")
    assert found.progress is not Progress.IDLE or not found.copying
    assert (found.role is BitmapRole.IMPORTED) == (found.custody is Custody.IMPORTED)
    if found.kind is Kind.DEPENDENT:
        assert found.progress is not Progress.TO_SHADOW
        assert found.custody is Custody.LOCAL


# -- bits -----------------------------------------------------------------------------------


@contextmanager
def _sectors():
    def try_one(random: Random) -> bool:
        count, first = random.randint(1, 4), number(random, 40)
        region = random.choice(list(Region))
        bits = np.frombuffer(random.randbytes(count * SECTOR_BIT_BYTES), np.uint8)
        good = sector.encode(
            UUID_HERE.bytes, region, first, bits.reshape(count, SECTOR_BIT_BYTES)
        )
        blob = garble(random, good, most=3)[: len(good)].ljust(len(good), b"\0")
        for row in range(count):
            if random.random() < 0.3:
                fix_sector(blob, row * SECTOR_BYTES, UUID_HERE.bytes, region, first + row)
        return _judge_sectors(bytes(blob), good, region, first)

    yield try_one


def _judge_sectors(blob: bytes, good: bytes, region: Region, first: int) -> bool:
    rows, bad = sector.decode(UUID_HERE.bytes, region, first, blob)
    again = sector.encode(UUID_HERE.bytes, region, first, rows)
    for row in range(len(rows)):
        here = slice(row * SECTOR_BYTES, (row + 1) * SECTOR_BYTES)
        if first + row in bad:
            assert not rows[row].any()
            assert blob[here] != good[here]
        else:
            assert again[here] == blob[here]
    _judge_bits(rows, len(rows) * SECTOR_CHUNKS - (first & 0xFFF) % SECTOR_CHUNKS)
    return not bad


def _judge_bits(rows, chunks: int) -> None:
    """Counts and runs within the volume, whatever the last sector held."""
    found = Bitmap.from_disk(chunks, rows.copy())
    runs = list(found.runs())
    assert sum(length for _, length in runs) == found.count() <= chunks
    assert all(at >= 0 and at + length <= chunks for at, length in runs)
    assert found.next_set(0) == (runs[0][0] if runs else None)
    assert found.word(0, chunks).bit_count() == found.count()


@contextmanager
def _bitmap_files():
    with tempfile.TemporaryDirectory(prefix="iifuse-fuzz-", dir=_memory()) as folder:
        path = Path(folder, "b")
        shadow = ((0, 3), (5000, 2), (9999, 1))
        made = make_bitmap(Path(folder, "good"), marked=shadow, uuid=UUID_HERE)
        good = Path(folder, "good").read_bytes()

        def try_one(random: Random) -> bool:
            path.write_bytes(garbled_file(random, good, made.geometry.chunks))
            return _judge_file(path, shadow, good)

        yield try_one


def _memory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def garbled_file(random: Random, good: bytes, chunks: int) -> bytes:
    """A bitmap volume with a garbled header, garbled bits, or both; cut or longer as well."""
    blob = bytearray(good)
    for at in fmt.SLOT_OFFSETS:
        if random.random() < 0.5:
            slot = garble(random, blob[at : at + fmt.SLOT_BYTES], most=2)
            put_number(random, slot, random.randrange(0, 400))
            blob[at : at + fmt.SLOT_BYTES] = slot[: fmt.SLOT_BYTES].ljust(fmt.SLOT_BYTES, b"\0")
            if random.random() < 0.9:
                fix_header(blob, at)
    for _ in range(random.choice((0, 0, 1, 3))):
        blob[random.randrange(sector.HEADER_REGION_BYTES, len(blob))] ^= random.randint(1, 255)
    for region in Region:
        if random.random() < 0.2:
            row = random.randrange(sectors_for(chunks))
            at = sector.region_offset(region, chunks) + row * SECTOR_BYTES
            fix_sector(blob, at, UUID_HERE.bytes, region, row)
    return bytes(blob) if random.random() < 0.8 else bytes(garble(random, blob))


def _judge_file(path: Path, shadow, good: bytes) -> bool:
    try:
        volume = open_volume(str(path), exclusive=False)
    except errors.BadVolume:
        assert not path.stat().st_size
        return False
    try:
        bitmap = BitmapFile(volume)
        found = bitmap.read_header()
        for region in Region:
            bits, damaged = bitmap.read_bits(found, region)
            _judge_bits(bits.packed, found.geometry.chunks)
            assert not bits.packed[damaged].any()
        again = bitmap.write_header(found)
        assert bitmap.read_header() == again == replace(found, sequence=found.sequence + 1)
    except errors.BadBitmap:
        return False
    finally:
        volume.close()
    return True


# -- tickets --------------------------------------------------------------------------------

_LENT = {
    "uuid": str(UUID_HERE), "shadow": "/s", "master": "/m", "pit": 3, "pit_id": str(UUID(int=8)),
    "pit_time": "2026-01-02T03:04:05.000006+00:00", "export_number": 2, "size_bytes": 10 << 20,
    "chunk_bytes": 32768, "bitmap": None, "joined": False,
    "fingerprint": {"0": "0011223344556677", "319": "8899aabbccddeeff"},
}  # fmt: skip
_TICKET = {
    "sets": [_LENT, {**_LENT, "uuid": str(UUID(int=11)), "shadow": "/t"}],
    "group": "night", "format": "iifuse-ticket-2",
}  # fmt: skip


@contextmanager
def _tickets():
    with tempfile.TemporaryDirectory(prefix="iifuse-fuzz-", dir=_memory()) as folder:
        path = Path(folder, "t.iiticket")

        def try_one(random: Random) -> bool:
            blob = line(random, _TICKET)
            path.write_bytes(blob)
            return judge_ticket(blob) and _read_by_the_tools(path)

        yield try_one


def judge_ticket(blob: bytes) -> bool:
    """Refused by BadTicket, or whole: a header can be made of each entry."""
    try:
        found = ticket.decode("/t", blob)
    except errors.BadTicket:
        return False
    assert ticket.decode("/t", ticket.encode(found)) == found
    for lent in found.sets:
        assert lent.shadow.startswith("/")
        assert 0 < lent.size_bytes < 1 << 60
        try:
            made = _import_header(_NoEngine(), Borrowing(lent.shadow, "/new"), lent)
        except errors.BadTicket:
            continue
        assert judge_header(fmt.pack(made))
    return True


class _NoEngine:
    """As much of an engine as the header of an import needs."""

    boot_id, ordered, session = UUID(int=1), True, 5


def _read_by_the_tools(path: Path) -> bool:
    try:
        found = ticketfile.read(str(path))
    except errors.BadTicket:
        return False
    ticketfile.write(str(path), found)
    assert ticketfile.read(str(path)) == found
    return True


PARTS = [
    Part("header", 8000, _headers),
    Part("sectors", 4000, _sectors),
    Part("bitmap file", 4000, _bitmap_files),
    Part("ticket", 5000, _tickets),
]
