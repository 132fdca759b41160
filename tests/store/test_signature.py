"""A look at a volume: what libblkid knows it by, whether it is blank, how lately it was written."""

import os
import shutil
import signal
import subprocess

import pytest
from filesystems import SIZES, make

from iifuse import errors
from iifuse.nursery.nursery import Nursery
from iifuse.store import signature
from iifuse.store.signature import Look, look
from iifuse.store.volume import open_volume

MIB = 1 << 20


def looked(path):
    children = Nursery.start()
    volume = open_volume(str(path))
    try:
        return look(volume, children)
    finally:
        volume.close()
        children.close()


def image(path, kind):
    with path.open("wb") as file:
        file.truncate(SIZES[kind])
    make(kind, str(path))
    return path


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_file_system_is_known_with_its_uuid_and_time(tmp_path, kind):
    found = looked(image(tmp_path / "a", kind))
    assert (found.kind, found.blank) == (kind, False)
    assert len(found.uuid) == 36
    assert found.written is not None


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_copy_is_known_as_one_and_another_is_not(tmp_path, kind):
    first, other = image(tmp_path / "a", kind), image(tmp_path / "b", kind)
    shutil.copy(first, tmp_path / "c")
    assert looked(tmp_path / "c").is_copy_of(looked(first))
    assert not looked(other).is_copy_of(looked(first))


def test_swap_space_and_a_partition_table_are_known(tmp_path):
    swap = tmp_path / "swap"
    swap.write_bytes(bytes(MIB))
    subprocess.run(["mkswap", swap], check=True, capture_output=True)
    assert looked(swap).kind == "swap"
    table = bytearray(MIB)
    table[446:462] = bytes([0, 0, 2, 0, 0x83, 0, 9, 0, 1, 0, 0, 0, 0xFF, 0, 0, 0])
    table[440:444], table[510:512] = b"1234", b"\x55\xaa"
    (tmp_path / "disk").write_bytes(table)
    assert looked(tmp_path / "disk").kind == "dos partition table"


@pytest.mark.parametrize("data", [b"", bytes(MIB)])
def test_holes_and_zeros_are_blank(tmp_path, data):
    (tmp_path / "a").write_bytes(data)
    with (tmp_path / "a").open("r+b") as file:
        file.truncate(3 * MIB)
    assert looked(tmp_path / "a") == Look()


@pytest.mark.parametrize("at", [0, 100 * MIB - 3])
def test_bytes_that_nobody_knows_are_not_blank(tmp_path, at):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(100 * MIB)
        file.seek(at)
        file.write(b"mine")
    found = looked(tmp_path / "a")
    assert (found.kind, found.blank) == ("", False)


@pytest.mark.parametrize("at", [5 * MIB, 77 * MIB + 3])
def test_some_data_in_the_middle_of_a_blank_volume_is_found(tmp_path, at):
    with (tmp_path / "a").open("wb") as file:
        file.truncate(256 * MIB)
        file.seek(at)
        file.write(b"mine")
    assert not looked(tmp_path / "a").blank


def test_zeros_beyond_the_bound_are_not_said_to_be_all(tmp_path, monkeypatch):
    monkeypatch.setattr(signature, "_THROUGH_BYTES", 2 * MIB)
    (tmp_path / "a").write_bytes(bytes(2 * MIB))
    (tmp_path / "b").write_bytes(bytes(3 * MIB))
    assert looked(tmp_path / "a").is_empty
    found = looked(tmp_path / "b")
    assert (found.blank, found.is_empty) == (True, False)


def test_two_nameless_contents_are_no_copies_of_each_other():
    assert not Look(blank=False).is_copy_of(Look(blank=False))
    assert not Look("several signatures at once").is_copy_of(Look("several signatures at once"))


def test_without_blkid_nothing_is_assumed(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"mine" * 1024)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(errors.BadVolume, match="blkid"):
        looked(tmp_path / "a")


@pytest.mark.parametrize("answer", [2, 8])
def test_several_signatures_are_known_whatever_blkid_says_of_them(tmp_path, monkeypatch, answer):
    """That of util-linux 2.41 is silent, as it is of a volume with nothing on it."""
    program = tmp_path / "blkid"
    program.write_text(f"#!/bin/sh\nexit {answer}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/sbin:/usr/bin:/sbin:/bin")
    squashfs = b"hsqs" + bytes(24) + b"\4\0\0\0"
    (tmp_path / "a").write_bytes(squashfs.ljust(MIB, b"\0"))
    (tmp_path / "b").write_bytes(b"mine" * 1024)
    assert looked(tmp_path / "a").kind
    assert bool(looked(tmp_path / "b").kind) is (answer == 8)


def test_blkid_that_hangs_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"mine" * 1024)
    program = tmp_path / "blkid"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(signature, "LOOK_SECONDS", 0.2)
    with pytest.raises(errors.BadVolume, match=r"no answer within 0.2 s"):
        looked(tmp_path / "a")


def test_look_of_a_service_without_its_nursery_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"mine" * 1024)
    children = Nursery.start()
    os.kill(children.pid, signal.SIGKILL)
    volume = open_volume(str(tmp_path / "a"))
    try:
        with pytest.raises(errors.BadVolume, match="this process of the service has ended"):
            look(volume, children)
    finally:
        volume.close()
        children.close()
