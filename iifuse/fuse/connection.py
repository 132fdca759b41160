"""The mount and the descriptor by which the kernel talks to us; made here, not by libfuse.

So we can change what libfuse answers to the kernel's first request, INIT. It asks for
FUSE_AUTO_INVAL_DATA, with which the kernel drops the cached pages of a file whenever its mtime
moves, as ours does with each write: a file of 64 MiB was fetched again after every sync of a
program. When pages have to go, the service knows, and says so at the next open.

And we ask that the kernel go by the access control lists of volumes and directories. A file system
that has extended attributes is asked for one before each write, whether it gives the program more
rights than the writer has, unless it says that it looks after that itself (HANDLE_KILLPRIV_V2): no
file here gives anybody any rights.

For that one request libfuse talks to a pair of sockets instead of the kernel.
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
    """A mounted file system that nobody serves yet. `device`: of its files."""

    def __init__(self, mountpoint: str) -> None:
        """Mount. Raises OSError."""
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
        """Does the kernel go by access control lists, which it asks for?"""
        self._ours.send(request)
        self.is_served = trio.Event()
        """The kernel has its answer: from now on it sends requests."""

    @property
    def path(self) -> str:
        """The mount point that libfuse is to be told: it finds its descriptor there."""
        return f"/dev/fd/{self._libfuse}"

    def greet(self) -> bool:
        """Is there a request for libfuse yet, INIT? If it was there before, the kernel is next."""
        if self._is_asked:
            self._answer()
            return False
        self._is_asked = True
        return True

    def _answer(self) -> None:
        """INIT is answered: the kernel gets that, and libfuse the kernel's descriptor."""
        answer = bytearray(self._ours.recv(_ANSWER_BYTES_MAX))
        (flags,) = _FLAGS.unpack_from(answer, _FLAGS_AT)
        flags = flags & ~_AUTO_INVAL_DATA | (_LISTS if self.lists else 0)
        _FLAGS.pack_into(answer, _FLAGS_AT, flags)
        os.dup2(self._kernel, self._libfuse, inheritable=False)
        os.write(self._kernel, answer)
        os.close(self._kernel)
        self._ours.close()
        self.is_served.set()
