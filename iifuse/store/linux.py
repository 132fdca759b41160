"""System calls that Python's standard library does not have."""

import ctypes
import errno
import fcntl
import os
import select
import signal
import struct
from typing import ClassVar, Final, NamedTuple

FALLOC_KEEP_SIZE: Final = 0x01
FALLOC_ZERO_RANGE: Final = 0x10
TMPFS_MAGIC: Final = 0x01021994
MNT_DETACH: Final = 2
FUSE_CONNECTIONS: Final = "/sys/fs/fuse/connections"

_AT_FDCWD: Final = -100
_UTIME_OMIT: Final = (1 << 30) - 2
_TIMES: Final = struct.Struct("qqqq")  # of the last access, of the last change: s, ns
_RENAME_NOREPLACE: Final = 1
_SYNC_FILE_RANGE_WRITE: Final = 2
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BTIME: Final = 0x800
_STATX: Final = struct.Struct("<I76xqI164x")  # mask, then seconds and nanoseconds of the birth
_BLKGETSIZE64: Final = 0x80081272
_BLKFLSBUF: Final = 0x1261
_LOOP_GET_STATUS64: Final = 0x4C05
_LOOP_INFO: Final = struct.Struct("QQQQ200x")
_MS_NOSUID: Final = 2
_MS_NODEV: Final = 4
_MS_NOEXEC: Final = 8
_MS_BIND: Final = 4096
_MCL_CURRENT_FUTURE: Final = 3
_PR_SET_NAME: Final = 15
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_SET_IO_FLUSHER: Final = 57
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_KEPT_PIECE_BYTES: Final = 4 << 20
_KEPT_BYTES: Final = 64 << 20
_FLOCK: Final = struct.Struct("hhqqi4x")

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, path: str | None = None) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return result


class _PollFD(ctypes.Structure):
    """struct pollfd."""

    _fields_: ClassVar = [
        ("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short),
    ]  # fmt: skip


class PollTwo:
    """Waits until one of two descriptors is readable. A descriptor of -1 is ignored.

    This calls ppoll(2), which can wait for parts of a millisecond and takes any descriptor.
    Python's epoll and poll round up to whole milliseconds, and select(2) takes no descriptor above
    1023.
    """

    def __init__(self) -> None:
        self._two = (_PollFD * 2)(_PollFD(-1, select.POLLIN), _PollFD(-1, select.POLLIN))
        self._limit = (ctypes.c_long * 2)()

    def watch(self, first: int, second: int) -> None:
        """Set the two descriptors."""
        self._two[0].fd, self._two[1].fd = first, second

    def wait(self, limit_s: float) -> None:
        """Sleep until one is readable, or for `limit_s` seconds. A signal ends the sleep too."""
        self._limit[:] = list(divmod(int(limit_s * 1e9), 1_000_000_000))
        _libc.ppoll(self._two, ctypes.c_ulong(2), self._limit, None)


def zero_range(fd: int, offset: int, length: int) -> bool:
    """Make `length` bytes read as zeros and keep their space. False: this is not supported."""
    flags = FALLOC_ZERO_RANGE | FALLOC_KEEP_SIZE
    args = (fd, flags, ctypes.c_longlong(offset), ctypes.c_longlong(length))
    try:
        _check(_libc.fallocate64(*args))
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOSYS):
            return False
        raise
    return True


def start_writeback(fd: int, offset: int, length: int) -> None:
    """sync_file_range(2): begin to write dirty pages, without waiting for them.

    If this waited, it would take an error away that the next fdatasync has to report.
    """
    extent = ctypes.c_longlong(offset), ctypes.c_longlong(length)
    _check(_libc.sync_file_range(fd, *extent, _SYNC_FILE_RANGE_WRITE))


def is_tmpfs(fd: int) -> bool:
    """Is the file on a tmpfs? statfs(2) tells: its first word is the type of the file system."""
    buffer = ctypes.create_string_buffer(256)
    _check(_libc.fstatfs(fd, buffer))
    return int.from_bytes(buffer.raw[:8], "little") == TMPFS_MAGIC


def birth_ns(file: int | str) -> int:
    """When a file was made, in nanoseconds since 1970; 0: unknown.

    `file`: a descriptor, or a path whose links are followed.
    """
    buffer = ctypes.create_string_buffer(_STATX.size)
    fd, path, flags = (
        (_AT_FDCWD, file, 0) if isinstance(file, str) else (file, "", _AT_EMPTY_PATH)
    )
    if _libc.statx(fd, os.fsencode(path), flags, _STATX_BTIME, buffer):
        return 0
    mask, seconds, nanoseconds = _STATX.unpack(buffer.raw)
    born = seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0
    return max(0, int(born))


def device_size(fd: int) -> int:
    """The size of an open block device in bytes."""
    return int.from_bytes(fcntl.ioctl(fd, _BLKGETSIZE64, bytes(8)), "little")


def drop_device_cache(fd: int) -> None:
    """BLKFLSBUF: let the next read come from the disk, because another host may have written it."""
    fcntl.ioctl(fd, _BLKFLSBUF)


class LoopStatus(NamedTuple):
    """What a loop device lies on: a file (`device`, `inode`), or a block device (`rdevice`)."""

    device: int
    inode: int
    rdevice: int
    offset: int


def loop_status(node: str) -> LoopStatus:
    """Ask the kernel what a loop device lies on. It knows files of other namespaces as well."""
    fd = os.open(node, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        found = fcntl.ioctl(fd, _LOOP_GET_STATUS64, bytes(_LOOP_INFO.size))
    finally:
        os.close(fd)
    return LoopStatus(*_LOOP_INFO.unpack(found))


def lock_whole_file(fd: int) -> bool:
    """Take a write lock (OFD) that lasts as long as the descriptor. False: somebody else has it."""
    return lock_extent(fd, 0, 0, exclusive=True)


def lock_extent(fd: int, start: int, end: int, *, exclusive: bool) -> bool:
    """Take a lock on bytes `start` to `end` of a file, which may be shorter. False: not possible.

    `end` 0 means the whole file. `exclusive`: nobody else may have a lock there.
    """
    kind = fcntl.F_WRLCK if exclusive else fcntl.F_RDLCK
    length = end - start if end else 0
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def opened_by_others(fd: int) -> bool:
    """Is the regular file open through another descriptor? If so, the kernel grants no lease."""
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # other errors: this file system has no leases
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def rename_new(old: str, new: str) -> None:
    """Rename a file, but never replace another. Raises OSError (EEXIST if there is one)."""
    names = (_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new))
    try:
        _check(_libc.renameat2(*names, _RENAME_NOREPLACE), new)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS):
            raise
        os.link(old, new)  # a file system that knows no such rename
        os.unlink(old)


def bind_mount(source: str, target: str) -> None:
    """Show a file over another one, as `mount --bind` does. Raises OSError."""
    _check(_libc.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND, None), target)


def mount_fuse_control() -> None:
    """Mount fusectl where systemd mounts it. There the kernel's limits of a mount can be set.

    Raises OSError (EBUSY if it is mounted already).
    """
    kind, flags = b"fusectl", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    _check(_libc.mount(kind, os.fsencode(FUSE_CONNECTIONS), kind, flags, None), FUSE_CONNECTIONS)


def mount_fuse(fd: int, target: str) -> None:
    """Mount the file system that will be served through `fd`, an open /dev/fuse.

    Raises OSError (EPERM if this is not root).
    """
    data = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    flags = _MS_NOSUID | _MS_NODEV
    words = (b"iifuse", os.fsencode(target), b"fuse.iifuse", flags, data.encode())
    _check(_libc.mount(*words), target)


def unmount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), flags), target)


def set_mtime(path: str, time_ns: int) -> None:
    """Set the modification time of a file and leave its access time alone. Raises OSError."""
    times = _TIMES.pack(0, _UTIME_OMIT, *divmod(time_ns, 1_000_000_000))
    _check(_libc.utimensat(_AT_FDCWD, os.fsencode(path), times, 0), path)


def lock_memory() -> bool:
    """mlockall: without it, a page fault under memory pressure could wait for our own mount."""
    return int(_libc.mlockall(_MCL_CURRENT_FUTURE)) == 0


def keep_memory() -> None:
    """mallopt: keep freed memory for the next request of up to 1 MiB.

    Otherwise the memory would go back to the kernel after each request. Locked memory that is taken
    anew is filled page by page, which takes longer than to copy the data. There is one arena, so
    that threads share the memory that is kept.
    """
    for option, value in (
        (_M_MMAP_THRESHOLD, _KEPT_PIECE_BYTES),
        (_M_TRIM_THRESHOLD, _KEPT_BYTES),
        (_M_ARENA_MAX, 1),
    ):
        _libc.mallopt(option, value)


def be_io_flusher() -> bool:
    """PR_SET_IO_FLUSHER: let no allocation of ours wait for our mount. Needs CAP_SYS_RESOURCE."""
    return int(_libc.prctl(_PR_SET_IO_FLUSHER, 1, 0, 0, 0)) == 0


def end_with(parent: int) -> None:
    """PR_SET_PDEATHSIG: end this process with the thread of `parent` that has forked it."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it had ended before
        os._exit(0)


def set_name(name: str) -> None:
    """PR_SET_NAME: the name of this process in ps(1) and in messages of other services."""
    _libc.prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def forbid_core_dumps() -> None:
    """PR_SET_DUMPABLE: write no core file, because our memory contains other people's data."""
    _libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
