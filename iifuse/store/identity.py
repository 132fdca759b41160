"""What a path really is: which piece of which storage, and what that lies on, all the way down.

A volume is one or several extents of a *base*: a file, a disk, a logical volume. A loop device is
a piece of its backing file, a partition one of its disk, a path of a multipath disk the disk. Two
volumes are in each other's way where their own extents overlap, or where one lies on the other: a
file on the file system of a partition that is a volume too. Two files of one file system are not.

Nothing is read through a mount of ours to find that out: a thread that waits there cannot be
killed. So links are followed here, step by step, with the kernel's list of mounts beside it, and a
path that comes to such a mount, directly or by loop devices, is refused before it is looked at.

Not seen: that two devices are one disk if neither WWID nor serial number says so; two network
paths to one file; a loop device whose backing file another mount namespace has from our mount.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from iifuse import errors
from iifuse.core.header import FileId
from iifuse.store import linux
from iifuse.store.blocks import WHOLE, Blocks, Extent, Layers, overlap
from iifuse.store.mounts import Mount, Mounts, mounts
from iifuse.store.transport import remote_file_system

_LINKS_MAX: Final = 40


@dataclass(frozen=True)
class Identity:
    """The same volume under any name.

    `number`: (device, inode) of a file, (device number, 0) of a device; an open descriptor shows
    the same. `own`: what it is; `under`: what it lies on. `remote`: why a call on it may wait for
    somebody else than a disk of this machine (store.transport); empty: it does not.
    """

    is_device: bool
    number: tuple[int, int]
    own: tuple[Extent, ...]
    under: tuple[Extent, ...] = ()
    remote: str = ""

    def is_same(self, other: "Identity") -> bool:
        """Is it the very same storage, under whatever name?"""
        return self.own == other.own

    def conflicts(self, other: "Identity") -> bool:
        """Would a write to one change the other?"""
        mine, theirs = self.own, other.own
        return overlap(mine, theirs) or overlap(mine, other.under) or overlap(self.under, theirs)


class Location(NamedTuple):
    """Where a path leads: no link in it, and the mount there. `found`: None where nothing is.

    `searched`: the directories in which a part of it was looked up, those of its links included.
    """

    path: str
    mount: Mount | None
    found: os.stat_result | None
    searched: frozenset[str] = frozenset()


def identify(path: str) -> Identity:
    """Which volume a path leads to, links followed. Raises BadVolume."""
    with _explained(path):
        return Host().identity(path)


def number_at(path: str) -> tuple[int, int]:
    """Its `Identity.number` alone: to know what lies under it takes three times as long.

    Raises BadVolume.
    """
    with _explained(path):
        return number(_volume(path, Host().locate(path).found))


def standing_at(path: str) -> tuple[str, os.stat_result]:
    """Where a path leads, without a link, and what is there, be it a volume or not.

    Raises BadVolume.
    """
    with _explained(path):
        spot = Host().locate(path)
        if spot.found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return spot.path, spot.found


@contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.BadVolume(
            path, f"cannot be used ({error.strerror})", "name an existing file or block device"
        ) from error
    except OnService as error:
        raise _on_service(path, error) from error


def find(path: str) -> Identity | None:
    """The same; None where nothing is yet, and what is made there would lie on no service's mount.

    Raises BadVolume.
    """
    try:
        host = Host()
        spot = host.locate(path)
        host.under(spot.mount)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OnService as error:
        raise _on_service(path, error) from error
    except OSError:
        return identify(path)  # which explains it
    return identify(path) if spot.found is not None else None


def real_path(path: str) -> str:
    """Where the links of a path lead; itself where that cannot be told, or leads to a service."""
    try:
        return Host().locate(path).path
    except (OSError, OnService):
        return path


def device_id(identity: Identity) -> FileId:
    """A number by which a device is known again after a boot, when its own may be another one.

    Of a loop device that of its file counts, without the device of the file system. Unknown where
    neither WWID, serial number nor UUID tells.
    """
    names = [f"{_durable(extent.base)} {extent.start}" for extent in identity.own]
    if any(name.startswith("block:") for name in names):
        return FileId()
    digest = blake2b("\n".join(names).encode("utf-8", "surrogateescape"), digest_size=7).digest()
    return FileId(int.from_bytes(digest, "little") | 1 << 56)


def _durable(base: str) -> str:
    kind, _, rest = base.partition(":")
    return f"file:{rest.rpartition(':')[2]}" if kind == "file" else base


def number(found: os.stat_result) -> tuple[int, int]:
    """`Identity.number` by stat."""
    return (found.st_rdev, 0) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)


class OnService(Exception):
    """A path leads to the mount of a service. `steps`: from the mount to the last layer above."""

    def __init__(self, point: str) -> None:
        super().__init__(point)
        self.steps = [point]


def _on_service(path: str, error: OnService) -> errors.BadVolume:
    point, *above = error.steps
    if not above:
        return errors.BadVolume(
            path,
            f"lies inside the mount of an iifuse service ({point})",
            "name the volume by its own path",
        )
    through = ", ".join(reversed(above))
    return errors.BadVolume(
        path,
        f"lies on {through}, and that on the mount of an iifuse service ({point})",
        "a service that waits for itself would hang: choose a volume that lies elsewhere",
    )


# -- looking --------------------------------------------------------------------------------


def _volume(path: str, found: os.stat_result | None) -> os.stat_result:
    """Raises OSError where nothing is, BadVolume where it is no volume."""
    if found is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not (stat.S_ISBLK(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise errors.BadVolume(
            path, "is neither a regular file nor a block device", "name one that is"
        )
    return found


class Host:
    """What is mounted and attached now, for one question; tests bring a host of their own."""

    def __init__(
        self,
        table: Mounts | None = None,
        sys: str = "/sys",
        loop_status: Callable[[str], linux.LoopStatus] = linux.loop_status,
    ) -> None:
        self._mounts = mounts() if table is None else table
        self._blocks = Blocks(sys, self._backing)
        self._loop_status = loop_status

    def identity(self, path: str) -> Identity:
        """The volume of a path. Raises OSError, OnService, BadVolume."""
        spot = self.locate(path)
        found = _volume(path, spot.found)
        if stat.S_ISBLK(found.st_mode):
            layers = self._blocks.layers(_name(found.st_rdev))
            return Identity(True, number(found), *layers)
        own = (_file(found), *self._upper(spot))
        ground = self._ground(spot.mount, found)
        return Identity(False, number(found), own, ground.own, ground.remote)

    def locate(self, path: str) -> Location:
        """Follow links, and touch nothing in a mount that leads to a service. Raises OnService.

        The last part may be missing. Raises OSError, e.g. where a directory is missing.
        """
        todo = _parts(path if path.startswith("/") else f"{os.getcwd()}/{path}")
        trail: list[tuple[str, Mount | None]] = [self._root()]
        found: os.stat_result | None = None
        links, searched = 0, set()
        while todo:
            name = todo.pop(0)
            searched.add(trail[-1][0])
            if name == "..":
                trail = trail[:-1] or trail
                found = os.lstat(trail[-1][0])
                continue
            at, mount = trail[-1]
            here = f"{at.rstrip('/')}/{name}"
            there = self._enter(mount, here)
            found = _look(here, missing_ok=not todo)
            if found is not None and stat.S_ISLNK(found.st_mode):
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(here)
                todo[:0] = _parts(target)
                trail = [trail[0]] if target.startswith("/") else trail
            else:
                trail.append((here, there))
        return Location(*trail[-1], found, frozenset(searched))

    def _root(self) -> tuple[str, Mount | None]:
        return "/", self._mounts.enter(None, "/")

    def _enter(self, mount: Mount | None, path: str) -> Mount | None:
        """Step into what is mounted at `path`, unless it leads to a service."""
        there = self._mounts.enter(mount, path)
        if there is not mount:
            self.under(there)
        return there

    # -- layers -----------------------------------------------------------------------------

    def under(self, mount: Mount | None) -> tuple[Extent, ...]:
        """What the files of a mount lie on."""
        return self._ground(mount).own

    def _ground(self, mount: Mount | None, found: os.stat_result | None = None) -> Layers:
        """The same, and whether it is remote. `found`: one of the files, if no mount is known."""
        if mount is None:
            if found is None or not os.major(found.st_dev):
                return Layers((), remote="its file system is not known")
            return self._below(_name(found.st_dev), "its file system")
        if mount.is_service:
            raise OnService(mount.point)
        parts = [self._below(name, mount.point) for name in self._devices(mount)]
        parts += self._stacked(mount)
        far = remote_file_system(mount.kind, has_device=bool(parts))
        return Layers(
            tuple(sorted({extent for part in parts for extent in part.own})),
            remote=next((part.remote for part in parts if part.remote), far),
        )

    def _below(self, device: str, what: str) -> Layers:
        """All that a file system on a block device takes."""
        try:
            layers = self._blocks.layers(device)
        except OnService as error:
            error.steps.append(what)
            raise
        return Layers(layers.all, remote=layers.remote)

    def _devices(self, mount: Mount) -> Iterator[str]:
        """Numbers of the block devices of a file system; with its own number, or by its source."""
        if not mount.device.startswith("0:"):
            yield mount.device
        elif mount.source.startswith("/") and mount.kind != "overlay":
            found = self._source(mount.source)
            if found is not None and stat.S_ISBLK(found.st_mode):
                yield from self._blocks.with_siblings(_name(found.st_rdev))

    def _source(self, path: str) -> os.stat_result | None:
        try:
            return self.locate(path).found
        except OSError:
            return None  # of another namespace

    def _stacked(self, mount: Mount) -> list[Layers]:
        """What an overlay writes to: who opens a volume for writing has it there."""
        upper = mount.option("upperdir") if mount.kind == "overlay" else None
        if upper is None:
            return []
        try:
            return [self._ground(self.locate(upper).mount)]
        except OSError:
            return []

    def _upper(self, spot: Location) -> Iterator[Extent]:
        """A file of an overlay is also that of its upper directory."""
        upper = spot.mount.option("upperdir") if spot.mount else None
        if spot.mount is None or spot.mount.kind != "overlay" or upper is None:
            return
        found = self._source(f"{upper}{spot.mount.inside(spot.path)}")
        if found is not None and stat.S_ISREG(found.st_mode):
            yield _file(found)

    def _backing(self, name: str, backing_file: str) -> tuple[Layers, int]:
        """(what a loop device stands on, from which byte on).

        The name in sysfs first: asking the kernel for the file's number may ask its file system.
        """
        mount = self._mounts.holding(backing_file)
        if mount is not None and mount.is_service:
            raise _step(OnService(mount.point), f"/dev/{name}")
        status = self._loop_status(f"/dev/{name}")
        if status.rdevice:
            return self._blocks.layers(_name(status.rdevice)), status.offset
        own = Extent(f"file:{_name(status.device)}:{status.inode}", 0, WHOLE)
        mount = self._mounts.of_device(_name(status.device)) or mount
        try:
            ground = self._ground(mount)
            return Layers((own,), ground.own, ground.remote), status.offset
        except OnService as error:
            raise _step(error, f"/dev/{name}") from error


def _step(error: OnService, what: str) -> OnService:
    error.steps.append(what)
    return error


def _parts(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _look(path: str, *, missing_ok: bool) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        if missing_ok:
            return None
        raise


def _name(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"


def _file(found: os.stat_result) -> Extent:
    return Extent(f"file:{_name(found.st_dev)}:{found.st_ino}", 0, WHOLE)
