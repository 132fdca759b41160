"""Makes and replaces whole files, and makes their names durable."""

import errno
import os
import secrets
from contextlib import suppress
from typing import BinaryIO, Final

from iifuse import errors
from iifuse.store import linux

_FILL_BYTES: Final = 1 << 20
_MAKE: Final = "make it by hand, or choose another place"


def create_file(path: str, size_bytes: int, *, mode: int = 0o600, sparse: bool = True) -> None:
    """Make a regular file of zeros, durable with its name.

    `sparse`: the file is one hole. Otherwise every byte is written, so that later writes do not
    fail for lack of space. This never replaces a file. The file gets its name only when it is
    whole, so a crash leaves no short one. Raises BadVolume, and leaves nothing behind then.
    """
    if _is_in_dev(os.path.realpath(os.path.dirname(path) or ".")):
        raise errors.BadVolume(
            path, "there is no such device, and no file is made below /dev", "check the name"
        )
    try:
        try:
            _create_unnamed(path, size_bytes, mode, sparse=sparse)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
            _create_beside(path, size_bytes, mode, sparse=sparse)
        sync_directory(path)
    except OSError as error:
        raise errors.BadVolume(path, f"cannot be created ({error.strerror})", _MAKE) from error


def _is_in_dev(directory: str) -> bool:
    """Is a directory on the file system of the device nodes, which is lost at the next boot?

    Directories that are mounted below it, such as /dev/shm, do not count.
    """
    try:
        dev = os.stat("/dev").st_dev
        if dev != os.stat("/").st_dev:
            return os.stat(directory).st_dev == dev
    except FileNotFoundError:
        return False  # the call that makes the file fails with a better message
    return directory == "/dev" or directory.startswith("/dev/")


def _create_unnamed(path: str, size_bytes: int, mode: int, *, sparse: bool) -> None:
    """Make the file without a name, and give it the name when it is whole."""
    fd = os.open(os.path.dirname(path) or ".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        _fill(fd, file, size_bytes, sparse=sparse)
        # With a directory descriptor Python follows the link; without one it does not.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=fd, follow_symlinks=True)


def _create_beside(path: str, size_bytes: int, mode: int, *, sparse: bool) -> None:
    """Make the file under another name and rename it: some file systems (NFS, FAT) need that.

    A crash may leave the file under the other name.
    """
    beside = os.path.join(os.path.dirname(path), f".{secrets.token_hex(8)}.iifuse")
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(beside, flags, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            _fill(fd, file, size_bytes, sparse=sparse)
        linux.rename_new(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise


def _fill(fd: int, file: BinaryIO, size_bytes: int, *, sparse: bool) -> None:
    if sparse:
        os.ftruncate(fd, size_bytes)
    else:
        for at in range(0, size_bytes, _FILL_BYTES):
            zeros = bytes(min(_FILL_BYTES, size_bytes - at))
            file.write(zeros)
    file.flush()
    os.fsync(fd)


def sync_directory(path: str) -> None:
    """Make the directory entry of `path` durable."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: str, blob: bytes, *, mode: int = 0o600) -> None:
    """Replace a small file as a whole, durably: write a new file, sync it, and rename it."""
    beside = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(beside, flags, mode)
    except FileExistsError:  # a crash has left it, or it is a link; a link's target is not touched
        os.unlink(beside)
        fd = os.open(beside, flags, mode)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(blob)
            file.flush()
            os.fsync(fd)
        os.rename(beside, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside)
        raise
    sync_directory(path)
