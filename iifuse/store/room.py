"""Checks that there is enough space, before anything is written: a refused verb changes nothing.

Other programs may write meanwhile, so a verb may run out of space all the same. The free space is
that for others than root, as `df` shows it. Rejected: to write and see whether it fails. A refused
`-e` of 16 TiB had filled the file system by then, and other programs that wrote there had failed.
"""

import os
from collections.abc import Iterable
from typing import Final, NamedTuple

from iifuse import errors
from iifuse.store.volume import Volume
from iifuse.units import format_size

_SECTOR_BYTES: Final = 512
"""The unit of st_blocks."""


class Need(NamedTuple):
    """A volume that needs all its space. `what`: its role, for people."""

    path: str
    size_bytes: int
    what: str


def check(needs: Iterable[Need]) -> None:
    """Raise BadVolume if a file system has too little space for all volumes on it. Blocks."""
    wanted: dict[int, int] = {}
    for need in needs:
        lacking = _lacking(need)
        if not lacking:
            continue
        folder = _folder(need.path)
        free = free_bytes(folder)
        if free is None:
            continue
        device = os.stat(folder).st_dev
        wanted[device] = wanted.get(device, 0) + lacking
        if wanted[device] > free:
            raise _too_little(need, wanted[device], free)


def _too_little(need: Need, wanted: int, free: int) -> errors.BadVolume:
    lacking = _lacking(need)
    more = f", {format_size(wanted)} with what else this needs there" if wanted > lacking else ""
    return errors.BadVolume(
        need.path,
        f"there is no room for {need.what}: it takes {format_size(lacking)}{more}, and "
        f"{format_size(free)} are free on the file system of {_folder(need.path)}",
        "make room there, or choose another place",
    )


def _lacking(need: Need) -> int:
    """Bytes that a volume still has to get. A device has all of its space."""
    try:
        found = os.stat(need.path)
    except FileNotFoundError:
        return need.size_bytes
    if not os.path.isfile(need.path):
        return 0
    return max(0, need.size_bytes - found.st_blocks * _SECTOR_BYTES)


def _folder(path: str) -> str:
    return os.path.dirname(os.path.realpath(path)) or "/"


def free_bytes(path: str | int) -> int | None:
    """Free bytes of a file system for others than root; None: it does not say. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def data_bytes(volume: Volume) -> int:
    """The most bytes that a copy of a volume needs, without its holes. Raises OSError."""
    if volume.is_device:
        return volume.size_bytes
    return min(volume.stat().st_blocks * _SECTOR_BYTES, volume.size_bytes)
