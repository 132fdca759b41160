"""A disk in memory under the real store: it logs every write and sync, and so can lose them.

The store's and the engine's `os` is replaced, nothing else: volumes, bitmap files, the group
record and the tickets go through the product's own code. A name and a size are durable at once
(who makes a file syncs its directory, which fs_log looks at); data is durable once a sync has
*returned* that began after the write. What a write makes of a sector is taken from the page cache,
so that a write of a part of a sector carries what stood beside it, as write-back does.
"""

import errno
import importlib
import os
import pkgutil
import stat
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import crash_identity
from crash_paths import FakeFile, FakePath
from crash_schedule import CooperativeLock, CooperativeRLock, in_pool, pause, run_sync
from stamps import SECTOR

CHUNK = 32 * 1024
_HOLE = bytes(CHUNK)


@dataclass(slots=True)
class Image:
    """What a machine finds after a power loss: `files` by inode number, `dbs` by host."""

    files: dict[int, bytes] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    dbs: dict[str, Any] = field(default_factory=dict)

    def key(self) -> int:
        parts = (self.files, self.names, self.dbs)
        return hash(tuple(frozenset(part.items()) for part in parts))

    def share(self) -> "Image":
        return Image(dict(self.files), dict(self.names), dict(self.dbs))


@dataclass(frozen=True, slots=True)
class Write:
    """Whole sectors (but for the end of the file)."""

    file: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Sync:
    """A sync has returned: what the log held of `file` before `began` is durable."""

    file: int
    began: int


@dataclass(frozen=True, slots=True)
class Names:
    """A file came, went or got another name."""

    names: dict[str, int]
    new: int | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Database:
    """A transaction of a host's state database."""

    host: str
    content: Any


Event = Write | Sync | Names | Database


class Disk:
    """The running machine: page cache, names, descriptors and the log of what it did."""

    def __init__(self, image: Image | None = None) -> None:
        image = image or Image()
        self.cache: dict[int, bytes | bytearray] = dict(image.files)
        self.names, self.dbs = dict(image.names), dict(image.dbs)
        self.log: list[Event] = []
        self.handles: dict[int, list[Any]] = {}  # fd -> [file, offset, locked]
        self.failing: dict[str, str] = {}  # path -> operation that answers EIO
        self.stats: dict[int, dict[str, int]] = {}  # file -> what stat says that is not made up
        self.devices: dict[int, int] = {}  # those of the files that are block devices -> their disk
        self._next = 100 + max(image.files, default=0)

    def image(self) -> Image:
        """Everything that was written, as if it had been synced."""
        files = {number: bytes(data) for number, data in self.cache.items()}
        return Image(files, dict(self.names), dict(self.dbs))

    def content(self, path: str) -> bytes:
        return bytes(self.cache[self.names[path]])

    def create(self, path: str, data: bytes) -> None:
        number = self.add(path, len(data))
        if data:
            self.write(number, 0, data)

    def add(self, path: str | None, size: int = 0) -> int:
        """A new file of zeros, at first perhaps with no name."""
        number = self._next = self._next + 1
        if path is not None:
            self.names[path] = number
        self.cache[number] = bytes(size)
        self.log.append(Names(dict(self.names), number, size))
        return number

    def rename(self, old: str, new: str | None) -> None:
        number = self.names.pop(old)
        if new is not None:
            self.names[new] = number
        self.log.append(Names(dict(self.names)))

    def resize(self, number: int, size: int) -> None:
        self.cache[number] = bytes(self.cache[number][:size]).ljust(size, b"\0")
        self.log.append(Names(dict(self.names), number, size))

    def writable(self, number: int) -> bytearray:
        data = self.cache[number]
        if not isinstance(data, bytearray):
            data = self.cache[number] = bytearray(data)
        return data

    def write(self, number: int, offset: int, data: Any) -> None:
        stop = offset + len(data)
        if stop > len(self.cache[number]):
            self.resize(number, stop)
        cache = self.writable(number)
        cache[offset:stop] = data
        start = offset - offset % SECTOR
        stop += -stop % SECTOR
        self.log.append(Write(number, start, bytes(cache[start:stop])))

    def commit(self, host: str, content: Any) -> None:
        self.dbs[host] = content
        self.log.append(Database(host, content))

    def path_of(self, number: int) -> str:
        """The name of a file, or the last one that it had."""
        past = (event.names for event in reversed(self.log) if isinstance(event, Names))
        found = (p for names in chain([self.names], past) for p, n in names.items() if n == number)
        return next(found, "")

    def fail(self, fd: int, operation: str) -> None:
        if self.failing and self.failing.get(self.path_of(self.handles[fd][0])) == operation:
            raise OSError(errno.EIO, "planted")


class FakeOS:
    """The part of `os` that the product uses on volumes."""

    def __init__(self) -> None:
        self.disk = Disk()
        self.path = FakePath(self)
        self._next = 1000

    def __getattr__(self, name: str) -> Any:
        if name.isupper():  # O_RDWR and its like
            return getattr(os, name)
        raise AttributeError(f"the crash disk has no os.{name}")

    # -- data -------------------------------------------------------------------------------

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        pause()
        self.disk.fail(fd, "read")
        return bytes(self.disk.cache[self.disk.handles[fd][0]][offset : offset + length])

    def preadv(self, fd: int, buffers: list[bytearray], offset: int, flags: int) -> int:
        data = self.disk.cache[self.disk.handles[fd][0]][offset : offset + len(buffers[0])]
        buffers[0][:] = data
        return len(data)

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        pause()
        self.disk.fail(fd, "write")
        self.disk.write(self.disk.handles[fd][0], offset, data)
        return len(data)

    def fdatasync(self, fd: int) -> None:
        pause()
        self.disk.fail(fd, "sync")
        began = len(self.disk.log)
        pause()  # what is written from here on may not be in it
        self.disk.log.append(Sync(self.disk.handles[fd][0], began))

    fsync = fdatasync

    def zero_range(self, fd: int, offset: int, length: int) -> bool:
        return self.pwrite(fd, bytes(length), offset) == length

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Nothing is durable by it; without it anything may be, as every image shows."""
        pause()
        self.disk.fail(fd, "sync")

    def lseek(self, fd: int, offset: int, whence: int) -> int:
        """A chunk of zeros is a hole."""
        data, at = self.disk.cache[self.disk.handles[fd][0]], offset
        while at < len(data):
            start = at - at % CHUNK
            chunk = data[start : start + CHUNK]
            if (chunk == _HOLE[: len(chunk)]) == (whence == os.SEEK_HOLE):
                return at
            at = start + CHUNK
        if whence == os.SEEK_DATA:
            raise OSError(errno.ENXIO, "only a hole")
        return len(data)

    def ftruncate(self, fd: int, size: int) -> None:
        self.disk.resize(self.disk.handles[fd][0], size)

    def posix_fadvise(self, *arguments: int) -> None:
        pass

    # -- files ------------------------------------------------------------------------------

    def open(self, path: str, flags: int, mode: int = 0) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            return self._handle(self.disk.add(None))
        if flags & os.O_DIRECTORY:
            return self._handle(0)
        if path not in self.disk.names:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            self.disk.add(path)
        elif flags & os.O_EXCL and flags & os.O_CREAT:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        number = self.disk.names[path]
        if flags & os.O_TRUNC:
            self.disk.resize(number, 0)
        return self._handle(number)

    def _handle(self, number: int) -> int:
        self._next += 1
        self.disk.handles[self._next] = [number, 0, False]
        self.disk.cache.setdefault(0, b"")
        return self._next

    def close(self, fd: int) -> None:
        del self.disk.handles[fd]

    def fdopen(self, fd: int, mode: str) -> FakeFile:
        return FakeFile(self, fd)

    set_blocking = posix_fadvise
    def stat(self, path: str) -> Any:
        if path in ("/", "/dev"):
            return SimpleNamespace(st_mode=stat.S_IFDIR | 0o755, st_dev=1)
        if path not in self.disk.names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._stat(self.disk.names[path])

    def fstat(self, fd: int) -> Any:
        return self._stat(self.disk.handles[fd][0])

    def _stat(self, number: int) -> Any:
        found = {
            "st_mode": stat.S_IFREG | 0o600, "st_ino": number, "st_dev": 1, "st_rdev": 0,
            "st_uid": 0, "st_gid": 0, "st_size": len(self.disk.cache[number]), "st_blocks": 0,
            "st_mtime_ns": 0, "st_ctime_ns": 0,
        }  # fmt: skip
        if number in self.disk.devices:
            found |= {"st_mode": stat.S_IFBLK | 0o600, "st_rdev": number, "st_size": 0}
        return SimpleNamespace(**(found | self.disk.stats.get(number, {})))

    def statvfs(self, path: str | int) -> Any:
        return SimpleNamespace(f_blocks=0)  # it does not say

    def device_size(self, fd: int) -> int:
        return len(self.disk.cache[self.disk.handles[fd][0]])

    def drop_device_cache(self, fd: int) -> None:
        """Whoever drops it has synced."""

    def rename(self, old: str, new: str) -> None:
        self.disk.rename(old, new)

    def link(self, path: str, other: str, **options: bool) -> None:
        if other in self.disk.names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), other)
        assert path.startswith("/proc/self/fd/"), "the product links nothing but new files"
        self.disk.names[other] = self.disk.handles[int(path.rpartition("/")[2])][0]
        self.disk.log.append(Names(dict(self.disk.names)))

    def unlink(self, path: str) -> None:
        self.disk.rename(path, None)

    def makedirs(self, path: str, mode: int = 0, exist_ok: bool = False) -> None:
        pass

    # -- locks ------------------------------------------------------------------------------

    def lock_whole_file(self, fd: int) -> bool:
        handle = self.disk.handles[fd]
        others = [h for h in self.disk.handles.values() if h is not handle and h[0] == handle[0]]
        handle[2] = not any(h[2] for h in others)
        return handle[2]

    def opened_by_others(self, fd: int) -> bool:
        number = self.disk.handles[fd][0]
        return sum(h[0] == number for h in self.disk.handles.values()) > 1

    def is_tmpfs(self, fd: int) -> bool:
        return False

    def birth_ns(self, fd: int) -> int:
        return 0  # nobody can tell



SYSTEM = FakeOS()
"""One for a process; `SYSTEM.disk` is the machine that runs."""


def _users_of_os() -> list[str]:
    """The modules of the store and the engine that name files."""
    places = [
        place.name
        for package in ("iifuse.store", "iifuse.data", "iifuse.host", "iifuse.verbs")
        for place in pkgutil.iter_modules(importlib.import_module(package).__path__, f"{package}.")
    ]
    return [p for p in places if p not in _REAL and hasattr(importlib.import_module(p), "os")]


_REAL = *("iifuse.store." + name for name in ("linux", "statedb", "database")), *crash_identity.REAL
SMALL = {
    "iifuse.store.transitions.SLOT_BYTES": 4096,
    "iifuse.core.bits.REGION_CHUNKS": 2,
    "iifuse.core.bits.HOT_REGIONS_MAX": 2,
    "iifuse.data.copier.STEP_CHUNKS": 2,
    "iifuse.data.copier.STRETCH_CHUNKS": 3,
    "iifuse.data.copier.STEP_S": 1e9,
    "iifuse.data.copier.STRETCH_S": 1e9,
    "iifuse.data.family.RECENT_S": float("inf"),
}
"""So that a few chunks have cooling regions and copies of several stretches; nothing is timed."""


@contextmanager
def installed():
    """While this is held the product works on `SYSTEM.disk`, and its threads take turns."""
    with ExitStack() as stack:
        for module in _users_of_os():
            stack.enter_context(patch(f"{module}.os", SYSTEM))
        for module in ("iifuse.store.volume", "iifuse.store.files"):
            stack.enter_context(patch(f"{module}.linux", SYSTEM))
        for one in crash_identity.patches(lambda: SYSTEM.disk):
            stack.enter_context(one)
        locks = SimpleNamespace(Lock=CooperativeLock, RLock=CooperativeRLock)
        for module in ("iifuse.store.volume", "iifuse.host.notes"):
            stack.enter_context(patch(f"{module}.threading", locks))
        stack.enter_context(patch("trio.to_thread.run_sync", run_sync))
        stack.enter_context(patch("iifuse.loop.loop.Loop._in_pool", in_pool))
        for name, value in SMALL.items():
            stack.enter_context(patch(name, value))
        yield SYSTEM
