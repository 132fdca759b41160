"""Loop devices, file systems and other programs for a test; all gone when it ends.

`attach` and `mounted` come down before the services that they stand on, whatever happened.
"""

import contextlib
import ctypes
import errno
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hang import PATIENCE_SECONDS
from harness import Service, is_attached, losetup


def eventually(true: Callable[[], object], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Return once `true()` is: for what tells nobody when it happens."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} seconds: {what}"
        time.sleep(0.01)


@pytest.fixture
def attach(new_service: Callable[..., Service]) -> Iterator[Callable[..., str]]:
    """Make loop devices over files."""
    with contextlib.ExitStack() as stack:

        def make(path: Path, *options: str) -> str:
            device = losetup(path, *options)
            stack.callback(let_go, device)
            return device

        yield make


@pytest.fixture
def loops(new_service: Callable[..., Service]) -> Iterator[Callable[..., str]]:
    """The same for volumes: the kernel takes each down once its service has ended."""
    made: list[str] = []

    def make(path: Path, *options: str) -> str:
        made.append(losetup(path, *options))
        return made[-1]

    yield make
    for device in reversed(made):
        subprocess.run(["losetup", "-d", device], capture_output=True, check=False)


def let_go(device: str) -> None:
    """Take a loop device down; one that a service has as a volume goes when that service ends."""
    with contextlib.suppress(AssertionError):
        detach(device, 0.5)


def detach(device: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Take a loop device down and wait until it has let go of its file."""
    if is_attached(device):
        subprocess.run(["losetup", "-d", device], capture_output=True, check=False)
        eventually(lambda: not is_attached(device), f"{device} is free", seconds)


@pytest.fixture
def mounted(attach: Callable[..., str], place: Path) -> Iterator[Callable[..., Path]]:
    """Mount devices on directories of their own."""
    with contextlib.ExitStack() as stack:

        def make(device: str, name: str, *options: str) -> Path:
            directory = place / "fs" / name
            directory.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", *options, device, str(directory)], check=True)
            stack.callback(unmount, directory)
            return directory

        yield make


def unmount(directory: Path) -> None:
    """Unmount; also what was unmounted already."""
    if os.path.ismount(directory):
        subprocess.run(["fsfreeze", "-u", str(directory)], capture_output=True, check=False)
        subprocess.run(["umount", str(directory)], check=True)


class Mapping:
    """A shared mapping that keeps no descriptor, as Python's own does."""

    def __init__(self, fd: int, size: int) -> None:
        call = _libc.mmap
        call.restype = ctypes.c_void_p
        call.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        access = mmap.PROT_READ | mmap.PROT_WRITE
        self.address, self.size = call(None, size, access, mmap.MAP_SHARED, fd, 0), size
        assert self.address not in (None, ctypes.c_void_p(-1).value), os.strerror(
            ctypes.get_errno()
        )

    def store(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= self.size
        ctypes.memmove(self.address + offset, data, len(data))

    def bytes(self) -> bytes:
        return ctypes.string_at(self.address, self.size)

    def resident(self) -> int:
        """Pages of it that are in the page cache."""
        found = (ctypes.c_ubyte * -(-self.size // mmap.PAGESIZE))()
        _libc.mincore(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size), found)
        return sum(bit & 1 for bit in found)

    def sync(self) -> None:
        _libc.msync(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size), 4)

    def close(self) -> None:
        _libc.munmap(ctypes.c_void_p(self.address), ctypes.c_size_t(self.size))

    def __enter__(self) -> "Mapping":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_libc = ctypes.CDLL(None, use_errno=True)

_HOLD = """
import os, sys
sys.path[:0] = sys.argv[3].split(":")
fd = os.open(sys.argv[1], os.O_RDWR)
if sys.argv[2] == "map":
    from devices import Mapping
    kept = Mapping(fd, 4096)
    os.close(fd)
print("open", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def held_open(path: Path, how: str = "fd") -> Iterator[int]:
    """Another program has the file open (`how`: fd) or only mapped (map); its pid."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(path), how, ":".join(sys.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == b"open\n"
            yield program.pid
        finally:
            program.stdin.close()
            program.wait(60)


@contextlib.contextmanager
def opened(path: Path, flags: int = os.O_RDWR) -> Iterator[int]:
    """A descriptor of our own."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        with contextlib.suppress(OSError):  # the service may have been killed meanwhile
            os.close(fd)


def allocated(path: Path) -> int:
    """Bytes that a file takes on its file system."""
    return path.stat().st_blocks * 512


def refuses(number: int, call: Callable[..., object], *args: object) -> None:
    """The call fails with this errno."""
    with pytest.raises(OSError) as caught:  # the number says which
        call(*args)
    found = caught.value.errno
    assert found == number, f"{errno.errorcode[found]} instead of {errno.errorcode[number]}"


def aligned(size: int) -> mmap.mmap:
    """Memory that O_DIRECT takes."""
    return mmap.mmap(-1, -(-size // 4096) * 4096)


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that are quick to make and differ from megabyte to megabyte."""
    block = os.urandom(1 << 16)
    parts = [block[seed + n & 0xFFFF :] + block[: seed + n & 0xFFFF] for n in range(size >> 16)]
    return b"".join(parts) + block[: size & 0xFFFF]
