"""Makes the mount, and the descriptor through which the kernel talks to the service.

libfuse could make both. But here the answer to the kernel's first request, INIT, can be changed.
libfuse asks for FUSE_AUTO_INVAL_DATA. With it the kernel drops the cached pages of a file whenever
its mtime moves. Ours moves with each write, so a file of 64 MiB was read again after every sync of
a program. The service knows when pages have to be dropped, and says so at the next open.

The answer also asks the kernel to apply the access control lists of volumes and directories. The
kernel asks a file system that has extended attributes for one before each write: could the file
give the program more rights than the writer has? We answer once that this cannot be
(HANDLE_KILLPRIV_V2).

For this one request libfuse talks to a pair of sockets instead of the kernel.
"""

import os
import socket
import struct
from typing import Final

import trio

from iifuse.store import linux
from iifuse.store.mounts import mounts

_REQUEST_BYTES_MAX: Final = 1 << 17
_ANSWER_BYTES_MAX: Final = 4096
_FLAGS: Final = struct.Struct("<I")
_FLAGS_AT: Final = 16 + 12  # struct fuse_out_header, then flags of struct fuse_init_out
_AUTO_INVAL_DATA: Final = 1 << 12
_POSIX_ACL: Final = 1 << 20
_HANDLE_KILLPRIV_V2: Final = 1 << 28
_LISTS: Final = _POSIX_ACL | _HANDLE_KILLPRIV_V2
_OFFERED_AT: Final = 40 + 12  # struct fuse_in_header, then flags of struct fuse_init_in


class Connection:
    """A mounted file system that is not served yet. `device`: the device number of its files."""

    def __init__(self, mountpoint: str) -> None:
        """Mount at a directory. Raises OSError."""
        self.mountpoint = mountpoint
        self._kernel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._libfuse = theirs.detach()
        self._is_asked = False
        try:
            linux.mount_fuse(self._kernel, mountpoint)
        except OSError:
            for fd in (self._kernel, self._libfuse):
                os.close(fd)
            self._ours.close()
            raise
        self.device = mounts().at(mountpoint)[-1].device_number
        request = os.read(self._kernel, _REQUEST_BYTES_MAX)
        (offered,) = _FLAGS.unpack_from(request, _OFFERED_AT)
        self.lists = offered & _LISTS == _LISTS
        """Does the kernel apply access control lists?"""
        self._ours.send(request)
        self.is_served = trio.Event()
        """Is set when the kernel has its answer. From then on it sends requests."""

    @property
    def path(self) -> str:
        """The path that libfuse gets as its mount point. It stands for our descriptor."""
        return f"/dev/fd/{self._libfuse}"

    def greet(self) -> bool:
        """Is INIT still waiting for libfuse? The second call passes libfuse's answer on."""
        if self._is_asked:
            self._answer()
            return False
        self._is_asked = True
        return True

    def _answer(self) -> None:
        """Send libfuse's answer to INIT to the kernel, and give libfuse the kernel's descriptor."""
        answer = bytearray(self._ours.recv(_ANSWER_BYTES_MAX))
        (flags,) = _FLAGS.unpack_from(answer, _FLAGS_AT)
        flags = flags & ~_AUTO_INVAL_DATA | (_LISTS if self.lists else 0)
        _FLAGS.pack_into(answer, _FLAGS_AT, flags)
        os.dup2(self._kernel, self._libfuse, inheritable=False)
        os.write(self._kernel, answer)
        os.close(self._kernel)
        self._ours.close()
        self.is_served.set()
