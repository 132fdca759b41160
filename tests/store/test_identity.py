"""What a path really is, by this machine's own files and loop devices (K3)."""

import itertools
import os

import pytest
from devices import detach
from harness import losetup
from partitions import add_partition

from iifuse import errors
from iifuse.store.identity import Host, find, identify

MIB = 1 << 20


# -- links --------------------------------------------------------------------------------------


def test_identity_walk_is_that_of_realpath(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/f").write_bytes(b"x")
    for name, target in {
        "rel": "a/../a/f", "abs": f"{tmp_path}/a/b/../f", "dir": "a/b", "twice": "rel",
        "above": "../" * 40 + str(tmp_path).lstrip("/") + "/a/f",
    }.items():  # fmt: skip
        os.symlink(target, tmp_path / name)
    for name in ("rel", "abs", "twice", "above", "dir/../f", "./a//f", "dir/../new"):
        path = f"{tmp_path}/{name}"
        spot = Host().locate(path)
        assert spot.path == os.path.realpath(path), name
        assert (spot.found is None) is not os.path.exists(path)


@pytest.mark.parametrize("name", ["missing", "no/dir", "f/below", "nowhere"])
def test_identity_of_what_is_not_there_is_none(tmp_path, name):
    (tmp_path / "f").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    assert find(f"{tmp_path}/{name}") is None
    with pytest.raises(errors.BadVolume):
        identify(f"{tmp_path}/{name}")


def test_identity_of_endless_links_is_refused(tmp_path):
    (tmp_path / "l").symlink_to("l")
    for ask in (find, identify):
        with pytest.raises(errors.BadVolume, match="symbolic links"):
            ask(f"{tmp_path}/l")


# -- real devices -----------------------------------------------------------------------------


@pytest.fixture
def devices(disk_place):
    """Loop devices over one file of 8 MiB, by what is special; partitions of one of them too."""
    if os.geteuid() or not os.path.exists("/dev/loop-control"):
        pytest.skip("needs root and loop devices")
    file = disk_place / "image"
    file.write_bytes(bytes(8 * MIB))
    nodes = {"file": str(file)}

    def attach(name, path, *options):
        nodes[name] = losetup(path, *options)

    try:
        attach("whole", str(file), "-P")
        attach("again", str(file))
        attach("first half", str(file), "--sizelimit", str(4 * MIB))
        attach("second half", str(file), "-o", str(4 * MIB))
        attach("loop over loop", nodes["second half"], "-o", str(2 * MIB))
        parts = {f"part {n}": add_partition(nodes["whole"], n, n * MIB, MIB) for n in (1, 2)}
        yield nodes | parts
    finally:
        for node in reversed([*nodes.values()][1:]):
            detach(node)


SPANS = {
    "file": (0, 8), "whole": (0, 8), "again": (0, 8), "first half": (0, 4), "second half": (4, 8),
    "loop over loop": (6, 8), "part 1": (1, 2), "part 2": (2, 3),
}  # fmt: skip


def test_identity_loop_devices_and_partitions_conflict_where_their_bytes_do(devices):
    """K3: the same storage under another name."""
    found = {name: identify(node) for name, node in devices.items()}
    for one, other in itertools.combinations(SPANS, 2):
        shared = SPANS[one][0] < SPANS[other][1] and SPANS[other][0] < SPANS[one][1]
        assert found[one].conflicts(found[other]) is shared, (one, other)
        same = {one, other} == {"whole", "again"}
        assert found[one].is_same(found[other]) is same, (one, other)


def test_identity_file_keeps_its_device_after_its_name_has_gone(devices):
    before = identify(devices["whole"])
    os.rename(devices["file"], f"{devices['file']}.moved")
    open(devices["file"], "wb").close()
    assert identify(devices["whole"]) == before
    assert not identify(devices["file"]).conflicts(before)
    os.rename(f"{devices['file']}.moved", devices["file"])  # by which the fixture knows its own


def test_identity_of_a_relative_name_begins_where_the_program_stands(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "volume").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert identify("below/volume") == identify(str(tmp_path / "below" / "volume"))
    assert find("below/nothing") is None
