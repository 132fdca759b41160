"""Many sets of one service, each of which finds something wrong with itself at the next start."""

import hashlib
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fuzz_garble import fix_header
from harness import CHUNK, Service

from iifuse.core.header import SLOT_BYTES, VERSION

SIZE = 5 * CHUNK + 100
BITMAP_BYTES = 24576 + 2 * 512


@dataclass
class Piece:
    """One set: its volumes, and what the mount showed of them before the stop."""

    name: str
    master: Path
    shadow: Path
    bitmap: Path
    pit: bytes = b""
    live: bytes = b""
    raw: str = ""

    def look(self) -> str:
        """What the two raw volumes hold."""
        volumes = (self.master, self.shadow)
        return " ".join(hashlib.sha256(path.read_bytes()).hexdigest() for path in volumes)


def stopped(service: Service, place: Path, kind: str, names: list[str]) -> dict[str, Piece]:
    """Idle sets by name, each with a chunk that was written on either side; the service is down."""
    pieces = {}
    for name in names:
        home = place / name.replace(" ", "_")
        home.mkdir()
        piece = pieces[name] = Piece(name, home / "m", home / "s", home / "b")
        piece.master.write_bytes(os.urandom(SIZE))
        service.enable(kind, piece.master, piece.shadow, piece.bitmap)
    service.wait(*(piece.shadow for piece in pieces.values()))
    for piece in pieces.values():
        service.write(piece.master, CHUNK, b"the master, after the point in time")
        service.write(piece.shadow, 3 * CHUNK, b"the shadow, after the point in time")
        piece.pit, piece.live = service.read(piece.shadow), service.read(piece.master)
    assert service.stop() == 0
    for piece in pieces.values():
        piece.raw = piece.look()
    return pieces


# -- what may have become of a bitmap -------------------------------------------------------


def _cut(length: int) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, length)


def _fill(byte: int) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(bytes([byte]) * BITMAP_BYTES) and None


def _turn(*offsets: int) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        blob = bytearray(path.read_bytes())
        for at in offsets:
            blob[at] ^= 0x24
        path.write_bytes(blob)

    return change


def _number(at: int, value: int) -> Callable[[Path], None]:
    """A field of both headers, with the right checksum."""

    def change(path: Path) -> None:
        blob = bytearray(path.read_bytes())
        for slot in (0, SLOT_BYTES):
            struct.pack_into("<I", blob, slot + at, value)
            fix_header(blob, slot)
        path.write_bytes(blob)

    return change


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


BAD_BITMAPS: dict[str, tuple[Callable[[Path], None], str]] = {
    "zero bytes": (_cut(0), "size 0"),
    "one byte": (_cut(1), "too short"),
    "headers only": (_cut(24576), "cut short"),
    "one sector short": (_cut(BITMAP_BYTES - 512), "cut short"),
    "all zeros": (_fill(0), "not a bitmap"),
    "all ones": (_fill(255), "not a bitmap"),
    "headers garbled": (_turn(100, SLOT_BYTES + 100), "checksum"),
    "magic garbled": (_turn(0, SLOT_BYTES), "not a bitmap"),
    "length garbled": (_turn(15, SLOT_BYTES + 15), "length"),
    "newer version": (_number(8, VERSION + 1), f"version {VERSION + 1}"),
    "no version": (_number(8, 0), "version 0"),
    "unknown features": (_number(20, 0x8000), "features 0x8000"),
    "directory": (_directory, "neither a regular file"),
    "fifo": (_fifo, "neither a regular file"),
    "nothing": (Path.unlink, "No such file"),
}
"""What happened to the bitmap -> (how it is done, what the reason has to say)."""
