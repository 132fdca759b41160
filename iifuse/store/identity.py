"""What a path really leads to: which piece of which storage, and what that storage lies on.

A volume consists of one or several extents of a *base*: a file, a disk or a logical volume. A loop
device is a piece of its backing file. A partition is a piece of its disk. A path of a multipath
disk is that disk. Two volumes conflict if their own extents overlap. They also conflict if one lies
on the other, such as a file on the file system of a partition that is a volume as well. Two files
of one file system do not conflict.

Nothing is read through a mount of ours to find this out, because a thread that waits there cannot
be killed. So this module follows links itself, step by step, and compares each step with the
kernel's list of mounts. A path that leads to such a mount, directly or through loop devices, is
refused before anything on the mount is looked at.

Three cases are not recognised: two devices that are one disk, if neither WWID nor serial number
says so; two network paths to one file; a loop device whose backing file is on our mount in another
mount namespace only.
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
    """What a volume is, whatever name it was found by.

    `number`: (device, inode) of a file, or (device number, 0) of a device; an open descriptor shows
    the same. `own`: the storage that it is. `under`: the storage that it lies on. `remote`: why a
    call on it may have to wait for another machine (store.transport); empty: it does not.
    """

    is_device: bool
    number: tuple[int, int]
    own: tuple[Extent, ...]
    under: tuple[Extent, ...] = ()
    remote: str = ""

    def is_same(self, other: "Identity") -> bool:
        """Are both the same storage, under whatever names?"""
        return self.own == other.own

    def conflicts(self, other: "Identity") -> bool:
        """Would a write to one change the other?"""
        mine, theirs = self.own, other.own
        return overlap(mine, theirs) or overlap(mine, other.under) or overlap(self.under, theirs)


class Location(NamedTuple):
    """Where a path leads.

    `path`: the same place without links. `mount`: the mount there. `found`: None if nothing is
    there. `searched`: all directories in which a part of the path, or of its links, was looked up.
    """

    path: str
    mount: Mount | None
    found: os.stat_result | None
    searched: frozenset[str] = frozenset()


def identify(path: str) -> Identity:
    """Which volume a path leads to. Links are followed. Raises BadVolume."""
    with _explained(path):
        return Host().identity(path)


def number_at(path: str) -> tuple[int, int]:
    """The `Identity.number` of the volume at a path. `identify` takes three times as long.

    Raises BadVolume.
    """
    with _explained(path):
        return number(_volume(path, Host().locate(path).found))


def standing_at(path: str) -> tuple[str, os.stat_result]:
    """Where a path leads, without links, and what is there, even if it is no volume.

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
    """Like `identify`, but None if nothing is there yet.

    Raises BadVolume, also for a path at which a new file would lie on the mount of a service.
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
        return identify(path)  # raises an error that explains it
    return identify(path) if spot.found is not None else None


def real_path(path: str) -> str:
    """Where the links of a path lead.

    The path itself, if that cannot be found out or if it leads to the mount of a service.
    """
    try:
        return Host().locate(path).path
    except (OSError, OnService):
        return path


def device_id(identity: Identity) -> FileId:
    """A number by which a device is recognised after a boot, when its device number may differ.

    For a loop device it is made from the inode of its backing file. It is unknown (0) for a device
    that has neither WWID, nor serial number, nor UUID.
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
    """The `Identity.number` for a result of stat."""
    return (found.st_rdev, 0) if stat.S_ISBLK(found.st_mode) else (found.st_dev, found.st_ino)


class OnService(Exception):
    """A path leads to the mount of a service.

    `steps`: the layers from the mount upwards, such as a loop device and the file system on it.
    """

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
    """`found`, if it is a volume. Raises OSError if nothing is there, and BadVolume otherwise."""
    if found is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    if not (stat.S_ISBLK(found.st_mode) or stat.S_ISREG(found.st_mode)):
        raise errors.BadVolume(
            path, "is neither a regular file nor a block device", "name one that is"
        )
    return found


class Host:
    """What is mounted and attached at this moment. An object answers one question.

    Tests make one with a table of mounts, a sysfs and loop devices of their own.
    """

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
        """Follow the links of a path, and touch nothing on the mount of a service.

        The last part of the path may be missing. Raises OnService if it leads to a service, and
        OSError, for example if a directory is missing.
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
        """The storage that the files of a mount lie on. Raises OnService."""
        return self._ground(mount).own

    def _ground(self, mount: Mount | None, found: os.stat_result | None = None) -> Layers:
        """The storage that the files of a mount lie on, and whether it is remote.

        `found`: one of the files; it is needed if no mount is known.
        """
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
        """All storage that a file system on a block device uses. `what` names it for people."""
        try:
            layers = self._blocks.layers(device)
        except OnService as error:
            error.steps.append(what)
            raise
        return Layers(layers.all, remote=layers.remote)

    def _devices(self, mount: Mount) -> Iterator[str]:
        """The numbers of the block devices of a file system.

        They come from its own number or, if it has one of its own (btrfs), from its source.
        """
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
            return None  # it exists in another namespace only

    def _stacked(self, mount: Mount) -> list[Layers]:
        """The storage of an overlay's upper directory, where files that are written lie."""
        upper = mount.option("upperdir") if mount.kind == "overlay" else None
        if upper is None:
            return []
        try:
            return [self._ground(self.locate(upper).mount)]
        except OSError:
            return []

    def _upper(self, spot: Location) -> Iterator[Extent]:
        """A file of an overlay is the same as the file in the overlay's upper directory."""
        upper = spot.mount.option("upperdir") if spot.mount else None
        if spot.mount is None or spot.mount.kind != "overlay" or upper is None:
            return
        found = self._source(f"{upper}{spot.mount.inside(spot.path)}")
        if found is not None and stat.S_ISREG(found.st_mode):
            yield _file(found)

    def _backing(self, name: str, backing_file: str) -> tuple[Layers, int]:
        """What a loop device lies on, and from which byte on.

        The file's name in sysfs is looked at first. To ask the kernel for the file's number may ask
        the file system, which may be on our own mount.
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
