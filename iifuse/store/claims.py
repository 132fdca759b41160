"""Which service uses which storage of the host. No second service can open it, under any name.

An open volume holds kernel locks on small files below `DIRECTORY`. There is one such file for each
base (identity.py). The lock on the volume's own extents excludes all others. The lock on the
extents that the volume lies on can be shared. So the kernel itself applies the rule of
`Identity.conflicts` between all services, and it releases the locks when a process ends, however it
ends. The files are empty, so it does not matter if a killed service leaves them, or if they are
lost at a boot.

Locks on the volumes themselves would not be enough. A lock on a device node is not seen through
another node, and the backing file of a loop device may have no name here. Rejected: a register of
who has what. After a kill somebody would have to decide whether it is still right.

A service that may not write there (not root, or /run is read-only) locks files by their own names
only.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Final
from urllib.parse import quote

from iifuse import errors
from iifuse.store import linux
from iifuse.store.blocks import Extent
from iifuse.store.holders import named, of_file
from iifuse.store.identity import Identity

DIRECTORY: Final = "/run/iifuse/.claims"
"""The name begins with a dot, so that it is not the runtime directory of an `iifuse@NAME`."""
_FORBIDDEN: Final = (errno.EACCES, errno.EPERM, errno.EROFS)
_NAME_MAX: Final = 255


class Claim:
    """The locks that an open volume holds on the host's storage."""

    def __init__(self, path: str, identity: Identity) -> None:
        """`path` is for messages. Raises InUse, or BadVolume where a lock cannot be had at all."""
        try:
            with ExitStack() as undo:
                for extent in identity.own:
                    undo.enter_context(_locked(path, extent, exclusive=True))
                for extent in identity.under:
                    undo.enter_context(_SHARED.held(path, extent))
                self._held = undo.pop_all()
        except OSError as error:
            raise errors.BadVolume(
                path,
                f"cannot be claimed in {DIRECTORY} ({error.strerror})",
                "make room there, or mend that directory",
            ) from error

    def release(self) -> None:
        """Release the locks. It is allowed to call this twice."""
        self._held.close()


def sweep() -> bool:
    """Remove the files that killed services have left. False: this process may not write there."""
    try:
        with _directory_locked():
            for name in os.listdir(DIRECTORY):
                with suppress(OSError):
                    _let_go(_open(f"{DIRECTORY}/{name}"), f"{DIRECTORY}/{name}")
    except OSError as error:
        if error.errno in _FORBIDDEN:
            return False
        raise
    return True


@contextmanager
def _locked(path: str, extent: Extent, *, exclusive: bool) -> Iterator[None]:
    """Hold a lock on some bytes of a base."""
    file = os.path.join(DIRECTORY, quote(extent.base, safe=":")[:_NAME_MAX])
    fd = _lock(path, file, extent, exclusive=exclusive)
    try:
        yield
    finally:
        if fd >= 0:
            with _directory_locked():
                _let_go(fd, file)


def _lock(path: str, file: str, extent: Extent, *, exclusive: bool) -> int:
    """Take a lock. Returns the descriptor that holds it; -1 if nothing may be written there."""
    try:
        with _directory_locked():
            fd = _open(file)
            locked = False
            try:
                locked = linux.lock_extent(fd, extent.start, extent.end, exclusive=exclusive)
            finally:
                if not locked:
                    os.close(fd)
            if locked:
                return fd
    except OSError as error:
        if error.errno in _FORBIDDEN:
            return -1
        raise
    who = named(of_file(file))
    raise errors.InUse(
        path,
        f"shares storage with a volume of another service: {who}"
        if who
        else "shares storage with a volume of this service, or of another service out of sight",
        "disable there the set that it belongs to, or name another volume",
    )


def _open(file: str) -> int:
    return os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


@contextmanager
def _directory_locked() -> Iterator[None]:
    """While this is held, no other process makes, locks or removes files here."""
    os.makedirs(DIRECTORY, mode=0o700, exist_ok=True)
    fd = os.open(DIRECTORY, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _let_go(fd: int, file: str) -> None:
    """Close a file, and remove it if nobody else has a lock on it."""
    try:
        if linux.lock_extent(fd, 0, 0, exclusive=True):
            os.unlink(file)
    finally:
        os.close(fd)


class _Shared:
    """The shared locks of this process. All its volumes on one extent share a descriptor."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._held: dict[Extent, tuple[int, ExitStack]] = {}

    @contextmanager
    def held(self, path: str, extent: Extent) -> Iterator[None]:
        """Hold the shared lock on an extent."""
        with self._mutex:
            count, lock = self._held.get(extent) or (0, ExitStack())
            if not count:
                lock.enter_context(_locked(path, extent, exclusive=False))
            self._held[extent] = (count + 1, lock)
        try:
            yield
        finally:
            self._leave(extent)

    def _leave(self, extent: Extent) -> None:
        with self._mutex:
            count, lock = self._held.pop(extent)
            if count > 1:
                self._held[extent] = (count - 1, lock)
            else:
                lock.close()


_SHARED: Final = _Shared()
