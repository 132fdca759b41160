"""Garbled bitmap volumes: only failures of our own come out, and no damage is called equal."""

import json
import os
import struct
import zlib

import pytest
from bitmaps import PLAIN, make_bitmap, read_bitmap, sector_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iifuse import errors
from iifuse.control import protocol
from iifuse.core.bitmap import SECTOR_CHUNKS
from iifuse.core.sector import Region
from iifuse.core.state import Progress
from iitools import iibitmap_changed, iibitmap_dump, iibitmap_repair
from iitools.iibitmap_check import check
from iitools.iibitmap_read import reading

SIZE = sector_at(Region.COPY, 3)
HEADER_BYTES = 472 + len("/no/m/no/s/no/b")
SHADOW = ((0, 1), (5, 3), (4063, 2), (9999, 1))
NEW_BYTES_MAX = 1 << 22
"""A garbled size may ask for a file of terabytes; that would take the whole of the test's time."""

flips = st.lists(st.tuples(st.integers(0, SIZE - 1), st.integers(1, 255)), max_size=6)
in_header = st.lists(
    st.tuples(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255)), min_size=1, max_size=4
)
fixtures = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module", params=["idle", "copying"])
def good(request, tmp_path_factory):
    """A good bitmap volume as bytes, and is it idle?"""
    path = tmp_path_factory.mktemp("good") / "b"
    idle = request.param == "idle"
    fields = {} if idle else {"progress": Progress.TO_SHADOW, "to_copy": ((8, 100),)}
    make_bitmap(path, marked=SHADOW, **fields)
    return path.read_bytes(), idle


def garble(blob, changes, cut=None):
    blob = bytearray(blob)
    for offset, mask in changes:
        blob[offset] ^= mask
    return blob[:cut]


def fix_header(blob):
    """Make the checksum of slot 0 right, as somebody who means harm would."""
    length = min(struct.unpack_from("<I", blob, 12)[0], 12 * 1024)
    if length > 24:
        crc = zlib.crc32(bytes(blob[:16]) + bytes(4) + bytes(blob[20:length]))
        struct.pack_into("<I", blob, 16, crc)
    return blob


def try_all(path):
    """Every verb that needs no other volume; (all worked, changed chunks or None if unknown)."""
    new = path.with_name("new")
    new.unlink(missing_ok=True)
    try:
        with reading(str(path)) as found:
            assert isinstance(check(found).wrong, tuple)
            result = iibitmap_dump.dump(found, bits=found.chunks < 1 << 24)
            json.loads(protocol.to_json(result))
            assert "header.uuid" in iibitmap_dump.text(result)
            unknown = iibitmap_changed.unknown(found)
            extents = None if unknown else iibitmap_changed.extents(found)
            if found.need_bytes <= NEW_BYTES_MAX:
                iibitmap_repair.repair(found, str(new))
    except errors.IifuseError:
        assert not new.exists()
        return False, None
    return True, extents


@fixtures
@given(changes=flips, cut=st.none() | st.integers(1, SIZE))
def test_garbled_bitmap_gives_our_own_errors_only(good, tmp_path, changes, cut):
    blob, _ = good
    path = tmp_path / "b"
    path.write_bytes(garble(blob, changes, cut))
    try_all(path)


@fixtures
@given(changes=in_header)
def test_header_of_a_forger_gives_our_own_errors_only(good, tmp_path, changes):
    blob, _ = good
    path = tmp_path / "b"
    path.write_bytes(fix_header(garble(blob, changes)))
    try_all(path)


@fixtures
@given(changes=st.lists(st.tuples(st.integers(24 * 1024, SIZE - 1), st.integers(1, 255))))
def test_damaged_bits_are_never_called_equal(good, tmp_path, changes):
    blob, idle = good
    path = tmp_path / "b"
    path.write_bytes(garble(blob, changes))
    done, changed = try_all(path)
    assert done
    damaged = path.read_bytes() != blob
    if damaged or not idle:
        assert changed is None
    header, shadow, copy = read_bitmap(tmp_path / "new")
    if idle:
        marked = chunks_of(shadow)
        assert marked >= chunks_of(SHADOW)
        assert copy == []
        for offset, _ in changes if damaged else ():
            number = (offset - sector_at(Region.SHADOW, 0)) // 512 % 3
            if path.read_bytes()[offset] != blob[offset]:
                first = number * SECTOR_CHUNKS
                assert marked >= set(range(first, min(first + SECTOR_CHUNKS, 10_000)))
        assert not header.offline
    elif not header.offline:
        assert not chunks_of(shadow) & chunks_of(copy)
        assert chunks_of(shadow) | chunks_of(copy) >= chunks_of((*SHADOW, (8, 100)))
        assert chunks_of(copy) >= set(range(8, 108))
    else:
        assert damaged


def chunks_of(runs):
    return {chunk for first, count in runs for chunk in range(first, first + count)}


@pytest.mark.parametrize("size", [1, 511, 512, 12 * 1024, 24 * 1024, SIZE])
@pytest.mark.parametrize("fill", [b"\0", b"\xff", None])
def test_any_file_at_all_is_refused(tmp_path, size, fill):
    path = tmp_path / "b"
    path.write_bytes(os.urandom(size) if fill is None else fill * size)
    assert try_all(path) == (False, None)


def test_good_bitmap_here_is_what_the_tests_take_it_for(good):
    blob, _ = good
    assert len(blob) == SIZE
    assert PLAIN.geometry.chunks == 10_000
    assert struct.unpack_from("<I", blob, 12)[0] == HEADER_BYTES
