"""The verbs of iibitmap that look and mend, on bitmap volumes with known bits."""

import json
import os
import subprocess
import sys

import pytest
from bitmaps import CHUNK, CHUNKS, EXACT, IMPORTED, INEXACT, sector_at, turn

from iifuse.core.bitmap import SECTOR_CHUNKS
from iifuse.core.header import Closure
from iifuse.core.sector import Region
from iifuse.core.state import Change, Custody, Kind, Progress, Role

# -- words ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "", "frob b", "size", "check", "dump", "dump a b", "repair a", "repair a b c", "changed",
        "finish a b", "check --bits a", "check -n a",
    ],
)  # fmt: skip
def test_wrong_words_are_refused_with_a_summary(run, line):
    ended = run("iibitmap", *line.split())
    assert (ended.code, ended.out) == (1, "")
    assert "\nusage: iibitmap " in ended.err


@pytest.mark.parametrize("verb", ["dump", "changed", "check", "repair"])
def test_file_that_is_no_bitmap_is_refused(run, tmp_path, verb):
    path = tmp_path / "b"
    path.write_bytes(os.urandom(50_000))
    ended = run("iibitmap", verb, str(path), *[str(tmp_path / "new")] * (verb == "repair"))
    assert ended.code == 2
    assert "not a bitmap volume" in ended.out + ended.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("verb", ["dump", "changed", "check", "repair"])
def test_bitmap_in_use_is_refused(run, bitmap, tmp_path, verb):
    path = bitmap()
    hold = "import sys; from iifuse.store.volume import open_volume; v = open_volume(sys.argv[1]);"
    hold += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        ended = run("iibitmap", verb, str(path), *[str(tmp_path / "new")] * (verb == "repair"))
        holder.stdin.close()
    assert ended.code == 2
    assert "in use by a service" in ended.out + ended.err
    assert not (tmp_path / "new").exists()


# -- size -------------------------------------------------------------------------------------


def test_size_of_sizes_and_volumes_is_a_number_a_line(run, tmp_path):
    volume = tmp_path / "v"
    volume.touch()
    os.truncate(volume, 1 << 30)
    ended = run("iibitmap", "size", "100M", str(volume), "1TiB", "1")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.split() == ["25600", "33792", "8479744", "25600"]


def test_size_as_json_says_how_it_was_reckoned(run):
    (row,) = json.loads(run("iibitmap", "--json", "size", "1G").out)["volumes"]
    assert row == {
        "volume": "1G", "size_bytes": 1 << 30, "chunks": 32768, "bitmap_bytes": 33792,
    }  # fmt: skip


@pytest.mark.parametrize("word", ["0", "much", "/nowhere/v", "2000000T", "9" * 400, "/tmp", ""])
def test_size_of_nonsense_is_refused(run, word):
    ended = run("iibitmap", "size", word)
    assert (ended.code, ended.out) in ((1, ""), (2, ""))
    assert "unexpected" not in ended.err


# -- check ------------------------------------------------------------------------------------


def test_check_of_a_good_bitmap_says_fine(run, bitmap):
    path = bitmap()
    before = path.read_bytes()
    assert run("iibitmap", "check", str(path)).out == f"{path}: fine\n"
    assert path.read_bytes() == before


@pytest.mark.parametrize("region", Region)
@pytest.mark.parametrize("fields", INEXACT)
def test_check_says_that_damaged_chunks_differ(run, checked, bitmap, region, fields):
    path = bitmap(**fields)
    turn(path, sector_at(region, 1) + 3)
    code, row = checked(path)
    assert code == 1
    (wrong,) = row["wrong"]
    assert f"{region.name.lower()} bits of {SECTOR_CHUNKS} chunks are damaged" in wrong
    assert "count as different" in wrong


@pytest.mark.parametrize("fields", EXACT)
def test_check_says_that_a_damaged_exact_bitmap_loses_the_shadow(run, checked, bitmap, fields):
    path = bitmap(**fields)
    turn(path, sector_at(Region.SHADOW, 2) + 500, sector_at(Region.COPY, 2))
    code, row = checked(path)
    assert code == 1
    restores = fields.get("progress") is Progress.TO_MASTER
    words = "the restore brings them anew" if restores else "nobody knows what the shadow holds"
    assert words in row["wrong"][0]


def test_check_says_that_a_bitmap_is_cut_short(run, checked, bitmap):
    path = bitmap()
    size = path.stat().st_size
    os.truncate(path, sector_at(Region.SHADOW, 1) + 7)
    code, row = checked(path)
    assert code == 1
    assert f"needs {size}" in row["wrong"][0]
    assert f"shadow bits of {CHUNKS - SECTOR_CHUNKS} chunks" in row["wrong"][1]
    assert f"copy bits of {CHUNKS} chunks" in row["wrong"][2]


def test_check_says_which_slot_is_damaged(run, checked, bitmap):
    path = bitmap()
    turn(path, 12 * 1024)
    code, row = checked(path)
    assert code == 1
    assert row["wrong"][0].startswith("header slot 1: ")


@pytest.mark.parametrize(
    ("fields", "text", "code"),
    [
        ({"offline": Role.SHADOW, "offline_reason": "disk \x1b[1m died"}, "shadow offline", 1),
        ({"clean": False, "process_durability": True}, "durability=process", 1),
        ({"pending": Change.FILL_TO_SHADOW}, "a point in time was cut short", 0),
        ({"progress": Progress.TO_MASTER, "to_copy": ((1, 7),)}, "7 chunks to come", 0),
        ({"closure": Closure.CLOSED}, "is closed", 0),
        ({"clean": False}, "was not closed in order", 0),
        ({"restored_offline": True}, "a restore was finished offline", 0),
    ],
)
def test_check_tells_what_the_header_means(run, bitmap, fields, text, code):
    ended = run("iibitmap", "check", str(bitmap(**fields)))
    assert ended.code == code
    assert text in ended.out
    assert "\x1b" not in ended.out


def test_check_of_several_says_the_worst(run, bitmap, tmp_path):
    path = bitmap()
    other = tmp_path / "other"
    other.write_bytes(b"x" * 100)
    ended = run("iibitmap", "check", str(other), str(path), str(tmp_path / "gone"))
    assert ended.code == 2
    assert [line.split(": ")[0] for line in ended.out.splitlines()] == [
        str(other), str(path), str(tmp_path / "gone"),
    ]  # fmt: skip


# -- dump -------------------------------------------------------------------------------------


def test_dump_names_every_field_and_extent(run, bitmap):
    path = bitmap(to_copy=((4, 2),), progress=Progress.TO_SHADOW)
    result = json.loads(run("iibitmap", "dump", "--json", "--bits", str(path)).out)
    assert result["header"]["progress"] == "to_shadow"
    assert result["header"]["pit"]["number"] == 3
    assert result["header"]["pit"]["time"] == "2023-11-14T22:13:20.000000+00:00"
    assert result["shadow_bits"] == [
        {"offset": 0, "length": CHUNK},
        {"offset": 5 * CHUNK, "length": 3 * CHUNK},
        {"offset": 9999 * CHUNK, "length": CHUNK - 5000},
    ]
    assert result["copy_bits"] == [{"offset": 4 * CHUNK, "length": 2 * CHUNK}]
    assert result["copy_damaged"] == []


def test_dump_as_text_is_one_line_a_value(run, bitmap):
    lines = run("iibitmap", "dump", "--bits", str(bitmap(offline=Role.BITMAP))).out.splitlines()
    for line in (
        "chunks: 10000", "header.kind: independent", "header.offline: bitmap",
        "header.pit.number: 3", "header.joined: none", f"shadow_bits: {5 * CHUNK} {3 * CHUNK}",
        "header.clean: yes",
    ):  # fmt: skip
        assert line in lines


def test_dump_shows_what_a_hostile_name_holds_and_does_not_obey_it(run, bitmap):
    name = os.fsdecode(b"/\x1b]0;owned\x07\n/\xff")
    ended = run("iibitmap", "dump", str(bitmap(master=name)))
    assert ended.code == 0
    assert "header.master: /\\x1b]0;owned\\x07\\n/\\udcff" in ended.out.splitlines()


# -- changed ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kind": Kind.DEPENDENT},
        {"clean": False},
        {**IMPORTED, "closure": Closure.CLOSED},
        {**IMPORTED, "closure": Closure.JOINED},
        IMPORTED,
    ],
)
def test_changed_prints_offset_and_length(run, bitmap, fields):
    path = bitmap(**fields)
    ended = run("iibitmap", "changed", str(path))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        f"0 {CHUNK}", f"{5 * CHUNK} {3 * CHUNK}", f"{9999 * CHUNK} {CHUNK - 5000}",
    ]  # fmt: skip
    result = json.loads(run("iibitmap", "changed", "--json", str(path)).out)
    assert (result["known"], len(result["extents"])) == (True, 3)


def test_changed_of_an_unchanged_set_prints_nothing(run, bitmap):
    ended = run("iibitmap", "changed", str(bitmap(marked=())))
    assert (ended.code, ended.out) == (0, "")


UNKNOWN = {
    "copy to the shadow": {"progress": Progress.TO_SHADOW, "copying": True},
    "copy to the master": {"progress": Progress.TO_MASTER},
    "exported": {"custody": Custody.EXPORTED},
    "disabled": {"closure": Closure.CLOSED},
    "pending": {"pending": Change.CLEAR},
    "offline": {"offline": Role.MASTER},
    "process": {"clean": False, "process_durability": True},
    "group cut short": {"to_copy": ((1, 1),)},
}


@pytest.mark.parametrize("fields", UNKNOWN.values(), ids=UNKNOWN)
def test_changed_says_unknown_where_it_does_not_know(run, bitmap, fields):
    path = bitmap(**fields)
    ended = run("iibitmap", "changed", str(path))
    assert (ended.code, ended.out) == (3, "unknown\n")
    assert "is unknown: " in ended.err
    result = json.loads(run("iibitmap", "changed", "--json", str(path)).out)
    assert (result["known"], result["extents"]) == (False, None)
    assert result["reason"]


@pytest.mark.parametrize("region", Region)
def test_changed_says_unknown_when_bits_are_damaged(run, bitmap, region):
    path = bitmap()
    turn(path, sector_at(region, 2))
    assert run("iibitmap", "changed", str(path)).code == 3
