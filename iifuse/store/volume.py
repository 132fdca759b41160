"""A volume: a regular file or block device of fixed size. It is opened once and stays locked."""

import errno
import os
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from math import inf
from typing import Final

from iifuse import errors
from iifuse.store import identity as identities
from iifuse.store import linux, outstanding
from iifuse.store.claims import Claim
from iifuse.store.holders import Holder, named, of_device, of_file, ways_out
from iifuse.store.identity import Identity

_COPY_BYTES: Final = 1 << 20
UNSUPPORTED: Final = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ESPIPE)
Buffer = bytes | bytearray | memoryview


class Volume:
    """Reads and writes whole extents of a volume. Every method blocks and raises OSError.

    `path`: the name as the user typed it. `size_bytes`: the size of the file or device. Extents
    always lie inside the volume. After a failed sync every later sync fails too (invariant 9):
    Linux forgets the error and the dirty pages, so a second sync would wrongly report a success.
    """

    def __init__(
        self, path: str, fd: int, size_bytes: int, identity: Identity, claim: Claim
    ) -> None:
        self.path, self.fd, self.size_bytes, self.identity = path, fd, size_bytes, identity
        self.is_device: Final = identity.is_device
        self.remote = identity.remote
        """Why a call may have to wait for another machine (store.transport); empty: it does not.
        The event loop itself reads and writes only volumes that are not remote."""
        self.born_ns: Final = 0 if self.is_device else linux.birth_ns(fd)
        """When the file was made, in nanoseconds since 1970; 0: unknown, or this is a device."""
        self._claim = claim
        self.is_closing = False
        """Has its close begun, and not ended? It may never: a file server may be asked first."""
        self._in_memory = not self.is_device and linux.is_tmpfs(fd)
        self.has_disk: Final = not self._in_memory
        self.answered = -inf
        """When the last call for a first touch has succeeded, by trio's clock."""
        self._dirty = True  # a write of an earlier process may not be durable yet
        self._syncing = threading.Lock()
        self._sync_error: OSError | None = None

    # -- data -------------------------------------------------------------------------------

    def read(self, offset: int, length: int) -> bytes:
        """Read an extent. If the volume has become shorter, this fails with EIO."""
        try:
            data = os.pread(self.fd, length, offset)
            while len(data) < length:
                part = os.pread(self.fd, length - len(data), offset + len(data))
                if not part:
                    raise OSError(errno.EIO, "the volume ends early")
                data += part
        except OSError as error:
            raise self._named(error) from None
        return data

    def _named(self, error: OSError) -> OSError:
        """Put the volume's path into an error, so that callers know whose error it is."""
        error.filename = self.path
        return error

    def read_cached(self, offset: int, length: int) -> Buffer | None:
        """Read an extent if it is in memory; None if the read might have to wait for a disk."""
        if self.remote:
            return None
        if self._in_memory:
            return self.read(offset, length)
        buffer = bytearray(length)
        try:
            done = os.preadv(self.fd, [buffer], offset, os.RWF_NOWAIT)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return None
            raise self._named(error) from None
        return buffer if done == length else None

    def write(self, offset: int, data: Buffer) -> int:
        """Write all of `data`. Returns how many bytes it has."""
        try:
            done = os.pwrite(self.fd, data, offset)
            while done < len(data):
                step = os.pwrite(self.fd, memoryview(data)[done:], offset + done)
                if not step:
                    raise OSError(errno.EIO, "the volume takes no more bytes")
                done += step
        except OSError as error:
            raise self._named(error) from None
        finally:
            self._dirty = True  # set after the write, because a sync that runs may have missed it
        return done

    def sync(self) -> None:
        """Make every write durable that has returned. If there is none, this returns at once."""
        with self._syncing:  # a caller that has nothing to do must wait for a sync that runs
            if self._sync_error is not None:
                raise OSError(self._sync_error.errno, "an earlier sync failed", self.path)
            if not self._dirty:
                return
            self._dirty = False
            try:
                os.fdatasync(self.fd)
            except OSError as error:
                self._sync_error = self._named(error)
                raise

    def sync_times(self) -> None:
        """Make a file's times durable too, for a caller that records them; `sync` need not."""
        if self.is_device:
            return
        try:
            os.fsync(self.fd)
        except OSError as error:
            self._sync_error = self._named(error)
            raise

    def start_writeback(self, offset: int, length: int) -> None:
        """Begin to write an extent to the disk, so that the next sync has less to do.

        Nothing is durable by this. If it fails, every later sync fails (invariant 9).
        """
        try:
            linux.start_writeback(self.fd, offset, length)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                self._sync_error = self._named(error)

    def sync_anew(self) -> None:
        """Sync, even after a sync that has failed.

        This is only for callers that have written everything again that the failed sync may have
        lost.
        """
        try:
            os.fdatasync(self.fd)
        except OSError as error:
            raise self._named(error) from None

    @property
    def is_synced(self) -> bool:
        """Is every write durable that has returned? A sync that still runs does not count."""
        return not (self._dirty or self._syncing.locked() or self._sync_error)

    # -- holes ------------------------------------------------------------------------------

    def data_from(self, offset: int, stop: int) -> tuple[int, int]:
        """The first extent of data at or after `offset`, as (start, end), cut at `stop`.

        Before `start` is a hole, which reads as zeros. A device has no holes.
        """
        if self.is_device:
            return offset, stop
        try:
            start = os.lseek(self.fd, offset, os.SEEK_DATA)
            end = os.lseek(self.fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # there is a hole up to the end
                if os.fstat(self.fd).st_size < stop:
                    raise self._named(OSError(errno.EIO, "the volume ends early")) from None
                return stop, stop
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                return offset, stop
            raise self._named(error) from None
        return min(start, stop), min(end, stop)

    def zero(self, offset: int, length: int) -> None:
        """Make an extent read as zeros. Holes in it are left as they are."""
        try:
            self._zero(offset, offset + length)
        except OSError as error:
            raise self._named(error) from None

    def _zero(self, offset: int, stop: int) -> None:
        while offset < stop:
            start, end = self.data_from(offset, stop)
            if start < end:
                if self.is_device or not linux.zero_range(self.fd, start, end - start):
                    self._write_zeros(start, end)
                self._dirty = True
            offset = end

    def _write_zeros(self, offset: int, stop: int) -> None:
        while offset < stop:
            offset += self.write(offset, bytes(min(_COPY_BYTES, stop - offset)))

    def is_sparse(self) -> bool:
        """Could a write into the volume fail for lack of space? A device has all of its space."""
        return not self.is_device and self.stat().st_blocks * 512 < self.size_bytes

    def reserve(self) -> None:
        """Allocate the space that the file still lacks. Raises OSError, above all ENOSPC."""
        if self.is_device:
            return
        lacking, room = self.size_bytes - self.stat().st_blocks * 512, os.fstatvfs(self.fd)
        if lacking > room.f_bavail * room.f_frsize:  # else the call would fill the file system
            raise self._named(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        os.posix_fallocate(self.fd, 0, self.size_bytes)

    def percent_used(self) -> int:
        """How full the file system is for others than root, in percent, rounded down."""
        found = os.fstatvfs(self.fd)
        used = found.f_blocks - found.f_bfree
        return 100 * used // max(1, used + found.f_bavail)

    def forget(self, offset: int, length: int) -> None:
        """Drop the pages of a copied extent, so that a copy does not displace all other pages."""
        os.posix_fadvise(self.fd, offset, length, os.POSIX_FADV_DONTNEED)

    # -- life -------------------------------------------------------------------------------

    def drop_cache(self) -> None:
        """Let the next read come from the disk, because another host may have written there."""
        self.sync()  # does nothing if everything is durable already
        if self.is_device:
            linux.drop_device_cache(self.fd)
        else:
            os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def stat(self) -> os.stat_result:
        """Owner, mode and times of the file or device node."""
        return os.fstat(self.fd)

    def close(self) -> None:
        """Close the descriptor and release the locks. It is allowed to call this twice."""
        fd, self.fd = self.fd, -1  # the number is free for another file before this returns
        if fd >= 0:
            self.is_closing = True
            os.close(fd)
            self.is_closing = False
            self._claim.release()

    def let_go(self) -> None:
        """As `close`, while threads may still use the descriptor: what they do with it fails.

        Its number is not free for another file, which they would write to.
        """
        nothing = os.open("/", os.O_PATH | os.O_CLOEXEC)
        os.dup2(nothing, self.fd, inheritable=False)
        os.close(nothing)
        if self.fd not in outstanding.descriptors():  # else a call has just begun, and counts on it
            self._claim.release()


def close_all(volumes: Iterable[Volume]) -> None:
    """Close volumes, one after the other."""
    for volume in volumes:
        volume.close()


def open_volume(path: str, *, exclusive: bool = True) -> Volume:
    """Open and lock a volume. `exclusive`: no other program may have the file open now.

    The links of the path are followed first. The result is opened without following links, since
    somebody may have put one there meanwhile. Raises BadVolume, Busy or InUse.
    """
    identity = identities.identify(path)
    with ExitStack() as undo:
        claim = Claim(path, identity)
        undo.callback(claim.release)
        fd = _open(path, identity, exclusive=exclusive)
        undo.callback(os.close, fd)
        size = _check_open(path, fd, identity)
        if not identity.is_device:
            _lock(path, fd, identity, exclusive=exclusive)
        undo.pop_all()
    return Volume(path, fd, size, identity, claim)


def _open(path: str, identity: Identity, *, exclusive: bool) -> int:
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(os.path.realpath(path), flags | (os.O_EXCL if identity.is_device else 0))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _busy(path, identity, asked=exclusive) from error
        raise errors.BadVolume(
            path, f"cannot be opened ({error.strerror})", "it has to be readable and writable"
        ) from error
    os.set_blocking(fd, True)
    return fd


def _check_open(path: str, fd: int, identity: Identity) -> int:
    """The size of what was opened. Raises BadVolume if it is another file than was identified."""
    found = os.fstat(fd)
    if identities.number(found) != identity.number:
        raise errors.Busy(path, "was replaced while it was opened", "try again")
    size = linux.device_size(fd) if identity.is_device else found.st_size
    if size == 0:
        absent = OSError(errno.ENOMEDIUM, path) if identity.is_device else None  # a detached loop
        raise errors.BadVolume(
            path, "has size 0", "make it as large as it is to be (truncate -s)"
        ) from absent
    return size


def _lock(path: str, fd: int, identity: Identity, *, exclusive: bool) -> None:
    if not linux.lock_whole_file(fd):
        who = named(of_file(os.path.realpath(path))) or "another service most likely"
        raise errors.InUse(path, f"is locked by {who}", "let that one give it up first")
    if exclusive and linux.opened_by_others(fd):
        raise _busy(path, identity, asked=exclusive)


def _busy(path: str, identity: Identity, *, asked: bool) -> errors.Busy:
    """The error for a volume that others use. `asked`: name them, which takes a while."""
    found: list[Holder] = []
    if asked and identity.is_device:
        found = of_device(identity.number[0])
    elif asked:
        found = of_file(os.path.realpath(path))
    if not found:
        return errors.Busy(path, "is in use", "unmount it, or stop the program that has it open")
    how = "in use" if identity.is_device else "open"
    return errors.Busy(path, f"is {how}: {named(found)}", f"close it first: {ways_out(found)}")
