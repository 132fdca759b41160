"""Which disks are in this machine, by where they stand in sysfs."""

import pytest

from iifuse.store.transport import remote_disk, remote_file_system

PCI = "/sys/devices/pci0000:00/0000:00:1f.2"
HERE = {
    "virtio": "/sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda",
    "virtio without PCI": "/sys/devices/platform/4010000000.virtio_mmio/virtio0/block/vda",
    "virtio SCSI": f"{PCI}/virtio2/host2/target2:0:0/2:0:0:0/block/sda",
    "SATA": f"{PCI}/ata1/host0/target0:0:0/0:0:0:0/block/sda",
    "SAS": f"{PCI}/host6/port-6:0/end_device-6:0/target6:0:0/6:0:0:0/block/sdb",
    "RAID controller": f"{PCI}/host0/target0:2:0/0:2:0:0/block/sda",
    "memory": "/sys/devices/virtual/block/zram0",
}
ELSEWHERE = {
    "iSCSI": "/sys/devices/platform/host3/session1/target3:0:0/3:0:0:1/block/sdc",
    "Fibre Channel": f"{PCI}/host1/rport-1:0-0/target1:0:0/1:0:0:0/block/sdd",
    "USB": f"{PCI}/usb1/1-1/1-1:1.0/host7/target7:0:0/7:0:0:0/block/sde",
    "NBD": "/sys/devices/virtual/block/nbd0",
    "Ceph RBD": "/sys/devices/rbd/0/block/rbd0",
    "DRBD": "/sys/devices/virtual/block/drbd0",
    "not known": "/sys/devices/virtual/block/zd0",
}


@pytest.mark.parametrize("place", HERE.values(), ids=HERE)
def test_transport_of_this_machine_is_local(place):
    assert remote_disk(place) == ""


@pytest.mark.parametrize(("how", "place"), ELSEWHERE.items(), ids=ELSEWHERE)
def test_transport_to_elsewhere_is_named(how, place):
    assert how in remote_disk(place)
    assert place.rpartition("/")[2] in remote_disk(place)


@pytest.mark.parametrize(
    ("transports", "words"),
    [
        ({"": "pcie"}, ""),
        ({"": "tcp"}, "NVMe over tcp"),
        ({"nvme0": "pcie", "nvme1": "pcie"}, ""),
        ({"nvme0": "pcie", "nvme1": "rdma"}, "NVMe over rdma"),
        ({}, "not known"),
    ],
)
def test_transport_of_a_namespace_is_that_of_all_its_controllers(tmp_path, transports, words):
    above = tmp_path / "nvme-subsystem" / "nvme-subsys0"
    (above / "nvme0n1").mkdir(parents=True)
    for controller, how in transports.items():
        (above / controller).mkdir(exist_ok=True)
        (above / controller / "transport").write_text(f"{how}\n")
    found = remote_disk(str(above / "nvme0n1"))
    assert found == words if not words else words in found


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p", "ceph", "zfs", "virtiofs"])
def test_transport_of_a_file_system_without_disks_is_not_known(kind):
    assert kind in remote_file_system(kind, has_device=False)
    assert remote_file_system("tmpfs", has_device=False) == ""
    assert remote_file_system("ext4", has_device=True) == ""
