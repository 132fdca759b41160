"""Sets in every state, whose volumes go away or are replaced while the service is down.

A copy that is under way is made by hand, with the service stopped, so that no luck is needed: its
chunks are garbage on the volume that they are still to be copied to.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from hang import PATIENCE_SECONDS
from harness import CHUNK, Service

from iifuse.core.geometry import Geometry
from iifuse.core.header import Header, Stamp
from iifuse.core.sector import Region, bitmap_bytes
from iifuse.core.state import Progress
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.statedb import StateDB
from iifuse.store.volume import open_volume

SIZE = 6 * CHUNK + 100
BITMAP_BYTES = bitmap_bytes(Geometry(SIZE).chunks)
PARTS = {"m": "master", "s": "shadow", "b": "bitmap"}
STATES = ("dep", "ind", "copying", "restoring", "exported", "imported")
TO_COPY = (2, 4)
"""Chunks that a copy that was cut short has still to bring."""


@dataclass
class Piece:
    """One set, and what the mount has to show of it: `live` the master, `pit` the shadow."""

    name: str
    home: Path
    lost: str
    """Which of its volumes go: letters of PARTS."""
    live: bytes = b""
    pit: bytes = b""
    marks: int = 0
    """Bits that the shadow bitmap has when nothing is missing."""
    older: dict[str, bytes] = field(default_factory=dict)

    def path(self, part: str) -> Path:
        """A link to the volume, which can be moved and no time of the volume with it."""
        return self.home / part

    def make_links(self) -> None:
        for part, size in (("m", SIZE), ("s", SIZE), ("b", BITMAP_BYTES)):
            volume = self.home / f"{part}.volume"
            volume.write_bytes(bytes(size))
            (self.home / part).symlink_to(volume)

    @property
    def shadow(self) -> Path:
        return self.path("s")

    @property
    def roles(self) -> tuple[str, ...]:
        return tuple(PARTS[part] for part in "msb" if part in self.lost)


@contextmanager
def header_of(piece: Piece) -> Iterator[tuple[BitmapFile, Header]]:
    volume = open_volume(str(piece.path("b")), exclusive=False)
    try:
        bitmap = BitmapFile(volume)
        yield bitmap, bitmap.read_header()
    finally:
        volume.close()


class Stage:
    """Many sets of one state on one service; `host` has them, `lender` only lends to it."""

    def __init__(self, host: Service, lender: Service | None, place: Path, state: str) -> None:
        self.host, self.lender, self.place, self.state = host, lender, place, state
        self.pieces: list[Piece] = []
        self.ended = ""

    def add(self, name: str, lost: str) -> Piece:
        piece = Piece(name, self.place / name, lost)
        piece.home.mkdir()
        piece.make_links()
        owner = self.lender or self.host
        piece.path("m").write_bytes(os.urandom(SIZE))
        bitmap = piece.home / "b0" if self.lender else piece.path("b")
        owner.enable("dep" if self.state == "dep" else "ind", piece.path("m"), piece.shadow, bitmap)
        self.pieces.append(piece)
        return piece

    def settle(self) -> None:
        """Let all be whole, keep an older self of each volume, and write to both sides."""
        owner = self.lender or self.host
        owner.wait(*(p.shadow for p in self.pieces))
        for piece in self.pieces:
            piece.older = {part: piece.path(part).read_bytes() for part in "msb" if
                           piece.path(part).exists()}  # fmt: skip
            owner.write(piece.path("m"), CHUNK, b"the master, after the point in time")
            owner.write(piece.shadow, 3 * CHUNK, b"the shadow, after the point in time")
        if self.state in ("exported", "imported"):
            self._export(owner)
        for piece in self.pieces:
            self._look(piece)

    def _export(self, owner: Service) -> None:
        for piece in self.pieces:
            assert owner.run("iiadm", "-E", piece.shadow).returncode == 0
            if self.lender:
                done = self.host.run("iiadm", "-I", piece.shadow, piece.path("b"))
                assert done.returncode == 0, done.stderr
                piece.older["b"] = piece.path("b").read_bytes()
                self.host.write(piece.shadow, 5 * CHUNK, b"the importer")

    def _look(self, piece: Piece) -> None:
        host = self.host
        if self.state != "imported":
            piece.live = host.read(piece.path("m"))
        if self.state != "exported":
            piece.pit = host.read(piece.shadow)
        piece.marks = host.status(piece.shadow).shadow_bits

    # -- the end of the service, and what comes after it ------------------------------------

    def end(self, how: str) -> None:
        """The service ends, `how` it may; copies stand in the middle then."""
        self.ended = how
        getattr(self.host, how)()
        if self.state in ("copying", "restoring", "aborted"):
            db = StateDB(str(self.host.state))
            for piece in self.pieces:
                db.remember(_cut_short(piece, self.state, clean=how == "stop"))
            db.close()

    def lose(self, piece: Piece, how: str) -> None:
        """Move volumes away; something else may stand in their place then."""
        for part in piece.lost:
            path = piece.path(part)
            os.rename(path, f"{path}.away")
            size = path.with_name(f"{part}.volume").stat().st_size
            if how == "empty":
                path.touch()
                os.truncate(path, size)
            elif how == "other":
                path.write_bytes(os.urandom(size))
            elif how == "older":
                path.write_bytes(piece.older[part])

    def bring_back(self, piece: Piece) -> None:
        for part in piece.lost:
            os.rename(f"{piece.path(part)}.away", piece.path(part))  # over what stands there


def _cut_short(piece: Piece, state: str, *, clean: bool) -> Header:
    """A new header. The mount shows the same: where the garbage is, the other volume counts."""
    target, source = ("s", "m") if state == "copying" else ("m", "s")
    content = bytearray(piece.path(source).read_bytes())
    with piece.path(target).open("r+b") as file:
        for chunk in TO_COPY:
            file.seek(chunk * CHUNK)
            file.write(os.urandom(CHUNK))
    shown = bytearray(piece.pit if state == "copying" else piece.live)
    for chunk in TO_COPY:
        shown[chunk * CHUNK : (chunk + 1) * CHUNK] = content[chunk * CHUNK : (chunk + 1) * CHUNK]
    if state == "copying":
        piece.pit = bytes(shown)
    else:
        piece.live = bytes(shown)
    with header_of(piece) as (bitmap, header):
        bits, _ = bitmap.read_bits(header, Region.COPY)
        for chunk in TO_COPY:
            bits.set(chunk, 1)
        bitmap.write_region(header, Region.COPY, bits)
        progress = Progress.TO_SHADOW if state == "copying" else Progress.TO_MASTER
        stamps = [_stamp(piece.path(part)) if clean else Stamp() for part in "ms"]
        changed = replace(
            header, progress=progress, copying=state != "aborted", clean=clean,
            master_stamp=stamps[0], shadow_stamp=stamps[1],
        )  # fmt: skip
        return bitmap.write_header(changed)


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def remains(piece: Piece) -> dict[str, bytes]:
    """Every byte that lies around: nothing of it may be written by a verb that is refused."""
    paths = [piece.home / f"{part}{end}" for part in "ms" for end in ("", ".volume")]
    return {path.name: path.read_bytes() for path in paths if path.exists()}


def until(holds: Callable[[], object]) -> None:
    """Ten seconds are promised, and the machine may be busy."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, "nothing was noticed"
        time.sleep(0.1)


def waited(service: Service, pieces: list[Piece]) -> None:
    """Until all that is back was noticed."""

    def nothing_is_missing() -> bool:
        rows = {row.shadow: row for row in service.client.status()}
        return not any(rows[str(p.shadow)].waiting or rows[str(p.shadow)].replaced for p in pieces)

    until(nothing_is_missing)
