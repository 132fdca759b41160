"""Every call of the store is counted, and one of them fails: with an error, or short.

A call is known by what it does and by its file. A failed sync is the worst one: its writes may
never reach the disk, whatever a later sync of the same file says (F11).
"""

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from unittest.mock import patch

from crash_disk import SYSTEM, FakeOS
from crash_host import MemoryDB
from crash_schedule import pause
from crash_unsynced import FailedSync
from stamps import SECTOR

from iifuse import errors


class Mode(StrEnum):
    """How a call fails."""

    EIO = "eio"
    ENOSPC = "enospc"
    """A write takes half of its bytes, and the next one to that file none: a disk fills so."""
    SHORT = "short"
    """Half of the bytes; the rest comes when it is asked for. No failure at all (F10)."""
    GONE = "gone"
    """Every call on the file from this one on, until it is repaired: a disk that dies."""


WRITES = frozenset({"pwrite", "zero_range", "ftruncate", "link", "rename", "create", "row"})
READS = frozenset({"pread", "preadv"})


@dataclass(frozen=True)
class Call:
    """One call of the store. `path`: its file; empty while it has no name."""

    what: str
    path: str

    @property
    def writes(self) -> bool:
        return self.what in WRITES

    def can(self, mode: Mode) -> bool:
        """May this call fail so?"""
        if mode is Mode.ENOSPC:
            return self.writes
        return mode is not Mode.SHORT or self.what in READS or self.what == "pwrite"


@dataclass(frozen=True)
class Fault:
    """Call `number` (from 1) fails; 0: none does."""

    number: int = 0
    mode: Mode = Mode.EIO


@dataclass
class Injector:
    """Counts while it is `armed`; `hit` is the call that failed, `at` the disk's log then."""

    fault: Fault
    armed: bool = False
    starting: bool = False
    """The failure comes while a service starts."""
    calls: list[Call] = field(default_factory=list)
    hit: Call | None = None
    at: int = 0
    last: int = 0
    """The number of the last call that failed."""
    full: str | None = None
    """The file whose next write finds no room at all."""

    def fails(self, what: str, path: str) -> Mode | None:
        """Note a call; how it fails, if it does."""
        if not self.armed:
            return None
        call = Call(what, path)
        self.calls.append(call)
        if self.full is not None and self.full == path and call.writes:
            self.full, self.last = None, len(self.calls)
            return Mode.EIO
        if self.hit is None and len(self.calls) == self.fault.number and call.can(self.fault.mode):
            self.hit, self.at, self.last = call, len(SYSTEM.disk.log), len(self.calls)
            return self.fault.mode
        if self.fault.mode is not Mode.GONE or self.hit is None or self.hit.path != path:
            return None
        self.last = len(self.calls)
        return Mode.GONE

    @property
    def code(self) -> int:
        return errno.ENOSPC if self.fault.mode is Mode.ENOSPC else errno.EIO

    def error(self, path: str) -> OSError:
        return OSError(self.code, "planted", path)

    def repair(self) -> None:
        """From now on nothing fails any more."""
        self.armed, self.full = False, None


@contextmanager
def injecting(injector: Injector):
    """The store's calls go through the injector."""
    real = {name: getattr(FakeOS, name).__get__(SYSTEM) for name in _WRAPPERS}
    with ExitStack() as stack:
        for name, wrap in _WRAPPERS.items():
            stack.callback(SYSTEM.__dict__.pop, name, None)
            setattr(SYSTEM, name, wrap(injector, name, real[name]))
        for name in ("_put", "_content"):
            call = _row(injector, name, getattr(MemoryDB, name))
            stack.enter_context(patch.object(MemoryDB, name, call))
        yield injector


def _path(fd: int) -> str:
    disk = SYSTEM.disk
    return disk.path_of(disk.handles[fd][0])


def _on_handle(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A call on a descriptor that works or does not."""

    def call(fd: int, *arguments: Any) -> Any:
        if injector.fails(name, _path(fd)):
            pause()
            raise injector.error(_path(fd))
        return real(fd, *arguments)

    return call


def _pread(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: int, length: int, offset: int) -> bytes:
        mode = injector.fails(name, _path(fd))
        if mode is Mode.SHORT:
            return real(fd, -(-length // 2), offset)
        if mode:
            pause()
            raise injector.error(_path(fd))
        return real(fd, length, offset)

    return call


def _preadv(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        mode = injector.fails(name, _path(fd))
        if mode is Mode.SHORT:
            return -(-real(fd, buffers, offset, flags) // 2)
        if mode:
            raise injector.error(_path(fd))
        return real(fd, buffers, offset, flags)

    return call


def _pwrite(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: int, data: Any, offset: int) -> int:
        mode = injector.fails(name, _path(fd))
        if mode in (Mode.SHORT, Mode.ENOSPC):
            part = memoryview(data)[: _half(offset, len(data))]
            if mode is Mode.ENOSPC:
                injector.full = _path(fd)
                if not part:
                    injector.full = None
                    raise injector.error(_path(fd))
            return real(fd, part or data, offset)
        if mode:
            pause()
            raise injector.error(_path(fd))
        return real(fd, data, offset)

    return call


def _half(offset: int, length: int) -> int:
    """Half of a write, up to the end of a sector."""
    stop = offset + length // 2
    return max(0, stop - stop % SECTOR - offset)


def _sync(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(fd: int, *extent: int) -> None:
        if injector.fails(name if extent else "sync", _path(fd)):
            pause()
            SYSTEM.disk.log.append(FailedSync(SYSTEM.disk.handles[fd][0]))
            raise injector.error(_path(fd))
        real(fd, *extent)

    return call


def _open(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(path: str, flags: int, mode: int = 0) -> int:
        what = "create" if flags & os.O_CREAT or flags & os.O_TMPFILE == os.O_TMPFILE else "open"
        if injector.fails(what, path):
            raise injector.error(path)
        return real(path, flags, mode)

    return call


def _on_name(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A call on the name of a file; of two, the new one counts."""

    def call(path: str, *others: Any, **options: Any) -> Any:
        last = str(others[-1]) if others else path
        if injector.fails(name, last):
            raise injector.error(last)
        return real(path, *others, **options)

    return call


def _row(injector: Injector, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """The state database, which answers with a typed error and changes nothing then."""
    what = "row" if name == "_put" else "query"

    def call(db: MemoryDB, *content: Any) -> Any:
        if injector.fails(what, "state.db"):
            raise errors.StorageError("state.db", "planted")
        return real(db, *content)

    return call


_WRAPPERS = {
    "pread": _pread,
    "preadv": _preadv,
    "pwrite": _pwrite,
    "fdatasync": _sync,
    "fsync": _sync,
    "start_writeback": _sync,
    "zero_range": _on_handle,
    "lseek": _on_handle,
    "ftruncate": _on_handle,
    "open": _open,
    "stat": _on_name,
    "link": _on_name,
    "rename": _on_name,
    "unlink": _on_name,
}
