"""Is a volume in this machine, or may a call on it have to wait for another machine?

If a disk in this machine fails, calls on it fail. A disk behind a network may not answer for any
length of time. A disk about which nothing is known counts as remote.
"""

import os
import re
from dataclasses import dataclass
from typing import Final

_MEMORY: Final = {"tmpfs", "ramfs", "devtmpfs", "hugetlbfs"}
"""File systems with no disk at all."""
_HERE: Final = (
    re.compile(r"/virtio\d+/"),  # a disk of the hypervisor, which this machine cannot do without
    re.compile(r"/ata\d+/"),
    re.compile(r"/end_device-"),  # SAS
    re.compile(r"/pci[\da-f]{4}:.*/host\d+/target"),  # a disk of a RAID controller
    re.compile(r"/virtual/block/(ram|zram)\d+"),
)
"""Parts of the path of a local disk in sysfs."""
_ELSEWHERE: Final = {
    "/session": "iSCSI", "/rport-": "Fibre Channel", "/fc_": "Fibre Channel", "/usb": "USB",
    "/nbd": "NBD", "/rbd": "Ceph RBD", "/drbd": "DRBD",
}  # fmt: skip
"""Parts of the path of a remote disk in sysfs -> how it is reached."""


@dataclass(frozen=True)
class DeclaredPlaces:
    """Paths that the administrator has declared local or remote (`-o local=`, `-o remote=`).

    A path is that of a volume, or of a directory above volumes.
    """

    local: tuple[str, ...] = ()
    remote: tuple[str, ...] = ()

    def why_remote(self, path: str, found: str) -> str:
        """Why a volume is remote, for people; empty: it is local.

        `found`: the reason that was found out without these declarations. Of several declared paths
        that fit, the longest counts.
        """
        fitting = {len(p): "" for p in self.local if _is_below(path, p)}
        fitting |= {len(p): f"-o remote={p} says so" for p in self.remote if _is_below(path, p)}
        return fitting[max(fitting)] if fitting else found


def _is_below(path: str, above: str) -> bool:
    return path == above or path.startswith(above.rstrip("/") + "/")


def remote_file_system(kind: str, *, has_device: bool) -> str:
    """Why the files of a file system are remote, apart from its block devices; empty: they are not.

    `has_device`: it lies on block devices, for which `remote_disk` answers.
    """
    return "" if has_device or kind in _MEMORY else f"the file system is {kind}"


def remote_disk(place: str) -> str:
    """Why a disk is remote; empty: it is in this machine. `place`: its directory in sysfs."""
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
    """`remote_disk` for NVMe. Each controller says how it is reached.

    If there are several paths, the controllers of all of them are in the directory above.
    """
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
