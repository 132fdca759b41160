"""A file server that a test can stop and let go on: the files of one directory, through FUSE.

    python file_server.py DIRECTORY MOUNTPOINT

It does what it reads, line by line: `hold OPERATION` and it answers no such request any more, but
prints `held OPERATION` when one has come; `go` and it answers them all.
"""

import errno
import functools
import os
import stat
import sys

import pyfuse3
import trio


class Held:
    """The operations that are not answered."""

    def __init__(self):
        self.operations, self.may_go = set(), trio.Event()

    async def answer(self, operation):
        if operation in self.operations:
            print("held", operation, flush=True)
            await self.may_go.wait()

    async def obey(self):
        async for line in trio.lowlevel.FdStream(os.dup(0)):
            for order in line.decode().splitlines():
                if order == "go":
                    self.operations.clear()
                    self.may_go.set()
                    self.may_go = trio.Event()
                else:
                    self.operations.add(order.removeprefix("hold "))
                print("obeyed", flush=True)


def held(operation):
    """A handler that answers only while it may."""

    @functools.wraps(operation)
    async def handler(self, *arguments, **options):
        await self.held.answer(operation.__name__)
        return await operation(self, *arguments, **options)

    return handler


class Files(pyfuse3.Operations):
    """An inode number is that of the file below it, but for the root's."""

    def __init__(self, directory):
        super().__init__()
        self.directory, self.held = directory, Held()

    def _path(self, inode):
        for entry in os.scandir(self.directory):
            if entry.inode() == inode:
                return entry.path
        raise pyfuse3.FUSEError(errno.ENOENT)

    @held
    async def getattr(self, inode, ctx=None):
        found = os.stat(self.directory if inode == pyfuse3.ROOT_INODE else self._path(inode))
        attr = pyfuse3.EntryAttributes()
        attr.st_ino, attr.st_mode, attr.st_size = inode, found.st_mode, found.st_size
        attr.st_nlink, attr.st_blocks = 1, -(-found.st_size // 512)
        attr.st_mtime_ns, attr.st_ctime_ns = found.st_mtime_ns, found.st_ctime_ns
        attr.attr_timeout = attr.entry_timeout = 0  # the kernel asks each time
        return attr

    @held
    async def setattr(self, inode, attr, fields, fh, ctx):
        return await Files.getattr.__wrapped__(self, inode)

    @held
    async def lookup(self, parent_inode, name, ctx=None):
        try:
            found = os.stat(os.path.join(self.directory, os.fsdecode(name)))
        except FileNotFoundError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        if not stat.S_ISREG(found.st_mode):
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await Files.getattr.__wrapped__(self, found.st_ino)

    @held
    async def statfs(self, ctx):
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks, data.f_bfree, data.f_bavail = 1 << 20, 1 << 19, 1 << 19
        data.f_namemax = 255
        return data

    @held
    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=os.open(self._path(inode), os.O_RDWR))

    @held
    async def read(self, fh, off, size):
        return os.pread(fh, size, off)

    @held
    async def write(self, fh, off, buf):
        return os.pwrite(fh, buf, off)

    @held
    async def fsync(self, fh, datasync):
        os.fsync(fh)

    @held
    async def flush(self, fh):
        pass

    @held
    async def release(self, fh):
        os.close(fh)


def main():
    directory, mountpoint = sys.argv[1:]
    options = {"fsname=files", "subtype=files", "allow_other", "default_permissions"}
    files = Files(directory)
    pyfuse3.init(files, mountpoint, options)
    print("ready", flush=True)
    try:
        trio.run(serve, files)
    finally:
        pyfuse3.close()


async def serve(files):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(files.held.obey)
        await pyfuse3.main()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    main()
