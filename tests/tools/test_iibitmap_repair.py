"""`iibitmap repair`: what can be rescued is, and nothing is called equal that may differ."""

import json
import os
from dataclasses import replace

import pytest
from bitmaps import CHUNKS, EXACT, INEXACT, PLAIN, SHADOW, make_bitmap, read_bitmap, sector_at, turn

from iifuse.core import header as fmt
from iifuse.core.bitmap import SECTOR_CHUNKS
from iifuse.core.sector import Region
from iifuse.core.state import Kind, Progress, Role


@pytest.mark.parametrize("region", Region)
@pytest.mark.parametrize("fields", INEXACT)
def test_repair_counts_damaged_chunks_as_different(
    run, checked, bitmap, tmp_path, region, fields
):
    path, new = bitmap(**fields), tmp_path / "new"
    turn(path, sector_at(region, 1) + 9)
    before = path.read_bytes()
    ended = run("iibitmap", "repair", "--json", str(path), str(new))
    assert ended.code == 0
    result = json.loads(ended.out)
    assert (result["damaged_sectors"], result["different_chunks"]) == (1, SECTOR_CHUNKS)
    assert result["offline"] == []
    header, shadow, copy = read_bitmap(new)
    assert shadow == [(0, 1), (5, 3), (SECTOR_CHUNKS, SECTOR_CHUNKS), (9999, 1)]
    assert copy == []
    assert header.uuid == PLAIN.uuid
    assert header.offline == Role(0)
    assert path.read_bytes() == before
    assert checked(new)[1]["wrong"] == []


def test_repair_in_a_restore_restores_anew_what_nobody_knows(run, bitmap, tmp_path):
    path, new = bitmap(progress=Progress.TO_MASTER, copying=True), tmp_path / "new"
    turn(path, sector_at(Region.COPY, 1), sector_at(Region.SHADOW, 1))
    assert run("iibitmap", "repair", str(path), str(new)).code == 0
    header, shadow, copy = read_bitmap(new)
    assert (header.offline, header.copying) == (Role.BITMAP, False)
    assert shadow == list(SHADOW)
    assert copy == [(SECTOR_CHUNKS, SECTOR_CHUNKS)]


@pytest.mark.parametrize("region", Region)
def test_repair_of_a_dependent_set_in_a_restore_is_refused(run, bitmap, tmp_path, region):
    path, new = bitmap(progress=Progress.TO_MASTER, kind=Kind.DEPENDENT), tmp_path / "new"
    assert run("iibitmap", "repair", str(path), str(new)).code == 0
    new.unlink()
    turn(path, sector_at(region, 1))
    ended = run("iibitmap", "repair", str(path), str(new))
    assert ended.code == 2
    assert "in the middle of a restore" in ended.err
    assert not new.exists()


@pytest.mark.parametrize("fields", EXACT[:2])
def test_repair_marks_the_shadow_offline_where_bits_are_exact(
    run, checked, bitmap, tmp_path, fields
):
    path, new = bitmap(**fields), tmp_path / "new"
    turn(path, sector_at(Region.COPY, 1), sector_at(Region.SHADOW, 1))
    assert "nobody knows" in checked(path)[1]["wrong"][0]
    ended = run("iibitmap", "repair", str(path), str(new))
    assert ended.code == 0
    assert "the shadow is marked offline" in ended.out
    header, shadow, _ = read_bitmap(new)
    assert header.offline == Role.SHADOW
    assert header.offline_reason
    assert not header.copying
    assert shadow == list(SHADOW)


@pytest.mark.parametrize("region", Region)
@pytest.mark.parametrize("progress", [Progress.TO_SHADOW, Progress.TO_MASTER])
def test_repair_during_a_copy_takes_the_good_bitmap_for_both(
    run, checked, bitmap, tmp_path, region, progress
):
    path, new = bitmap(progress=progress, to_copy=((10, 20),)), tmp_path / "new"
    turn(path, sector_at(region, 0))
    assert "stands in" in checked(path)[1]["wrong"][0]
    assert run("iibitmap", "repair", str(path), str(new)).code == 0
    header, shadow, copy = read_bitmap(new)
    assert not header.offline
    if region is Region.SHADOW:
        assert shadow == [(0, 10), (30, SECTOR_CHUNKS - 30), (9999, 1)]
        assert copy == [(10, 20)]
    else:
        assert shadow == list(SHADOW)
        assert copy == [(1, 4), (8, SECTOR_CHUNKS - 8)]


def test_repair_of_a_file_cut_short_counts_the_rest_as_different(run, bitmap, tmp_path):
    path, new = bitmap(), tmp_path / "new"
    os.truncate(path, sector_at(Region.SHADOW, 2) + 100)
    assert run("iibitmap", "repair", str(path), str(new)).code == 0
    # The copy bits are missing from the first chunk on: any of them may have been in a change.
    assert read_bitmap(new)[1:] == ([(0, CHUNKS)], [])


def test_repair_of_a_good_bitmap_keeps_all(run, bitmap, tmp_path):
    path, new = bitmap(kind=Kind.DEPENDENT), tmp_path / "new"
    assert run("iibitmap", "repair", str(path), str(new)).code == 0
    header, shadow, copy = read_bitmap(new)
    assert (shadow, copy, header.offline) == (list(SHADOW), [], Role(0))
    assert header == read_bitmap(path)[0]


def test_repair_never_writes_over_a_file(run, bitmap, tmp_path):
    path = bitmap()
    for new in (path, tmp_path):
        before = path.read_bytes()
        assert run("iibitmap", "repair", str(path), str(new)).code == 2
        assert path.read_bytes() == before


def test_repair_without_a_header_is_refused(run, bitmap, tmp_path):
    path = bitmap()
    turn(path, 100, 12 * 1024 + 100)
    ended = run("iibitmap", "repair", str(path), str(tmp_path / "new"))
    assert ended.code == 2
    assert "the header is damaged" in ended.err
    assert not (tmp_path / "new").exists()


def test_repair_for_a_volume_beyond_measure_fills_no_disk(run, checked, tmp_path):
    path, new = tmp_path / "b", tmp_path / "new"
    make_bitmap(tmp_path / "small")
    blob = bytearray((tmp_path / "small").read_bytes())
    hostile = fmt.pack(replace(PLAIN, size_bytes=(1 << 60) - 1))
    blob[: len(hostile)] = hostile
    path.write_bytes(blob)
    ended = run("iibitmap", "repair", str(path), str(new))
    assert ended.code == 2
    assert "no room" in ended.err
    assert not new.exists()
    assert checked(path)[0] == 1
