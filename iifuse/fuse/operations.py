"""The handlers of the file system. They translate between the kernel and views."""

import errno
import logging
import os
import stat
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import pyfuse3
from pyfuse3 import (
    EntryAttributes,
    FileHandleT,
    FileInfo,
    FileNameT,
    FlagT,
    FUSEError,
    InodeT,
    ModeT,
    ReaddirToken,
    RequestContext,
    SetattrFields,
    StatvfsData,
)

from iifuse.data.view import View
from iifuse.fuse.namespace import Namespace, Node
from iifuse.fuse.permissions import Permissions
from iifuse.loop.lookout import Lookout
from iifuse.store.access import ACL, Access
from iifuse.store.volume import Buffer
from iifuse.units import ceil_div

log = logging.getLogger(__name__)

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Any]])

_SYNC_FLAG = 1
"""The bit of a file handle that was opened with O_SYNC or O_DSYNC."""


def _as_errno(error: BaseException) -> FUSEError:
    """The error for the kernel. A defect becomes EIO for one caller, and the service goes on."""
    if isinstance(error, FUSEError):
        return error
    if isinstance(error, OSError):
        return FUSEError(error.errno or errno.EIO)
    if isinstance(error, MemoryError):  # the program may repeat the request
        return FUSEError(errno.ENOMEM)
    log.error("defect in a file system handler", exc_info=error)
    return FUSEError(errno.EIO)


def _handler(handler: Handler) -> Handler:
    """Let a handler raise only FUSEError, because any other exception would end the service."""

    @wraps(handler)
    async def guarded(*args: object) -> object:
        try:
            return await handler(*args)
        except Exception as error:
            raise _as_errno(error) from error

    return cast(Handler, guarded)


class Operations(pyfuse3.Operations):
    """The handlers. A file handle is an inode number and a flag bit, so there is no other state."""

    def __init__(self, namespace: Namespace, lookout: Lookout, *, writeback_cache: bool) -> None:
        super().__init__()
        self.enable_writeback_cache = writeback_cache
        self._namespace, self._files = namespace, namespace.files
        self.permissions = Permissions(namespace, lookout)
        self._shown: WeakKeyDictionary[View, int] = WeakKeyDictionary()
        """View -> the content number that the kernel may have cached since the last open."""

    # -- data -------------------------------------------------------------------------------

    async def read(self, fh: FileHandleT, off: int, size: int) -> bytes:
        """Read from a file."""
        try:
            view = self._files.get(fh >> 1) or self._view(fh >> 1)
            return cast(bytes, await view.read(off, size))
        except Exception as error:
            raise _as_errno(error) from error

    async def write(self, fh: FileHandleT, off: int, buf: bytes) -> int:
        """Write to a file. With an O_SYNC handle the data is durable when this returns."""
        try:
            view = self._files.get(fh >> 1) or self._view(fh >> 1)
            done = await view.write(off, cast(Buffer, buf))
            if done < len(buf) and self.enable_writeback_cache:
                raise FUSEError(errno.ENOSPC)  # the kernel ignores a short answer to a writeback
            if fh & _SYNC_FLAG:
                await view.sync()
        except Exception as error:
            if not isinstance(error, OSError | FUSEError | MemoryError):
                await self._suspect(fh, error)
            raise _as_errno(error) from error
        return done

    async def _suspect(self, fh: FileHandleT, defect: Exception) -> None:
        try:
            await self._view(fh >> 1).suspect(defect)
        except Exception:
            log.exception("a set cannot be marked as suspect after a defect")

    async def fsync(self, fh: FileHandleT, datasync: bool) -> None:  # noqa: ARG002
        """Sync a file. Without this handler the kernel would treat every fsync as done."""
        try:
            await self._view(fh >> 1).sync()
        except Exception as error:
            raise _as_errno(error) from error

    async def fsyncdir(self, fh: FileHandleT, datasync: bool) -> None:
        """There is nothing to sync: directories exist in memory only."""

    async def flush(self, fh: FileHandleT) -> None:
        """A close of a descriptor. There is nothing to do: what was written is not held back."""

    # -- files ------------------------------------------------------------------------------

    @_handler
    async def open(
        self,
        inode: InodeT,
        flags: FlagT,
        ctx: RequestContext,  # noqa: ARG002
    ) -> FileInfo:
        """Open a file. The kernel keeps its cache if the content has not changed since the last."""
        if flags & os.O_TRUNC:
            raise FUSEError(errno.EPERM)
        view = self._view(inode)
        await self.permissions.look([self._node(inode)])
        await view.open()
        keep = self._shown.get(view) == view.content
        self._shown[view] = view.content
        sync = _SYNC_FLAG if flags & os.O_DSYNC else 0
        return FileInfo(fh=FileHandleT(inode << 1 | sync), keep_cache=keep)

    @_handler
    async def release(self, fh: FileHandleT) -> None:
        """Release a handle after its last use."""
        self._view(fh >> 1).released()

    @_handler
    async def setattr(
        self,
        inode: InodeT,
        attr: EntryAttributes,
        fields: SetattrFields,
        fh: FileHandleT | None,  # noqa: ARG002
        ctx: RequestContext,  # noqa: ARG002
    ) -> EntryAttributes:
        """Set the times. Size, mode and owner are those of the volume and cannot be changed."""
        node = self._node(inode)
        view = node.view
        if view is None or (fields.update_size and attr.st_size != view.size_bytes):
            raise FUSEError(errno.EPERM)
        now = self._attributes(node)
        if (
            (fields.update_mode and attr.st_mode != now.st_mode)
            or (fields.update_uid and attr.st_uid != now.st_uid)
            or (fields.update_gid and attr.st_gid != now.st_gid)
        ):
            raise FUSEError(errno.EPERM)
        if fields.update_mtime:
            await view.set_mtime(
                attr.st_mtime_ns, attr.st_ctime_ns if fields.update_ctime else None
            )
        return self._attributes(node)

    # -- names ------------------------------------------------------------------------------

    @_handler
    async def lookup(
        self,
        parent_inode: InodeT,
        name: FileNameT,
        ctx: RequestContext,  # noqa: ARG002
    ) -> EntryAttributes:
        """Look up a name in a directory."""
        parent = self._node(parent_inode)
        if name == b".":
            return self._attributes(parent)
        node = parent.parent or parent if name == b".." else parent.children.get(name)
        if node is None:
            raise FUSEError(errno.ENOENT)
        return self._attributes(node)

    @_handler
    async def getattr(self, inode: InodeT, ctx: RequestContext) -> EntryAttributes:  # noqa: ARG002
        """The attributes of a file or directory."""
        return self._attributes(self._node(inode))

    @_handler
    async def getxattr(
        self,
        inode: InodeT,
        name: FileNameT,
        ctx: RequestContext,  # noqa: ARG002
    ) -> bytes:
        """The access control list, which the kernel applies. There are no other attributes."""
        node = self._node(inode)
        if name != os.fsencode(ACL):
            raise FUSEError(errno.ENODATA)
        if node.access.acl is None:
            raise FUSEError(errno.ENODATA)
        return node.access.acl

    @_handler
    async def opendir(self, inode: InodeT, ctx: RequestContext) -> FileHandleT:  # noqa: ARG002
        """Open a directory. Its handle is its inode number."""
        self._node(inode)
        return FileHandleT(inode)

    @_handler
    async def readdir(self, fh: FileHandleT, start_id: int, token: ReaddirToken) -> None:
        """List a directory by inode number: then an entry that vanishes does not shift others."""
        children = sorted(self._node(fh).children.values(), key=lambda n: n.inode)
        left = [node for node in children if node.inode > start_id]
        for node in left:
            attributes = _attributes(node, self.permissions.of(node))
            if not pyfuse3.readdir_reply(token, FileNameT(node.name), attributes, node.inode):
                return

    async def releasedir(self, fh: FileHandleT) -> None:
        """There is nothing to release."""

    async def forget(self, inode_list: Sequence[tuple[InodeT, int]]) -> None:
        """There is nothing to do: nodes exist as long as their volumes are on the mount."""

    async def statfs(self, ctx: RequestContext) -> StatvfsData:  # noqa: ARG002
        """The file system has no space of its own."""
        data = StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_namemax = 255
        return data

    async def _refuse(self, *args: object) -> Any:  # noqa: ARG002
        """Refuse a change of the tree: only iiadm and svadm add and remove files."""
        raise FUSEError(errno.EPERM)

    _refused: Any = _refuse
    create = mknod = mkdir = unlink = rmdir = rename = link = symlink = _refused

    # -- helpers ----------------------------------------------------------------------------

    def _attributes(self, node: Node) -> EntryAttributes:
        return _attributes(node, self.permissions.of(node))

    def _node(self, inode: int) -> Node:
        node = self._namespace.node(inode)
        if node is None:
            raise FUSEError(errno.ESTALE)
        return node

    def _view(self, inode: int) -> View:
        view = self._node(inode).view
        if view is None:
            raise FUSEError(errno.EISDIR)
        return view


def _attributes(node: Node, access: Access) -> EntryAttributes:
    """The attributes of a node. A device is shown as a regular file."""
    attr = EntryAttributes()
    attr.st_ino = InodeT(node.inode)
    attr.generation = 0
    attr.entry_timeout = attr.attr_timeout = 1.0
    attr.st_rdev = 0
    attr.st_blksize = 4096
    attr.st_uid, attr.st_gid = access.uid, access.gid
    if node.view is None:
        attr.st_mode = ModeT(stat.S_IFDIR | access.mode)
        attr.st_nlink = 2
        attr.st_size = attr.st_blocks = 0
        attr.st_atime_ns = attr.st_mtime_ns = attr.st_ctime_ns = 0
        return attr
    view = node.view
    attr.st_mode = ModeT(stat.S_IFREG | access.mode)
    attr.st_nlink = 1
    attr.st_size = view.size_bytes
    attr.st_blocks = ceil_div(view.size_bytes, 512)  # the unit of st_blocks
    attr.st_atime_ns = attr.st_mtime_ns = view.times.mtime_ns
    attr.st_ctime_ns = view.times.ctime_ns
    return attr
