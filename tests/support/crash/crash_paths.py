"""Open files and names on the disk in memory, as Python's own modules show them."""

import os
from typing import Any


class FakeFile:
    """What os.fdopen answers."""

    def __init__(self, system: Any, fd: int) -> None:
        self.system, self.fd = system, fd

    def __enter__(self) -> "FakeFile":
        return self

    def __exit__(self, *what: object) -> None:
        self.system.close(self.fd)

    def write(self, data: Any) -> int:
        handle = self.system.disk.handles[self.fd]
        self.system.pwrite(self.fd, data, handle[1])
        handle[1] += len(data)
        return len(data)

    def read(self, length: int) -> bytes:
        return self.system.pread(self.fd, length, 0)

    def flush(self) -> None:
        pass


class FakePath:
    """os.path of the files on a disk; every directory exists."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.dirname, self.join, self.basename = os.path.dirname, os.path.join, os.path.basename

    def exists(self, path: str) -> bool:
        return path in self.system.disk.names

    isfile = exists

    def isdir(self, path: str) -> bool:
        return path not in self.system.disk.names

    def islink(self, path: str) -> bool:
        return False

    def realpath(self, path: str) -> str:
        return path

    def getsize(self, path: str) -> int:
        return len(self.system.disk.content(path))
