"""Which mount a path lies in, by /proc/self/mountinfo. No mounted file is touched."""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

SERVICE_KIND: Final = "fuse.iifuse"
"""The file system type of a service's mount, as the kernel names it."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line of mountinfo.

    `device`: 'major:minor' of its file system. `root`: the directory of the file system that is
    mounted. `point`: where it is mounted. `peers`: 'shared:N' or 'master:N' for the groups of
    mounts that it belongs to or follows.
    """

    number: int
    parent: int | None
    device: str
    root: str
    point: str
    kind: str
    source: str
    options: tuple[str, ...]
    peers: tuple[str, ...] = ()

    @property
    def device_number(self) -> int:
        """The number of the file system, as stat(2) has it."""
        major, minor = map(int, self.device.split(":"))
        return os.makedev(major, minor)

    @property
    def is_service(self) -> bool:
        """Is this the mount of an iifuse service, our own or another?"""
        return self.kind == SERVICE_KIND

    def option(self, name: str) -> str | None:
        """The value of the file system's option `name=`; None: it has none."""
        found = (o.partition("=")[2] for o in self.options if o.startswith(f"{name}="))
        return next(found, None)

    def inside(self, path: str) -> str:
        """The path that the file system itself has for a file of this mount."""
        below = path[len(self.point) :] if self.point != "/" else path
        return f"{self.root.rstrip('/')}/{below.lstrip('/')}"


def mounts() -> "Mounts":
    """The mounts that this process sees now."""
    with open("/proc/self/mountinfo", errors="surrogateescape") as file:
        return Mounts(file.read())


class Mounts:
    """All mounts of this process, as a tree: one mount may hide another at the same place."""

    def __init__(self, text: str) -> None:
        self._all = [_parse(line) for line in text.splitlines()]
        numbers = {mount.number for mount in self._all}
        self._children = {
            (m.parent if m.parent in numbers else None, m.point): m for m in self._all
        }

    @property
    def services(self) -> list[Mount]:
        """The mounts of iifuse services, also those that nobody serves any more."""
        return [mount for mount in self._all if mount.is_service]

    def at(self, point: str) -> list[Mount]:
        """All mounts at a place, in the order in which they were made."""
        return [mount for mount in self._all if mount.point == point]

    def enter(self, current: Mount | None, path: str) -> Mount | None:
        """The mount of `path`, for a walk through directories that comes from `current`."""
        while True:
            above = self._children.get((current.number if current else None, path))
            if above is None or above is current:
                return current
            current = above

    def holding(self, path: str) -> Mount | None:
        """The mount that holds a path. The path must not contain links."""
        at, current = "/", self.enter(None, "/")
        for name in filter(None, path.split("/")):
            at = f"{at.rstrip('/')}/{name}"
            current = self.enter(current, at)
        return current

    def parent(self, mount: Mount) -> Mount | None:
        """The mount that another mount lies on; None: this process does not see it."""
        return next((one for one in self._all if one.number == mount.parent), None)

    def of_device(self, device: str) -> Mount | None:
        """A mount of the file system with this number; None: there is none."""
        return next(iter(self.all_of_device(device)), None)

    def all_of_device(self, device: str) -> list[Mount]:
        """Every mount of the file system with this number, or of a part of it."""
        return [mount for mount in self._all if mount.device == device]

    def all_of_number(self, device: int) -> list[Mount]:
        """Like `all_of_device`, for a number as stat(2) has it."""
        return self.all_of_device(f"{os.major(device)}:{os.minor(device)}")

    def all_from(self, node: str) -> list[Mount]:
        """Every mount whose source is this device node. A btrfs is found only in this way."""
        return [mount for mount in self._all if mount.source == node]


@lru_cache(4096)
def _parse(line: str) -> Mount:
    words = line.split(" ")
    end = words.index("-", 6)
    kind, source, options = words[end + 1 : end + 4]
    return Mount(
        number=int(words[0]),
        parent=int(words[1]),
        device=words[2],
        root=_plain(words[3]),
        point=_plain(words[4]),
        kind=kind,
        source=_plain(source),
        options=tuple(_plain(option) for option in options.split(",")),
        peers=tuple(words[6:end]),
    )


def _plain(word: str) -> str:
    r"""The word without escapes: mountinfo has \040 for a space."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), word)
