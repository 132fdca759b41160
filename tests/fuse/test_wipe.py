"""An incomplete shadow is recognised as nothing once its set is disabled (K7)."""

import os
import struct
import subprocess
import zlib

import pytest
from programs_here import Here

from iifuse.store.volume import open_volume
from iifuse.store.wiping import wipe

SIZE = 320 << 20
"""More than the least that mkfs.xfs makes."""
SECTOR = 512


def made_by(*words):
    def make(path):
        subprocess.run([*words, path], check=True, capture_output=True)

    return make


def put(path, *pieces):
    with open(path, "r+b") as file:
        for at, data in pieces:
            file.seek(at)
            file.write(data)


def mbr(path):
    entry = struct.pack("<B3sB3sII", 0, b"", 0x83, b"", 2048, 4096)
    put(path, (446, entry), (510, b"\x55\xaa"))


def gpt(path):
    """Two headers, of which the one at the end is enough, and the table that shields them."""
    entry = os.urandom(32) + struct.pack("<QQQ", 2048, 4095, 0) + bytes(72)
    entries = entry.ljust(128 * 128, b"\0")
    last = SIZE // SECTOR - 1
    guard = struct.pack("<B3sB3sII", 0, b"", 0xEE, b"", 1, last)
    put(path, (446, guard), (510, b"\x55\xaa"))
    for own, other, table in ((1, last, 2), (last, 1, last - 32)):
        places = (own, other, 34, last - 33, bytes(range(16)), table, 128, 128)
        head = struct.pack("<8sIII4xQQQQ16sQII", b"EFI PART", 0x10000, 92, 0, *places)
        head += struct.pack("<I", zlib.crc32(entries))
        head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
        put(path, (own * SECTOR, head), (table * SECTOR, entries))


def lvm(path):
    body = struct.pack("<I8s32s", 32, b"LVM2 001", b"a" * 32).ljust(SECTOR - 20, b"\0")
    crc = zlib.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    put(path, (SECTOR, struct.pack("<8sQI", b"LABELONE", 1, crc) + body))


def luks1(path):
    head = struct.pack(">6sH", b"LUKS\xba\xbe", 1)
    put(path, (0, head), (168, b"0" * 36))


def luks2(path):
    """Its second header is enough for cryptsetup, and has a magic of its own."""
    for at, magic in ((0, b"LUKS\xba\xbe"), (0x8000, b"SKUL\xba\xbe"), (0x400000, b"SKUL\xba\xbe")):
        head = struct.pack(">6sHQ", magic, 2, 0x8000).ljust(168, b"\0") + b"0" * 40
        put(path, (at, head.ljust(256, b"\0") + struct.pack(">Q", at)))


def raid_at_the_end(path):
    """Linux md, superblock 1.0: 8 KiB before the end."""
    at = (SIZE // SECTOR - 16) & ~7
    head = struct.pack("<IIII16s32sQIIQIIII", 0xA92B4EFC, 1, 0, 0, bytes(range(16)), b"name",
                       0, 1, 0, 8, 0, 1, 0, 0)  # fmt: skip
    head = head.ljust(128, b"\0") + struct.pack("<QQQQI", 0, at, at, 0, 0)
    blob = bytearray(head.ljust(256, b"\0"))
    total = sum(struct.unpack("<64I", bytes(blob)))
    blob[216:220] = struct.pack("<I", (total & 0xFFFFFFFF) + (total >> 32) & 0xFFFFFFFF)
    put(path, (at * SECTOR, bytes(blob)))


CONTENTS = {
    "ext4": made_by("mkfs.ext4", "-q"),
    "xfs": made_by("mkfs.xfs", "-q"),
    "btrfs": made_by("mkfs.btrfs", "-q"),
    "swap": made_by("mkswap"),
    "iso9660": lambda path: put(path, (32768, b"\1CD001\1"), (34816, b"\xffCD001\1")),
    "lvm": lvm,
    "luks1": luks1,
    "luks2": luks2,
    "raid": raid_at_the_end,
    "gpt": gpt,
    "mbr": mbr,
}


def known(path):
    """What libblkid and wipefs say that it is; both are asked."""
    one = subprocess.run(["blkid", "-p", path], capture_output=True, text=True, check=False)
    other = subprocess.run(["wipefs", "-n", path], capture_output=True, text=True, check=True)
    return one.stdout + other.stdout


@pytest.fixture(params=CONTENTS)
def filled(request, disk_place):
    """A volume of which libblkid says what it is, and a blank one."""
    shadow, master = disk_place / "s", disk_place / "m"
    for path in (shadow, master):
        path.touch()
        os.truncate(path, SIZE)
    CONTENTS[request.param](shadow)
    assert known(shadow)
    return shadow, master


@pytest.mark.finding("K7.1")
def test_shadow_of_a_disabled_dependent_set_is_recognised_as_nothing(filled, new_service):
    shadow, master = filled
    service = new_service("app", "stop_wait=2", root=shadow.parent)
    words = ("-n", "-e", "dep", master, shadow, shadow.with_name("b"))
    assert service.run("iiadm", *words).returncode == 0
    done = service.run("iiadm", "-d", shadow)
    assert done.returncode == 0, done.stderr
    assert "the first 64 KiB" in done.stderr
    assert not known(shadow)


@pytest.mark.finding("K7.1")
def test_what_was_wiped_is_told(disk_place):
    path = disk_place / "s"
    path.touch()
    os.truncate(path, SIZE)
    for make in (CONTENTS["btrfs"], raid_at_the_end):
        make(path)
    volume = open_volume(str(path))
    wiped = {found.kind: found.at for found in wipe(volume, Here())}
    volume.close()
    assert wiped == {"btrfs": 0x10040, "linux_raid_member": SIZE - 8192}
    assert not known(path)


@pytest.mark.parametrize("size", [1, 4096, 65535, 65537, 1 << 20])
def test_small_shadow_is_wiped_as_far_as_it_reaches(disk_place, size):
    path = disk_place / "s"
    path.write_bytes(b"x" * size)
    volume = open_volume(str(path))
    assert wipe(volume, Here()) == []
    volume.close()
    assert path.read_bytes() == bytes(min(size, 65536)) + b"x" * max(0, size - 65536)
