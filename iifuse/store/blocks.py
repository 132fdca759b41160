"""Block devices as sysfs shows them: which storage each is, and which storage it lies on."""

import glob
import os
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Final, NamedTuple

from iifuse.store.transport import remote_disk

SECTOR_BYTES: Final = 512
"""The unit in which sysfs counts, whatever sectors the device has."""
WHOLE: Final = 1 << 62
"""The end of an extent that is its whole base, even if the base grows."""


class Extent(NamedTuple):
    """Bytes `start` to `end` of a base. A base is a file, a disk or a logical volume."""

    base: str
    start: int
    end: int


class Layers(NamedTuple):
    """A device: which storage it is (`own`), and which storage it lies on (`under`).

    `remote`: why it is not in this machine, for people; empty: it is in this machine.
    """

    own: tuple[Extent, ...]
    under: tuple[Extent, ...] = ()
    remote: str = ""

    @property
    def all(self) -> tuple[Extent, ...]:
        """All storage that a file system on the device uses."""
        return self.own + self.under

    def piece(self, start: int, length: int) -> "Layers":
        """A part of the device. If the device has several extents, this is the whole device.

        It is not known on which of the extents the part lies.
        """
        if len(self.own) != 1:
            return self
        base, first, end = self.own[0]
        part = Extent(base, first + start, min(end, first + start + length))
        return self._replace(own=(part,))


def overlap(some: tuple[Extent, ...], others: tuple[Extent, ...]) -> bool:
    """Have two sets of extents a byte in common?"""
    return any(
        a.base == b.base and a.start < b.end and b.start < a.end for a in some for b in others
    )


Backing = Callable[[str, str], tuple[Layers, int]]
"""(name of a loop device, its backing file) -> (what the device lies on, from which byte on)."""


class Blocks:
    """The block devices below the directory `sys`. `backing` knows loop devices.

    Methods raise OSError.
    """

    def __init__(self, sys: str, backing: Backing) -> None:
        self._sys, self._backing = sys, backing

    def layers(self, device: str) -> Layers:
        """The layers of a device. `device`: its number as 'major:minor'."""
        link = f"{self._sys}/dev/block/{device}"
        if not os.path.exists(link):
            unknown = f"device {device} is not known"
            return Layers((Extent(f"block:{device}", 0, WHOLE),), remote=unknown)
        return self._layers(os.path.realpath(link))

    def _layers(self, place: str) -> Layers:
        if os.path.exists(f"{place}/partition"):
            disk = self._layers(os.path.dirname(place))
            return disk.piece(self._bytes(place, "start"), self._bytes(place, "size"))
        backing_file = _read(place, "loop/backing_file")
        if backing_file:
            below, offset = self._backing(os.path.basename(place), backing_file)
            return below.piece(offset, self._bytes(place, "size"))
        slaves = [self._layers(slave) for slave in self._slaves(place)]
        if slaves:
            return _over(place, slaves)
        own = Extent(_disk(place, _read(place, "diskseq")), 0, WHOLE)
        return Layers((own,), remote=remote_disk(place))

    def _slaves(self, place: str) -> list[str]:
        return [os.path.realpath(link) for link in sorted(glob.glob(f"{place}/slaves/*"))]

    def _bytes(self, place: str, name: str) -> int:
        return int(_read(place, name) or 0) * SECTOR_BYTES

    def with_siblings(self, device: str) -> list[str]:
        """The numbers of all devices of a btrfs. `device` is one of them; others stay alone."""
        name = os.path.basename(os.path.realpath(f"{self._sys}/dev/block/{device}"))
        for folder in glob.glob(f"{self._sys}/fs/btrfs/*/devices"):
            if os.path.lexists(f"{folder}/{name}"):
                found = (_read(link, "dev") for link in sorted(glob.glob(f"{folder}/*")))
                return [number for number in found if number]
        return [device]


def _over(place: str, slaves: list[Layers]) -> Layers:
    """The layers of a device that was made of others.

    A multipath device is the disk behind its paths. A mapping without a UUID counts as all of the
    devices below it: somebody made it by hand, and only its table says which part it is. Any other
    device counts as storage of its own.
    """
    uuid = _read(place, "dm/uuid")
    below = tuple(sorted({extent for layers in slaves for extent in layers.all}))
    remote = next((layers.remote for layers in slaves if layers.remote), "")
    is_plain = os.path.isdir(f"{place}/dm") and not uuid
    if uuid.startswith("mpath-") or is_plain:
        own = tuple(sorted({extent for layers in slaves for extent in layers.own}))
        return Layers(own, tuple(extent for extent in below if extent not in own), remote)
    array = _read(place, "md/uuid")
    name = f"dm:{uuid}" if uuid else f"md:{array}" if array else f"block:{_number(place)}"
    return Layers((Extent(name, 0, WHOLE),), below, remote)


@cache
def _disk(place: str, _sequence: str) -> str:
    """The WWID (SCSI, NVMe) or serial number (virtio) of a disk, the same on each path to it.

    The answer is kept while the kernel's sequence number of the disk stays the same, because the
    kernel asks the disk for it, and that takes time.
    """
    for name in ("wwid", "device/wwid", "serial"):
        found = _read(place, name)
        if found:
            return f"disk:{found}"
    return f"block:{_number(place)}"


def _number(place: str) -> str:
    return _read(place, "dev")


def _read(place: str, name: str) -> str:
    """A line of sysfs; empty if there is none, or if the device does not answer."""
    with suppress(OSError), open(f"{place}/{name}", errors="surrogateescape") as file:
        return file.read().strip("\n ")
    return ""
