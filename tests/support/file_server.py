"""A file server that a test can stop and let go on: the files of one directory, through FUSE.

    python file_server.py DIRECTORY MOUNTPOINT
"""

import errno
import os
import stat
import sys

import pyfuse3
import trio


class Files(pyfuse3.Operations):
    """An inode number is that of the file below it, but for the root's."""

    def __init__(self, directory):
        super().__init__()
        self.directory = directory

    def _path(self, inode):
        for entry in os.scandir(self.directory):
            if entry.inode() == inode:
                return entry.path
        raise pyfuse3.FUSEError(errno.ENOENT)

    async def getattr(self, inode, ctx=None):
        found = os.stat(self.directory if inode == pyfuse3.ROOT_INODE else self._path(inode))
        attr = pyfuse3.EntryAttributes()
        attr.st_ino, attr.st_mode, attr.st_size = inode, found.st_mode, found.st_size
        attr.st_nlink, attr.st_blocks = 1, -(-found.st_size // 512)
        attr.st_mtime_ns, attr.st_ctime_ns = found.st_mtime_ns, found.st_ctime_ns
        return attr

    async def setattr(self, inode, attr, fields, fh, ctx):
        return await self.getattr(inode)

    async def lookup(self, parent_inode, name, ctx=None):
        try:
            found = os.stat(os.path.join(self.directory, os.fsdecode(name)))
        except FileNotFoundError:
            raise pyfuse3.FUSEError(errno.ENOENT) from None
        if not stat.S_ISREG(found.st_mode):
            raise pyfuse3.FUSEError(errno.ENOENT)
        return await self.getattr(found.st_ino)

    async def statfs(self, ctx):
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = 4096
        data.f_blocks, data.f_bfree, data.f_bavail = 1 << 20, 1 << 19, 1 << 19
        data.f_namemax = 255
        return data

    async def open(self, inode, flags, ctx):
        return pyfuse3.FileInfo(fh=os.open(self._path(inode), os.O_RDWR))

    async def read(self, fh, off, size):
        return os.pread(fh, size, off)

    async def write(self, fh, off, buf):
        return os.pwrite(fh, buf, off)

    async def fsync(self, fh, datasync):
        os.fsync(fh)

    async def flush(self, fh):
        pass

    async def release(self, fh):
        os.close(fh)


def main():
    directory, mountpoint = sys.argv[1:]
    options = {"fsname=files", "subtype=files", "allow_other", "default_permissions"}
    pyfuse3.init(Files(directory), mountpoint, options)
    print("ready", flush=True)
    try:
        trio.run(pyfuse3.main)
    finally:
        pyfuse3.close()


if __name__ == "__main__":
    main()
