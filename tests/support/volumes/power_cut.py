"""A file system on a loop device, and what would be there of it after a power cut now."""

import contextlib
import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filesystems import MOUNT, SIZES, make

_LATE = {"ext4": ("-o", "commit=600"), "xfs": ()}
"""The file system writes nothing by itself while a test runs."""


class Disk:
    """`root`: where its file system is mounted."""

    def __init__(self, kind: str, image: Path, attach: Callable[..., str], mounted) -> None:
        self._kind, self._image, self._attach, self._mounted = kind, image, attach, mounted
        self._cuts = itertools.count()
        image.touch()
        with image.open("r+b") as file:
            file.truncate(SIZES[kind])
        device = attach(image)
        make(kind, device)
        self.root = mounted(device, image.name, *_LATE[kind])

    @contextlib.contextmanager
    def cut(self) -> Iterator[Path]:
        """The file system as it comes back when the power fails now."""
        copy = self._image.with_name(f"{self._image.name}.cut{next(self._cuts)}")
        subprocess.run(["cp", "--sparse=always", self._image, copy], check=True)
        device = self._attach(copy)
        root = self._mounted(device, copy.name, *MOUNT[self._kind])
        try:
            yield root
        finally:
            subprocess.run(["umount", root], check=True)
            subprocess.run(["losetup", "-d", device], check=True)
            copy.unlink()


@pytest.fixture(params=["ext4", "xfs"])
def power_disk(request, place: Path, attach, mounted) -> Disk:
    """A disk of each kind of file system."""
    return Disk(request.param, place / "disk", attach, mounted)
