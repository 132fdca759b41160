"""A bitmap volume: two header slots, of which a torn write spares one; sectors that are checked."""

from dataclasses import replace
from uuid import UUID

import pytest
from bitmaps import chunks_of

from iifuse import errors
from iifuse.core.bitmap import SECTOR_CHUNKS, Bitmap, sectors_for
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import SLOT_BYTES, SLOT_OFFSETS, Header
from iifuse.core.sector import Region, bitmap_bytes, region_offset
from iifuse.core.state import Kind
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.files import create_file
from iifuse.store.volume import open_volume

CHUNKS = 2 * SECTOR_CHUNKS + 100
HEADER = Header(
    uuid=UUID(int=5), kind=Kind.INDEPENDENT, size_bytes=CHUNKS * CHUNK_BYTES - 11,
    master="/m", shadow="/s", bitmap="/b",
)  # fmt: skip


@pytest.fixture
def volume(place):
    path = str(place / "b")
    create_file(path, bitmap_bytes(CHUNKS), sparse=False)
    opened = open_volume(path)
    yield opened
    opened.close()


@pytest.fixture
def bitmap(volume):
    made = BitmapFile(volume)
    made.erase_headers()
    return made


def some_bits(*chunks: int) -> Bitmap:
    bits = Bitmap(CHUNKS)
    bits.set_runs((c, 1) for c in chunks)
    return bits


def test_header_commits_take_turns_and_the_newest_counts(bitmap, volume):
    header = HEADER
    slots = []
    for number in range(1, 6):
        before = [volume.read(at, SLOT_BYTES) for at in SLOT_OFFSETS]
        header = bitmap.write_header(replace(header, export_number=number))
        assert header.sequence == number
        after = [volume.read(at, SLOT_BYTES) for at in SLOT_OFFSETS]
        changed = [n for n in (0, 1) if before[n] != after[n]]
        assert len(changed) == 1
        slots += changed
        assert BitmapFile(volume).read_header() == header
    assert slots == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("torn", [1, 100, 400, 511])
def test_header_write_that_was_torn_leaves_the_old_header(bitmap, volume, torn):
    """Every commit that a power loss tears, whichever slot it wrote."""
    header = bitmap.write_header(HEADER)
    for number in range(4):
        before = [volume.read(at, SLOT_BYTES) for at in SLOT_OFFSETS]
        newer = bitmap.write_header(replace(header, export_number=number + 10))
        for at, old in zip(SLOT_OFFSETS, before, strict=True):
            new = volume.read(at, SLOT_BYTES)
            volume.write(at, new[:torn] + old[torn:])
        found = BitmapFile(volume).read_header()
        assert found in (header, newer)
        for at, old in zip(SLOT_OFFSETS, before, strict=True):
            volume.write(at, old)
        again = BitmapFile(volume)
        assert again.read_header() == header
        header = again.write_header(newer)
        bitmap = again


def test_header_write_after_reading_spares_the_slot_that_was_read(bitmap, volume):
    for number in range(3):
        header = bitmap.write_header(replace(HEADER, sequence=number))
    again = BitmapFile(volume)
    assert again.read_header() == header
    newest = [volume.read(at, SLOT_BYTES) for at in SLOT_OFFSETS]
    again.write_header(header)
    spared = [n for n, at in enumerate(SLOT_OFFSETS) if volume.read(at, SLOT_BYTES) == newest[n]]
    assert spared == [0]


def test_header_is_durable_after_the_bits_that_it_speaks_of(bitmap, volume, monkeypatch):
    order = []
    real_write, real_sync = volume.write, volume.sync
    monkeypatch.setattr(volume, "write", lambda at, b: (order.append(at), real_write(at, b)))
    monkeypatch.setattr(volume, "sync", lambda: (order.append("sync"), real_sync()))
    bitmap.write_sectors(bitmap.encode_all(HEADER, Region.SHADOW, some_bits(3)))
    bitmap.write_header(HEADER)
    assert order == [region_offset(Region.SHADOW, CHUNKS), "sync", SLOT_OFFSETS[0], "sync"]


def test_header_write_that_fails_does_not_change_turns(bitmap, volume, monkeypatch):
    """The failed slot is doubtful: the next commit has to go there again."""
    header = bitmap.write_header(HEADER)
    real = volume.write

    def broken(at, blob):
        raise OSError(5, "planted")

    monkeypatch.setattr(volume, "write", broken)
    with pytest.raises(OSError, match="planted"):
        bitmap.write_header(header)
    monkeypatch.setattr(volume, "write", real)
    old = volume.read(SLOT_OFFSETS[0], SLOT_BYTES)
    bitmap.write_header(header)
    assert volume.read(SLOT_OFFSETS[0], SLOT_BYTES) == old


def test_erased_headers_are_no_bitmap_volume(bitmap, volume):
    bitmap.write_header(HEADER)
    bitmap.write_header(HEADER)
    bitmap.erase_headers()
    with pytest.raises(errors.BadBitmap, match="not a bitmap volume"):
        BitmapFile(volume).read_header()


def test_bits_of_a_set_are_written_where_a_smaller_one_was_erased(bitmap):
    bitmap.write_header(replace(HEADER, size_bytes=CHUNK_BYTES))
    bitmap.read_header()
    bitmap.erase_headers()
    for region in Region:
        bitmap.write_sectors(bitmap.encode_all(HEADER, region, some_bits(0, CHUNKS - 1)))
        assert chunks_of(bitmap.read_bits(HEADER, region)[0]) == {0, CHUNKS - 1}


def test_bitmap_volume_that_is_cut_short_is_refused(bitmap, place):
    bitmap.write_header(HEADER)
    whole = (place / "b").read_bytes()
    for size in (bitmap_bytes(CHUNKS) - 1, SLOT_BYTES, 100):
        (place / "short").write_bytes(whole[:size])
        volume = open_volume(str(place / "short"))
        try:
            with pytest.raises(errors.BadBitmap):
                BitmapFile(volume).read_header()
        finally:
            volume.close()


@pytest.mark.parametrize("region", Region)
def test_bits_come_back_by_region(bitmap, region):
    wanted = {0, 7, SECTOR_CHUNKS - 1, SECTOR_CHUNKS, CHUNKS - 1}
    for other in Region:
        bitmap.write_region(HEADER, other, some_bits(*(wanted if other is region else {5})))
    bits, damaged = bitmap.read_bits(HEADER, region)
    assert (chunks_of(bits), damaged) == (wanted, [])


def test_bits_of_a_damaged_sector_read_as_zeros(bitmap, volume):
    everything = some_bits(*range(CHUNKS))
    bitmap.write_region(HEADER, Region.SHADOW, everything)
    for sector, expected in (
        (1, (SECTOR_CHUNKS, SECTOR_CHUNKS)),
        (2, (2 * SECTOR_CHUNKS, 100)),
    ):
        at = region_offset(Region.SHADOW, CHUNKS) + sector * 512 + 30
        old = volume.read(at, 1)
        volume.write(at, bytes([old[0] ^ 4]))
        bits, damaged = bitmap.read_bits(HEADER, Region.SHADOW)
        assert damaged == [sector]
        assert not bits.any(*expected)
        assert bits.count() == CHUNKS - expected[1]
        volume.write(at, old)


def test_bits_of_another_set_are_damaged(bitmap):
    bitmap.write_region(HEADER, Region.SHADOW, some_bits(1, 2, 3))
    foreign = replace(HEADER, uuid=UUID(int=6))
    bits, damaged = bitmap.read_bits(foreign, Region.SHADOW)
    assert bits.is_zero()
    assert damaged == list(range(sectors_for(CHUNKS)))
