"""Looking at a bitmap volume changes nothing, and vouches for nothing written behind its back."""

import json
import os

import pytest
from bitmaps import sector_at, turn

from iifuse.core.header import Stamp
from iifuse.core.sector import Region


def picture(directory):
    """Every file with its bytes and times."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_ino)
        for path in directory.iterdir()
    }


@pytest.mark.parametrize("damage", [None, 5000, sector_at(Region.SHADOW, 1)], ids=str)
@pytest.mark.parametrize(
    "words", ["check", "dump", "dump --bits", "--json dump", "changed", "size", "repair"]
)
def test_looking_changes_no_byte_and_repair_writes_a_new_file_only(
    run, bitmap, tmp_path, words, damage
):
    path = bitmap()
    if damage is not None:
        turn(path, damage)
    before = picture(tmp_path)
    new = [str(tmp_path / "new")] * (words == "repair")
    ended = run("iibitmap", *words.split(), str(path), *new)
    assert ended.code in (0, 1, 3)
    after = picture(tmp_path)
    assert after.pop("new", None) is not None if new else True
    assert after == before


@pytest.fixture
def stamped(bitmap, tmp_path):
    """The bitmap of a set that was stopped cleanly; (bitmap, master, shadow)."""
    pair = tmp_path / "m", tmp_path / "s"
    for volume in pair:
        volume.write_bytes(bytes(4096))
    stamps = [
        Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns) for found in map(os.stat, pair)
    ]
    names = {"master": str(pair[0]), "shadow": str(pair[1])}
    seen = {"master_stamp": stamps[0], "shadow_stamp": stamps[1], "clean": True}
    return bitmap(**names, **seen), *pair


def known(run, path):
    ended = run("iibitmap", "--json", "changed", str(path))
    result = json.loads(ended.out)
    assert (ended.code == 0) is result["known"]
    assert ended.code in (0, 3)
    return result["known"]


@pytest.mark.parametrize("part", [1, 2])
def test_changed_is_unknown_once_a_volume_was_written_without_the_service(run, stamped, part):
    """F17: size and times of both files, since the last clean stop."""
    assert known(run, stamped[0])
    with stamped[part].open("r+b") as file:
        file.write(b"behind our back")
    assert not known(run, stamped[0])


@pytest.mark.parametrize("part", [1, 2])
def test_changed_is_unknown_though_the_times_are_set_back(run, stamped, part):
    """F17: the time of the inode's change cannot be set."""
    then = stamped[part].stat()
    stamped[part].write_bytes(b"x" * 4096)
    os.utime(stamped[part], ns=(then.st_atime_ns, then.st_mtime_ns))
    assert not known(run, stamped[0])
