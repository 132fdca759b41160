"""Who uses a block device, as /sys and /proc tell it: here a tree of files stands for them."""

import pytest

from iifuse.store import blockusers
from iifuse.store.mounts import Mounts
from iifuse.store.namespaces import Namespace

ROOT = "20 1 0:20 / / rw - tmpfs none rw\n"


@pytest.fixture
def sys(tmp_path, monkeypatch):
    """Make a device: its number, what it is mapped as, what is made of it, its partitions."""
    monkeypatch.setattr(blockusers, "SYS", str(tmp_path))
    monkeypatch.setattr(blockusers, "SWAPS", str(tmp_path / "swaps"))
    (tmp_path / "swaps").write_text("Filename Type Size Used Priority\n")

    def make(name, number, *, mapped="", holders=(), part_of=""):
        folder = tmp_path / name
        (folder / "holders").mkdir(parents=True)
        (folder / "dev").write_text(f"{number}\n")
        for other in holders:
            (folder / "holders" / other).touch()
        if mapped:
            (folder / "dm").mkdir()
            (folder / "dm/name").write_text(f"{mapped}\n")
        if part_of:
            (folder / "partition").write_text("1\n")
            (tmp_path / part_of / name).symlink_to(folder)

    make.swaps = tmp_path / "swaps"
    return make


def uses(name, mounted="", opened=()):
    own = Namespace(1, own=True, mounts=Mounts(ROOT + mounted))
    return [(use.what, use.way) for use in blockusers.uses(name, [own], dict(opened))]


def test_volume_on_a_device_is_unmounted_and_removed_first(sys):
    sys("loop7", "7:7", holders=["dm-0"])
    sys("dm-0", "253:0", mapped="vg-data")
    mounted = "30 20 253:0 / /srv/my\\040data rw - ext4 /dev/mapper/vg-data rw"
    assert uses("loop7", mounted) == [
        ("mounted on /srv/my data", r"'umount /srv/my\ data'"),
        ("under /dev/mapper/vg-data", "'dmsetup remove vg-data'"),
    ]


def test_array_on_a_partition_is_stopped(sys):
    sys("loop7", "7:7")
    sys("loop7p1", "259:1", part_of="loop7", holders=["md127"])
    sys("md127", "9:127")
    assert uses("loop7") == [("a part of /dev/md127", "'mdadm --stop /dev/md127'")]


def test_file_system_with_a_number_of_its_own_is_known_by_its_device(sys):
    """As btrfs has it."""
    sys("loop7", "7:7")
    mounted = "30 20 0:40 / /srv/data rw - btrfs /dev/loop7 rw"
    assert uses("loop7", mounted) == [("mounted on /srv/data", "'umount /srv/data'")]


def test_mount_that_lies_on_another_ends_first(sys):
    sys("loop7", "7:7")
    mounted = (
        "30 20 7:7 / /data rw - ext4 /dev/loop7 rw\n31 30 7:7 /a /data/b rw - ext4 /dev/loop7 rw"
    )
    assert [way for _, way in uses("loop7", mounted)] == ["'umount /data/b'", "'umount /data'"]


def test_swap_and_programs_are_named(sys):
    sys("loop7", "7:7")
    sys.swaps.write_text("Filename Type Size Used Priority\n/dev/loop7 partition 1020 0 -2\n")
    assert uses("loop7", opened=[("/dev/loop7", ["qemu (pid 7)"])]) == [
        ("used as swap", "'swapoff /dev/loop7'"),
        ("open by qemu (pid 7)", "stop qemu (pid 7)"),
    ]
