"""Which mount a path lies in, by the text of /proc/self/mountinfo: no mounted file is touched."""

import os
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

SERVICE_KIND: Final = "fuse.iifuse"
"""How the kernel names the file system type of a service's mount."""
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True)
class Mount:
    """One line. `device`: 'major:minor' of its file system; `point`: where it is mounted.

    `peers`: 'shared:N' or 'master:N', the groups of mounts that it is one of, or follows.
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
        """The same as stat(2) has it."""
        major, minor = map(int, self.device.split(":"))
        return os.makedev(major, minor)

    @property
    def is_service(self) -> bool:
        """Is it the mount of a service of ours, this one or another?"""
        return self.kind == SERVICE_KIND

    def option(self, name: str) -> str | None:
        """What the file system's option `name=` says."""
        found = (o.partition("=")[2] for o in self.options if o.startswith(f"{name}="))
        return next(found, None)

    def inside(self, path: str) -> str:
        """The path of a file of this mount, as its file system names it."""
        below = path[len(self.point) :] if self.point != "/" else path
        return f"{self.root.rstrip('/')}/{below.lstrip('/')}"


def mounts() -> "Mounts":
    """What this process sees mounted now."""
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
        """The mounts of services, of ours and of others, also those that nobody serves."""
        return [mount for mount in self._all if mount.is_service]

    def at(self, point: str) -> list[Mount]:
        """All that is mounted at a place, in the order of their making."""
        return [mount for mount in self._all if mount.point == point]

    def enter(self, current: Mount | None, path: str) -> Mount | None:
        """The mount that a walk is in once it has come from `current` to `path`."""
        while True:
            above = self._children.get((current.number if current else None, path))
            if above is None or above is current:
                return current
            current = above

    def holding(self, path: str) -> Mount | None:
        """The mount of a path in which nothing is a link."""
        at, current = "/", self.enter(None, "/")
        for name in filter(None, path.split("/")):
            at = f"{at.rstrip('/')}/{name}"
            current = self.enter(current, at)
        return current

    def parent(self, mount: Mount) -> Mount | None:
        """The one that it lies on, where this process sees it."""
        return next((one for one in self._all if one.number == mount.parent), None)

    def of_device(self, device: str) -> Mount | None:
        """A mount of the file system with this number, where there is one."""
        return next(iter(self.all_of_device(device)), None)

    def all_of_device(self, device: str) -> list[Mount]:
        """Every mount of it, or of a file or directory on it."""
        return [mount for mount in self._all if mount.device == device]

    def all_of_number(self, device: int) -> list[Mount]:
        """The same by the number that stat(2) knows it by."""
        return self.all_of_device(f"{os.major(device)}:{os.minor(device)}")

    def all_from(self, node: str) -> list[Mount]:
        """Every mount that says this is its device: its number may be none of a device (btrfs)."""
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
    r"""A space stands there as \040."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), word)
