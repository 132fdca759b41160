"""Reads what is really on the disk, and not what the page cache holds.

This uses a second descriptor with O_DIRECT. The kernel first writes the dirty pages. The descriptor
is open only for a moment, because the kernel grants no lease on the file meanwhile. If the file
system has no O_DIRECT, pages are dropped from the page cache before they are read.
"""

import errno
import mmap
import os
from types import TracebackType
from typing import Final, Self

from iifuse.store.volume import Volume
from iifuse.units import ceil_div

PIECE_BYTES: Final = 1 << 20
_ALIGNED: Final = 4096
_READ: Final = os.O_RDONLY | os.O_CLOEXEC


class Uncached:
    """A second way to an open volume, past the page cache, while this context is entered.

    Every method blocks and raises OSError.
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        self._fd, self._direct = -1, volume.has_disk
        self._buffer = mmap.mmap(-1, PIECE_BYTES)  # O_DIRECT wants whole pages

    def __enter__(self) -> Self:
        again = f"/proc/self/fd/{self._volume.fd}"
        try:
            self._fd = os.open(again, _READ | os.O_DIRECT if self._direct else _READ)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise self._named(error) from None
            self._open_cached()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def _open_cached(self) -> None:
        self._close()
        self._direct = False
        try:
            self._fd = os.open(f"/proc/self/fd/{self._volume.fd}", _READ)
        except OSError as error:
            raise self._named(error) from None
        # Else a read of one page would fetch the next pages too, as if they had not been dropped.
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM)

    def _close(self) -> None:
        """Close the descriptor once only, because its number may belong to another file later."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def read(self, offset: int, length: int) -> memoryview:
        """Read an extent of at most `PIECE_BYTES` bytes that begins at a whole page.

        The result is valid until the next read.
        """
        if self._volume.has_disk and not self._direct:
            self._drop(offset, length)
        try:
            done = self._read(offset, length)
        except OSError as error:
            if error.errno != errno.EINVAL or not self._direct:
                raise self._named(error) from None
            self._open_cached()  # it has O_DIRECT, but not for such an extent
            return self.read(offset, length)
        if done < length:
            raise self._named(OSError(errno.EIO, "the volume ends early"))
        return memoryview(self._buffer)[:length]

    def _read(self, offset: int, length: int) -> int:
        """Read into the buffer. Returns how many bytes were read: fewer at the end of the file."""
        whole = ceil_div(length, _ALIGNED) * _ALIGNED if self._direct else length
        done = 0
        while done < length:
            part = memoryview(self._buffer)[done:whole]
            got = os.preadv(self._fd, [part], offset + done)
            if not got:
                break
            done += got
        return done

    def _drop(self, offset: int, length: int) -> None:
        """Drop pages from the page cache. Raises OSError if that fails, as for mapped pages."""
        self._volume.sync()
        os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
        for at in range(offset, offset + length, _ALIGNED):
            if self._is_cached(at):
                raise self._named(OSError(errno.EBUSY, "the page cache does not let go of it"))

    def _is_cached(self, offset: int) -> bool:
        try:
            return os.preadv(self._fd, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EOPNOTSUPP):
                return False
            raise

    def _named(self, error: OSError) -> OSError:
        error.filename = self._volume.path
        return error
