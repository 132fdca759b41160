"""What devices and file systems are that this machine need not have, by made-up trees (K3)."""

import os
import stat

import pytest

from iifuse.store.blocks import WHOLE, Blocks, Extent, Layers
from iifuse.store.identity import Host, Identity, OnService
from iifuse.store.linux import LoopStatus
from iifuse.store.mounts import Mounts

MIB = 1 << 20


class Tree:
    """A sysfs below a directory."""

    def __init__(self, root) -> None:
        self.root = root
        (root / "dev/block").mkdir(parents=True)
        (root / "fs/btrfs").mkdir(parents=True)

    def disk(self, name, device, *, slaves=(), under="", **lines):
        """A device; `lines`: what its files say, `_` for a directory below."""
        place = self.root / "devices" / under / name
        (place / "slaves").mkdir(parents=True)
        for slave in slaves:
            os.symlink(next(self.root.rglob(f"devices/**/{slave}")), place / "slaves" / slave)
        for path, text in {"dev": device, "size": 2048, **lines}.items():
            file = place / path.replace("__", "/")
            file.parent.mkdir(exist_ok=True)
            file.write_text(f"{text}\n")
        os.symlink(place, self.root / "dev/block" / device)

    def layers(self, device) -> Identity:
        found = Blocks(str(self.root), _no_loops).layers(device)
        return Identity(True, (0, 0), found.own, found.under)


def _no_loops(name, backing_file):
    raise AssertionError(name)


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path / "sys")


def two_paths_of_a_scsi_disk(tree):
    for name, device in (("sda", "8:0"), ("sdb", "8:16")):
        tree.disk(name, device, device__wwid="naa.600")
    return "8:0", "8:16"


def a_multipath_disk_and_a_path_of_it(tree):
    two_paths_of_a_scsi_disk(tree)
    tree.disk("dm-0", "253:0", slaves=("sda", "sdb"), dm__uuid="mpath-3600")
    return "253:0", "8:16"


def two_nodes_of_a_namespace(tree):
    tree.disk("nvme0n1", "259:0", wwid="eui.00")
    tree.disk("nvme1n1", "259:1", wwid="eui.00")
    return "259:0", "259:1"


def a_partition_and_its_disk(tree):
    tree.disk("sda", "8:0", device__wwid="naa.600", size=40960)
    tree.disk("sda1", "8:1", under="sda", partition=1, start=2048)
    return "8:0", "8:1"


def one_partition_by_two_paths(tree):
    a_partition_and_its_disk(tree)
    tree.disk("sdb", "8:16", device__wwid="naa.600", size=40960)
    tree.disk("sdb1", "8:17", under="sdb", partition=1, start=2048)
    return "8:1", "8:17"


def a_logical_volume_and_the_disk_below(tree):
    a_partition_and_its_disk(tree)
    tree.disk("dm-0", "253:0", slaves=("sda1",), dm__uuid="LVM-a")
    return "253:0", "8:0"


def a_logical_volume_over_multipath_and_a_path(tree):
    a_multipath_disk_and_a_path_of_it(tree)
    tree.disk("dm-1", "253:1", slaves=("dm-0",), dm__uuid="LVM-a")
    return "253:1", "8:0"


def a_crypt_device_and_the_logical_volume_below(tree):
    a_logical_volume_and_the_disk_below(tree)
    tree.disk("dm-1", "253:1", slaves=("dm-0",), dm__uuid="CRYPT-LUKS2-b")
    return "253:1", "253:0"


def an_array_and_a_member(tree):
    a_partition_and_its_disk(tree)
    tree.disk("sdc", "8:32", device__wwid="naa.7")
    tree.disk("md0", "9:0", slaves=("sda1", "sdc"), md__uuid="m")
    return "9:0", "8:32"


def two_mappings_by_hand(tree):
    a_partition_and_its_disk(tree)
    for n in range(2):
        tree.disk(f"dm-{n}", f"253:{n}", slaves=("sda1",), dm__uuid="")
    return "253:0", "253:1"


def two_disks(tree):
    tree.disk("sda", "8:0", device__wwid="naa.600")
    tree.disk("sdb", "8:16", device__wwid="naa.601")
    return "8:0", "8:16"


def two_disks_that_say_nothing(tree):
    tree.disk("vda", "254:0", serial="")
    tree.disk("vdb", "254:16")
    return "254:0", "254:16"


def two_partitions(tree):
    a_partition_and_its_disk(tree)
    tree.disk("sda2", "8:2", under="sda", partition=2, start=4096)
    return "8:1", "8:2"


def two_logical_volumes_of_one_disk(tree):
    a_logical_volume_and_the_disk_below(tree)
    tree.disk("dm-1", "253:1", slaves=("sda1",), dm__uuid="LVM-b")
    return "253:0", "253:1"


def a_logical_volume_and_the_partition_beside(tree):
    two_partitions(tree)
    tree.disk("dm-0", "253:0", slaves=("sda1",), dm__uuid="LVM-a")
    return "253:0", "8:2"


def two_partitions_of_a_multipath_disk(tree):
    a_multipath_disk_and_a_path_of_it(tree)
    for n in (1, 2):
        tree.disk(f"dm-{n}", f"253:{n}", slaves=("dm-0",), dm__uuid=f"part{n}-mpath-3600")
    return "253:1", "253:2"


SAME = (two_paths_of_a_scsi_disk, a_multipath_disk_and_a_path_of_it, two_nodes_of_a_namespace)
SHARING = (
    a_partition_and_its_disk, one_partition_by_two_paths, a_logical_volume_and_the_disk_below,
    a_logical_volume_over_multipath_and_a_path, a_crypt_device_and_the_logical_volume_below,
    an_array_and_a_member, two_mappings_by_hand,
)  # fmt: skip
APART = (
    two_disks, two_disks_that_say_nothing, two_partitions, two_logical_volumes_of_one_disk,
    a_logical_volume_and_the_partition_beside, two_partitions_of_a_multipath_disk,
)  # fmt: skip


@pytest.mark.parametrize("devices", [*SAME, *SHARING, *APART])
def test_identity_devices_are_in_each_others_way_if_they_share_a_byte(tree, devices):
    one, other = map(tree.layers, devices(tree))
    assert one.conflicts(other) is other.conflicts(one) is (devices not in APART)
    assert one.conflicts(one)
    if devices in SAME:
        assert one.is_same(other)


def test_identity_partition_is_a_piece_of_its_disk(tree):
    _, part = a_partition_and_its_disk(tree)
    assert tree.layers(part).own == (Extent("disk:naa.600", MIB, 2 * MIB),)


# -- file systems -----------------------------------------------------------------------------


def host(tree, *lines, loops=()):
    """Mounts as (device, where, type, source, options), the first is the root; loops by node."""
    root, *rest = lines
    rows = [f"1 0 {root[0]} / {root[1]} rw - {root[2]} {root[3]} {root[4]}"]
    rows += [
        f"{n} 1 {device} / {where} rw shared:1 - {kind} {source} {options}"
        for n, (device, where, kind, source, options) in enumerate(rest, 2)
    ]
    return Host(Mounts("\n".join(rows)), str(tree.root), dict(loops).__getitem__)


def root_of(tree):
    tree.disk("vda", "254:0", serial="root")
    return "254:0", "/", "ext4", "/dev/root", "rw"


def under(host, place):
    return {extent.base for extent in host.under(host.locate(str(place)).mount)}


def test_identity_file_lies_on_what_its_file_system_lies_on(tree, tmp_path):
    a_logical_volume_and_the_disk_below(tree)
    here = host(tree, root_of(tree), ("253:0", str(tmp_path), "xfs", "/dev/vg/lv", "rw"))
    assert under(here, tmp_path / "v") == {"dm:LVM-a", "disk:naa.600"}
    assert under(here, "/usr") == {"disk:root"}


def test_identity_mount_that_is_hidden_by_another_does_not_count(tree, tmp_path):
    a_logical_volume_and_the_disk_below(tree)
    first = ("0:99", str(tmp_path), "tmpfs", "none", "rw")
    lines = "\n".join([
        "1 0 254:0 / / rw - ext4 /dev/root rw",
        f"2 1 0:99 / {tmp_path} rw - {first[2]} none rw",
        f"3 2 253:0 / {tmp_path} rw - xfs /dev/vg/lv rw",
        f"4 1 0:98 / {tmp_path}/v rw - tmpfs none rw",
    ])  # fmt: skip
    root_of(tree)
    here = Host(Mounts(lines), str(tree.root))
    assert under(here, tmp_path / "v") == {"dm:LVM-a", "disk:naa.600"}


def test_identity_btrfs_lies_on_all_its_devices(tree, tmp_path, monkeypatch):
    two_disks(tree)
    node = tmp_path / "node"
    node.touch()
    devices = tree.root / "fs/btrfs/uuid/devices"
    devices.mkdir(parents=True)
    for name in ("sda", "sdb"):
        os.symlink(tree.root / "devices" / name, devices / name)
    here = host(tree, root_of(tree), ("0:44", str(tmp_path / "m"), "btrfs", str(node), "rw"))
    _is_device(monkeypatch, node, os.makedev(8, 0))
    (tmp_path / "m").mkdir()
    assert under(here, tmp_path / "m/v") == {"disk:naa.600", "disk:naa.601"}


def _is_device(monkeypatch, node, number):
    real = os.lstat

    def lstat(path):
        found = real(path)
        if path != str(node):
            return found
        fields = dict(zip(("st_mode", "st_rdev"), (stat.S_IFBLK | 0o600, number), strict=True))
        return type("Stat", (), fields)()

    monkeypatch.setattr(os, "lstat", lstat)


def test_identity_file_of_an_overlay_is_that_of_its_upper_directory(tree, tmp_path):
    for name in ("upper", "merged"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "v").write_bytes(b"x")
    options = f"rw,lowerdir=/,upperdir={tmp_path}/upper,workdir=/w"
    here = host(tree, root_of(tree), ("0:50", f"{tmp_path}/merged", "overlay", "overlay", options))
    merged, upper = (here.identity(f"{tmp_path}/{name}/v") for name in ("merged", "upper"))
    assert merged.conflicts(upper)
    assert {extent.base for extent in merged.under} == {"disk:root"}


# -- our own mounts ---------------------------------------------------------------------------


SERVICE = ("0:77", "/mnt/ii", "fuse.iifuse", "iifuse", "rw")


def loop(tree, number, backing_file, **more):
    tree.disk(f"loop{number}", f"7:{number}", loop__backing_file=backing_file, **more)


def in_the_mount(tree, place):
    return host(tree, root_of(tree), SERVICE), "/mnt/ii/srv/vol01"


def on_a_file_system_in_a_loop_device(tree, place):
    loop(tree, 0, "/mnt/ii/srv/vol01")
    return host(tree, root_of(tree), SERVICE, ("7:0", str(place), "ext4", "/dev/loop0", "rw")), (
        f"{place}/new"
    )


def on_one_whose_file_has_no_name_here(tree, place):
    loop(tree, 0, "/srv/vol01")
    loops = {"/dev/loop0": LoopStatus(os.makedev(0, 77), 5, 0, 0)}
    lines = (SERVICE, ("7:0", str(place), "ext4", "/dev/loop0", "rw"))
    return host(tree, root_of(tree), *lines, loops=loops), f"{place}/new"


def in_a_logical_volume_over_two_loops(tree, place):
    loop(tree, 0, "/mnt/ii/srv/vol01")
    loop(tree, 1, f"{place}/image")
    tree.disk("dm-0", "253:0", slaves=("loop0",), dm__uuid="LVM-a")
    tree.disk("loop1p1", "7:2", under="loop1", partition=1, start=2048)
    lines = (SERVICE, ("253:0", str(place), "ext4", "/dev/vg/lv", "rw"))
    return host(tree, root_of(tree), *lines), f"{place}/image"


def in_an_overlay(tree, place):
    options = "rw,lowerdir=/,upperdir=/mnt/ii/srv,workdir=/w"
    lines = (SERVICE, ("0:50", str(place), "overlay", "overlay", options))
    return host(tree, root_of(tree), *lines), f"{place}/v"


def by_a_link(tree, place):
    os.symlink("/mnt/ii/srv/vol01", place / "link")
    return host(tree, root_of(tree), SERVICE), f"{place}/link"


WAYS = (
    in_the_mount, on_a_file_system_in_a_loop_device, on_one_whose_file_has_no_name_here,
    in_a_logical_volume_over_two_loops, in_an_overlay, by_a_link,
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_identity_path_that_leads_to_a_service_is_refused_without_a_look(
    tree, tmp_path, monkeypatch, way
):
    """A thread that waits for our own mount outlives a kill of the service."""
    here, path = way(tree, tmp_path)
    looked = []
    real = os.lstat
    monkeypatch.setattr(os, "lstat", lambda at: looked.append(at) or real(at))
    with pytest.raises(OnService) as caught:
        here.identity(path)
    assert caught.value.steps[0] == "/mnt/ii"
    beyond = [at for at in looked if at.startswith("/mnt/ii") or at == path != f"{tmp_path}/link"]
    assert not beyond


def test_layers_piece_of_what_others_make_up_is_all_of_it():
    both = Layers((Extent("a", 0, WHOLE), Extent("b", 0, WHOLE)))
    assert both.piece(5, 5) == both
