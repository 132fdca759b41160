"""File systems on loop devices: made, loaded, frozen, checked."""

import hashlib
import os
import random
import subprocess
import threading
from pathlib import Path

MIB = 1 << 20
SIZES = {"ext4": 48 * MIB, "xfs": 320 * MIB}
"""What a volume of each kind needs; mkfs.xfs takes no less."""

_MAKE = {"ext4": ("mkfs.ext4", "-q", "-E", "nodiscard"), "xfs": ("mkfs.xfs", "-q", "-K")}
_CHECK = {"ext4": ("e2fsck", "-fn"), "xfs": ("xfs_repair", "-n")}
MOUNT = {"ext4": (), "xfs": ("-o", "nouuid")}
"""Words for mount(8): a copy of an XFS has its original's UUID."""


def make(kind: str, device: str) -> None:
    """Make a file system."""
    subprocess.run([*_MAKE[kind], device], check=True)


def check(kind: str, device: str) -> None:
    """The file system is without a fault, or AssertionError with what the check says."""
    done = subprocess.run([*_CHECK[kind], device], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def tree(directory: Path) -> dict[str, str]:
    """Name and digest of every file."""
    return {
        str(path.relative_to(directory)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in directory.rglob("*")
        if path.is_file()
    }


class Load(threading.Thread):
    """Makes, renames, overwrites, syncs and removes files until told to stop.

    `synced`: name and content of files that were fsynced, and their directory after them; they
    are never touched again.
    """

    def __init__(self, directory: Path, seed: int = 0) -> None:
        super().__init__()
        self.directory = directory / f"load{seed}"
        self.directory.mkdir(exist_ok=True)
        self.dice = random.Random(seed)
        self.synced: dict[str, bytes] = {}
        self.failure: Exception | None = None
        self.turns = 0
        self._enough = threading.Event()
        self.start()

    def run(self) -> None:
        try:
            while not self._enough.is_set():
                self._turn()
                self.turns += 1
        except Exception as error:
            self.failure = error

    def _turn(self) -> None:
        path = self.directory / f"f{self.turns % 12}"
        data = self.dice.randbytes(self.dice.choice([10, 4096, 50_000]))
        path.write_bytes(data)
        if self.dice.random() < 0.3:
            os.rename(path, path.with_suffix(".renamed"))
        if self.turns % 10 == 0:
            self._keep(f"kept{self.turns}", data[:5000])
        if self.turns % 25 == 0:
            for old in self.directory.glob("*.renamed"):
                old.unlink()

    def _keep(self, name: str, data: bytes) -> None:
        with open(self.directory / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        directory = os.open(self.directory, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        self.synced[name] = data

    def finish(self) -> None:
        """Stop; raise what went wrong."""
        self._enough.set()
        self.join(60)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure


def freeze(directory: Path) -> None:
    subprocess.run(["fsfreeze", "-f", str(directory)], check=True)


def thaw(directory: Path) -> None:
    subprocess.run(["fsfreeze", "-u", str(directory)], check=True)
