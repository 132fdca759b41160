"""Bitmap volumes as a service leaves them, made without one."""

from dataclasses import replace
from pathlib import Path
from uuid import UUID

from iifuse.core import sector
from iifuse.core.bitmap import Bitmap
from iifuse.core.header import BitmapRole, Header, Pit
from iifuse.core.sector import Region
from iifuse.core.state import Change, Custody, Kind, Progress
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.files import create_file
from iifuse.store.volume import open_volume
from iifuse.units import Run

CHUNK = 32 * 1024
PLAIN = Header(
    uuid=UUID(int=7), kind=Kind.INDEPENDENT, size_bytes=10_000 * CHUNK - 5000, master="/no/m",
    shadow="/no/s", bitmap="/no/b", clean=True, pit=Pit(3, UUID(int=9), 1_700_000_000_000_000_000),
)  # fmt: skip

SHADOW = ((0, 1), (5, 3), (9999, 1))
CHUNKS = PLAIN.geometry.chunks
IMPORTED = {"role": BitmapRole.IMPORTED, "custody": Custody.IMPORTED, "import_id": UUID(int=5)}
INEXACT = [{}, {"custody": Custody.EXPORTED}, IMPORTED, {"pending": Change.MERGE_TO_SHADOW}]
"""Fields of sets in which a bit set in vain does no harm."""
EXACT = [
    {"kind": Kind.DEPENDENT},
    {"progress": Progress.TO_SHADOW},
    {"progress": Progress.TO_MASTER, "copying": True},
]
"""Fields of sets in which every bit has to be right."""


def make_bitmap(
    path: Path, *, marked: tuple[Run, ...] = (), to_copy: tuple[Run, ...] = (), **fields: object
) -> Header:
    """Write a whole bitmap volume with these bits; its header."""
    header = replace(PLAIN, **fields)
    chunks = header.geometry.chunks
    create_file(str(path), sector.bitmap_bytes(chunks), sparse=False)
    volume = open_volume(str(path), exclusive=False)
    try:
        bitmap = BitmapFile(volume)
        for region, runs in ((Region.SHADOW, marked), (Region.COPY, to_copy)):
            bits = Bitmap(chunks)
            bits.set_runs(runs)
            bitmap.write_region(header, region, bits)
        return bitmap.write_header(header)
    finally:
        volume.close()


def change_header(path: Path, **fields: object) -> None:
    """Write a header that says something else."""
    volume = open_volume(str(path), exclusive=False)
    try:
        bitmap = BitmapFile(volume)
        bitmap.write_header(replace(bitmap.read_header(), **fields))
    finally:
        volume.close()


def read_bitmap(path: Path) -> tuple[Header, list[Run], list[Run]]:
    """(header, runs of shadow bits, runs of copy bits), with nothing damaged."""
    volume = open_volume(str(path), exclusive=False)
    try:
        header, shadow, copy = read_whole(BitmapFile(volume))
        return header, list(shadow.runs()), list(copy.runs())
    finally:
        volume.close()


def read_whole(bitmap: BitmapFile) -> tuple[Header, Bitmap, Bitmap]:
    """(header, shadow bits, copy bits), with nothing damaged."""
    header = bitmap.read_header()
    found = []
    for region in Region:
        bits, damaged = bitmap.read_bits(header, region)
        assert not damaged
        found.append(bits)
    return header, *found


def chunks_of(bits: Bitmap) -> set[int]:
    """The numbers of the chunks whose bit is set."""
    return {c for first, count in bits.runs() for c in range(first, first + count)}


def sector_at(region: Region, number: int, chunks: int = PLAIN.geometry.chunks) -> int:
    """The offset of a sector in a bitmap volume."""
    return sector.region_offset(region, chunks) + number * sector.SECTOR_BYTES


def turn(path: Path, *offsets: int) -> None:
    """Turn a bit in some bytes of a file."""
    with path.open("r+b") as file:
        for offset in offsets:
            file.seek(offset)
            byte = file.read(1)[0]
            file.seek(offset)
            file.write(bytes([byte ^ 0x10]))
