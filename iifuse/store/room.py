"""Is there room? Looked at before anything is written: a verb that is refused has done nothing.

What others write meanwhile is not known, so what is looked at here may fail all the same. Room is
what a file system has for others than root, as `df` shows it. Rejected: to write and see. A refused
`-e` of 16 TiB had filled the file system by then, and whoever wrote there beside it had failed.
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
    """A volume that is to have all its space; `what`: for people."""

    path: str
    size_bytes: int
    what: str


def check(needs: Iterable[Need]) -> None:
    """Raise BadVolume when a file system cannot take all that is wanted of it. Blocks."""
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
    """What is still to be allocated: nothing of a device, and of a file what it has not yet."""
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
    """What a file system has for others than root; None: it does not say. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def data_bytes(volume: Volume) -> int:
    """What a copy of a volume takes at the most, holes left out. Raises OSError."""
    if volume.is_device:
        return volume.size_bytes
    return min(volume.stat().st_blocks * _SECTOR_BYTES, volume.size_bytes)
