"""Makes the mount, serves it, and takes it down. docs/decisions/mount.md has its limits."""

import contextlib
import logging
import os
from collections.abc import Iterable
from functools import partial
from typing import Final

import pyfuse3
from pyfuse3 import FileNameT, InodeT

from iifuse import errors
from iifuse.data.view import View
from iifuse.fuse import waits
from iifuse.fuse.connection import Connection
from iifuse.fuse.namespace import Namespace, Node
from iifuse.fuse.operations import Operations
from iifuse.loop.lookout import Lookout
from iifuse.loop.loop import Loop
from iifuse.loop.waiter import Waiter
from iifuse.nursery.nursery import SYNC_SECONDS, Nursery
from iifuse.store import linux
from iifuse.store.holders import Holder, of_mounted
from iifuse.store.identity import Host, OnService
from iifuse.store.mounts import mounts
from iifuse.units import command

log = logging.getLogger(__name__)

_TASKS_MAX: Final = 256
_TASKS_MIN: Final = 16
"""Tasks that stay when they have nothing to do. To start a task costs more than a request."""
_BACKGROUND_MAX: Final = 128
"""The most asynchronous requests under way for all volumes. Other requests need tasks too."""


class Mount:
    """The file system at `mountpoint`. It is also the Hooks of an instance.

    `in_place`: each regular file is also bind-mounted over the volume's own path. `children` makes
    the calls that go to the mount itself. A thread of ours that waits for our own mount could not
    be killed, so the mount would stay after a kill of the service.
    """

    def __init__(
        self, loop: Loop, mountpoint: str, children: Nursery,
        *, writeback_cache: bool, in_place: bool,
    ) -> None:
        self._loop = loop
        self.mountpoint = os.path.realpath(mountpoint)
        self.programs: Final = children
        self._namespace = Namespace()
        self._operations = Operations(
            self._namespace, Lookout(loop), writeback_cache=writeback_cache
        )
        self.in_place = in_place
        self._connection: Connection

    # -- life -------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the mount. Raises ServiceError."""
        _clean_up_killed(self.mountpoint, self.programs)
        if _is_our_mount(self.mountpoint):
            raise errors.ServiceError(self.mountpoint, "another service is mounted here")
        if not os.path.isdir(self.mountpoint):
            raise errors.ServiceError(
                self.mountpoint,
                "is not a directory",
                f"make it with {command('mkdir -p', self.mountpoint)}",
            )
        _check_place(self.mountpoint)
        try:
            self._connection = Connection(self.mountpoint)
        except OSError as error:
            raise errors.ServiceError(
                self.mountpoint,
                f"cannot be mounted ({error.strerror})",
                "it takes root and /dev/fuse (modprobe fuse)",
            ) from error
        try:
            pyfuse3.init(self._operations, self._connection.path, set())
        except RuntimeError as error:
            linux.unmount(self.mountpoint, linux.MNT_DETACH)
            raise errors.ServiceError(self.mountpoint, f"cannot be served ({error})") from error

    async def run(self) -> None:
        """Serve requests until `stop`."""
        waiter = Waiter(self._loop.has_waiters, self._loop.watchable_calls)
        self._loop.finished.stand_by = waiter.stand_by
        waits.install(waiter, self._connection.greet)
        await pyfuse3.main(min_tasks=_TASKS_MIN, max_tasks=_TASKS_MAX)

    async def wait_ready(self) -> None:
        """Return once the mount answers."""
        self._operations.permissions.lists = self._connection.lists
        await self._connection.is_served.wait()
        self._lift_limits()
        # pyfuse3 starts a thread at the first such call. Later there might be no thread left.
        pyfuse3.invalidate_entry_async(pyfuse3.ROOT_INODE, FileNameT(b"none"), ignore_enoent=True)

    def _lift_limits(self) -> None:
        """Raise limits of the kernel that are too low for a mount with many volumes."""
        device = self._connection.device
        major, minor = os.major(device), os.minor(device)
        connection = f"{linux.FUSE_CONNECTIONS}/{minor}"
        if not os.path.exists(connection):
            with contextlib.suppress(OSError):
                linux.mount_fuse_control()
        for name in ("max_background", "congestion_threshold"):
            _tune(f"{connection}/{name}", _BACKGROUND_MAX)
        if self._operations.enable_writeback_cache:
            # By default a FUSE mount may have 1 % of the dirty pages that a disk may have.
            _tune(f"/sys/class/bdi/{major}:{minor}/strict_limit", 0)

    def stop(self) -> None:
        """Let `run` return."""
        pyfuse3.terminate()

    def close(self) -> None:
        """Unmount, lazily if the mount is busy. Somebody may have unmounted it already."""
        if self.in_place:
            for view in self._namespace.views():
                self._uncover(view.path)
        pyfuse3.close(unmount=False)  # this lets requests fail that are under way
        self._unmount()

    def _unmount(self) -> None:
        """Unmount our own mount only: somebody may have unmounted it and mounted another there."""
        try:
            self.programs.unmount_dead(self.mountpoint)
        except (OSError, errors.ServiceError):
            there = mounts().at(self.mountpoint)
            own = self._connection.device
            if there and there[-1].is_service and there[-1].device_number == own:
                linux.unmount(self.mountpoint, linux.MNT_DETACH)

    # -- the hooks of the instance ----------------------------------------------------------

    async def appear(self, view: View) -> None:
        """Put a file on the mount."""
        node = self._namespace.add(view)
        node.is_link = await self._loop.blocking(partial(os.path.islink, view.path))
        await self._operations.permissions.look(node.up())
        if self.in_place:
            node.is_link = False  # from now on the path leads to us
            await self._loop.blocking(
                partial(self.programs.bind, self.mounted_path(view), view.path)
            )

    async def keep_fresh(self) -> None:
        """Keep owners and modes of files up to date, as long as the service runs."""
        await self._operations.permissions.keep_fresh(self._forget)

    async def _forget(self, nodes: list[Node]) -> None:
        inodes = [node.inode for node in nodes]
        await self._loop.blocking(partial(_forget_attributes, inodes))

    async def vanish(self, view: View) -> None:
        """Take a file off the mount, and let the kernel forget its name."""
        if self.in_place:
            await self._loop.blocking(partial(self._uncover, view.path))
        for parent, name in self._namespace.remove(view):
            pyfuse3.invalidate_entry_async(InodeT(parent), FileNameT(name), ignore_enoent=True)

    def _uncover(self, path: str) -> None:
        """Take down our mount over a volume's own path."""
        try:
            try:
                self.programs.unmount(path)
            except errors.ServiceError:  # then do it here, although that may hang
                linux.unmount(path, linux.MNT_DETACH)
        except OSError as error:
            log.warning("%s: the file that is mounted over it stays there: %s", path, error)

    def mounted_path(self, view: View) -> str:
        """The path under which programs find a view."""
        return self.mountpoint + view.path

    def holders(self, view: View) -> list[Holder]:
        """The programs and loop devices that have a view open, wherever it is mounted. Blocks."""
        return of_mounted(self._connection.device, view.path)

    async def times_moved(self, views: list[View]) -> None:
        """Let the kernel forget the times of files. When this returns, it has forgotten them.

        With writeback_cache the kernel keeps times of its own. They are set through the mount.
        """
        inodes = [self._namespace.inode(view) for view in views]
        await self._loop.blocking(partial(_forget_attributes, [i for i in inodes if i is not None]))
        if self._operations.enable_writeback_cache:
            for view in views:
                await self._loop.blocking(partial(self._set_time, view))

    def _set_time(self, view: View) -> None:
        try:
            self.programs.set_time(self.mounted_path(view), view.times.mtime_ns)
        except (OSError, errors.ServiceError) as error:
            log.warning("%s: the mount still shows an earlier time: %s", view.path, error)

    def sync_mounted(self, views: list[View], limit_s: float = SYNC_SECONDS) -> None:
        """Sync open files through the mount, so that their dirty pages arrive here. Blocks.

        Each file may take `limit_s` seconds. Errors of the syncs are ignored, because the programs
        get them at their own fsync. Raises OSError if it takes too long, and ServiceError.
        """
        paths = [self.mounted_path(view) for view in views if view.opens]
        if not paths:
            return
        try:
            self.programs.sync(paths, limit_s)
        except TimeoutError as error:
            why = f"what programs have written there has not arrived within {limit_s:g} s"
            raise OSError(error.errno, why, error.filename) from error


def _tune(path: str, value: int) -> None:
    """Set a value that the kernel shows as a file. Without it the mount is only slower."""
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(str(value))


def _forget_attributes(inodes: list[int]) -> None:
    for inode in inodes:
        with contextlib.suppress(OSError):  # the kernel has no attributes of it
            pyfuse3.invalidate_inode(InodeT(inode), attr_only=True)


def clean_up_dead(paths: Iterable[str], children: Nursery) -> None:
    """Unmount what a killed service has left behind at these paths."""
    if not mounts().services:
        return  # without looking at the paths, whose file servers may hang
    for path in paths:
        try:
            if children.unmount_dead(path):
                log.warning("%s: a dead mount was cleaned up", path)
        except OSError as error:
            log.warning("%s: cannot find out whether a dead mount is there: %s", path, error)


def _clean_up_killed(mountpoint: str, children: Nursery) -> None:
    """Unmount a dead mount, and its files that `-o in_place` has mounted over volumes.

    They are found by the device of the mount, because the state directory may be lost.
    """
    before = {mount.device for mount in mounts().at(mountpoint) if mount.is_service}
    clean_up_dead([mountpoint], children)
    now = mounts()
    for device in before - {mount.device for mount in now.at(mountpoint)}:
        clean_up_dead([mount.point for mount in now.all_of_device(device)], children)


def _check_place(mountpoint: str) -> None:
    """Raise ServiceError for a mount point on another service: each would wait for the other."""
    try:
        Host().locate(mountpoint)
        hidden = os.listdir(mountpoint)
    except OnService as error:
        raise errors.ServiceError(
            mountpoint,
            f"lies inside the mount of another service ({error})",
            "name a directory of the host's own file systems",
        ) from error
    except OSError as error:
        raise errors.ServiceError(mountpoint, f"cannot be read ({error.strerror})") from error
    if hidden:
        log.warning("%s: is not empty; what is in it is hidden by the mount", mountpoint)


def _is_our_mount(path: str) -> bool:
    return any(mount.is_service for mount in mounts().at(path))
