"""Does a call on a volume wait for this machine's own disks only, or for somebody far away?

A disk in this machine may fail, and then its calls do; one behind a network may not answer for as
long as anybody likes. What is not known counts as far away.
"""

import os
import re
from dataclasses import dataclass
from typing import Final

_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
"""File systems with no disk at all."""
_HERE: Final = (
    re.compile(r"/virtio\d+/"),  # the hypervisor's, which is as near as the machine itself
    re.compile(r"/ata\d+/"),
    re.compile(r"/end_device-"),  # SAS
    re.compile(r"/pci[\da-f]{4}:.*/host\d+/target"),  # a RAID controller's
    re.compile(r"/virtual/block/(ram|zram)\d+"),
)
"""Where a local disk stands in sysfs."""
_ELSEWHERE: Final = {
    "/session": "iSCSI", "/rport-": "Fibre Channel", "/fc_": "Fibre Channel", "/usb": "USB",
    "/nbd": "NBD", "/rbd": "Ceph RBD", "/drbd": "DRBD",
}  # fmt: skip
"""Parts of the place of a disk that is reached otherwise."""


@dataclass(frozen=True)
class DeclaredPlaces:
    """What the administrator has said of volumes: paths of them, or of directories above them."""

    local: tuple[str, ...] = ()
    remote: tuple[str, ...] = ()

    def why_remote(self, path: str, found: str) -> str:
        """`found`: why it is remote as far as we can tell. The longest path that fits counts."""
        fitting = {len(p): "" for p in self.local if _is_below(path, p)}
        fitting |= {len(p): f"-o remote={p} says so" for p in self.remote if _is_below(path, p)}
        return fitting[max(fitting)] if fitting else found


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def remote_file_system(kind: str, *, has_device: bool) -> str:
    """Why files of a file system are far away, apart from its block devices; empty: they are not.

    `has_device`: it lies on block devices, which are asked about themselves.
    """
    return "" if has_device or kind in _MEMORY else f"the file system is {kind}"


def remote_disk(place: str) -> str:
    """Why a disk is far away; empty: it is in this machine. `place`: its directory in sysfs."""
    name = os.path.basename(place)
    if "/nvme" in place:
        return _remote_namespace(place, name)
    for part, how in _ELSEWHERE.items():
        if part in place:
            return f"{name} is reached by {how}"
    if any(known.search(place) for known in _HERE):
        return ""
    return f"how {name} is reached is not known"


def _remote_namespace(place: str, name: str) -> str:
    """NVMe: a controller says how it is reached; one with several paths has all of them beside."""
    above = os.path.dirname(place)
    paths = [above, *(f"{above}/{one}" for one in _entries(above) if re.match(r"nvme\d+$", one))]
    ways = {_line(f"{path}/transport") for path in paths} - {""}
    if ways == {"pcie"}:
        return ""
    how = ", ".join(f"NVMe over {way}" for way in sorted(ways - {"pcie"}))
    return f"{name} is reached by {how}" if how else f"how {name} is reached is not known"


def _entries(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _line(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
