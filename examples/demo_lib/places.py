"""The two hosts, their volumes, and the directories that stand for disks and the SAN."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Final

from iifuse.units import GIB, KIB, MIB, parse_size

from .stage import Untrue

ROOM_BYTES: Final = 3 * GIB
PROGRAMS: Final = (
    "fsfreeze", "losetup", "mkfs.ext4", "mount", "shred", "sqlite3", "tar", "umount",
)  # fmt: skip


@dataclass(frozen=True)
class Volume:
    """A production volume. The first `data_bytes` hold something at the beginning."""

    name: str
    size_bytes: int
    data_bytes: int


BOOKS: Final = Volume("vol01", 384 * MIB + 12 * KIB, 384 * MIB)
"""Carries the file system with the database; its sectors are whole, as a disk's.

The file system comes on top of old data, as on a disk: where it first writes zeros into a free
part, something changes.
"""
RAW: Final = (
    Volume("vol02", 64 * MIB + 4 * KIB + 1, 40 * MIB),
    Volume("vol03", 97 * MIB + 512, 97 * MIB),
    Volume("vol04", 150 * MIB - 1, 60 * MIB),
    Volume("vol05", 231 * MIB + 20 * KIB, 160 * MIB),
)
VOLUMES: Final = (BOOKS, *RAW)
DOCUMENTS: Final = 40
DOCUMENT_BYTES: Final = 5 * MIB


class Site:
    """All places, below one directory. `variables` are their names in the commands."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.variables = {
            "D": root,
            "PROD": f"{root}/production",
            "SAN": f"{root}/san",
            "TAPE": f"{root}/tape",
            "APP": f"{root}/app/mnt",
            "BAK": f"{root}/bak/mnt",
            "DATA": f"{root}/app/data",
            "SNAP": f"{root}/bak/data",
            "DEMO": os.path.dirname(os.path.abspath(__file__)),
        }
        for name in ("PROD", "SAN", "TAPE", "APP", "BAK", "DATA", "SNAP"):
            os.makedirs(self.variables[name])

    def path(self, text: str) -> str:
        """The path that a text with variables stands for."""
        for name in sorted(self.variables, key=len, reverse=True):
            text = text.replace(f"${name}", self.variables[name])
        return text

    def master(self, volume: Volume) -> str:
        """The raw master."""
        return self.path(f"$PROD/{volume.name}")

    def shadow(self, volume: Volume) -> str:
        """The raw shadow."""
        return self.path(f"$SAN/{volume.name}")

    def bitmap(self, volume: Volume) -> str:
        """The bitmap volume of the application host."""
        return self.path(f"$PROD/{volume.name}.bmp")

    def view(self, mount: str, raw: str) -> str:
        """The file that the mount of a host (`APP` or `BAK`) shows for a raw volume."""
        return self.variables[mount] + raw


def make_volumes(site: Site) -> None:
    """The production volumes: some data, holes after it."""
    for volume in VOLUMES:
        with open(site.master(volume), "xb") as file:
            file.writelines(os.urandom(MIB) for _ in range(volume.data_bytes // MIB))
            file.truncate(volume.size_bytes)


def find_room() -> str:
    """A new directory, in memory if there is enough. Raises Untrue."""
    chosen = os.environ.get("TMPDIR")
    for place in [chosen] if chosen else ["/dev/shm", tempfile.gettempdir()]:  # noqa: S108
        if os.path.isdir(place) and _has_room(place):
            return os.path.realpath(tempfile.mkdtemp(prefix="iifuse-demo-", dir=place))
    raise Untrue("there is room for the demonstration", "3 GiB are needed, TMPDIR=DIR says where")


def _has_room(place: str) -> bool:
    room = shutil.disk_usage(place).free >= ROOM_BYTES
    return room and (place != "/dev/shm" or _free_memory() >= ROOM_BYTES + GIB)  # noqa: S108


def _free_memory() -> int:
    with open("/proc/meminfo") as file:
        fields = dict(line.split(":") for line in file)
    return parse_size(fields["MemAvailable"].replace("kB", "KiB"))


def check_programs(path: str) -> None:
    """Raise Untrue when this host cannot mount or lacks a program."""
    if os.geteuid():
        raise Untrue("the demonstration mounts file systems", "run it as root")
    if not os.path.exists("/dev/fuse"):
        raise Untrue("there is a /dev/fuse", "load the module: modprobe fuse")
    for name in (*PROGRAMS, "iifuse", "iiadm"):
        if shutil.which(name, path=path) is None:
            raise Untrue(f"there is a program {name}", "'make demo' installs what is missing")
