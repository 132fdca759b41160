"""Who takes part, and what they have in their hands from one step to the next."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from . import chunks, janitor
from .chunks import Image
from .hosts import Host, Program
from .places import Site, Volume
from .stage import Stage, Untrue

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GROUP: Final = "Backup1"
LOOP_OPTIONS: Final = ("--direct-io=on ", "")
"""The better one first; not every kernel has both."""


class Watch:
    """The janitor's end of the pipe: it cleans up when we are gone, and thaws if we forget."""

    def __init__(self, root: str) -> None:
        command = [sys.executable, janitor.__file__, root]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(  # noqa: S603  # our own file
            command, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )

    def tell(self, line: str) -> None:
        """`frozen PATH` or `thawed PATH`."""
        pipe = self._process.stdin
        if pipe is not None and not pipe.closed:
            pipe.write(f"{line}\n")
            pipe.flush()

    def begin(self) -> None:
        """Have everything cleaned up from now on, even while we wait for a service that hangs."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def clean_up(self) -> list[str]:
        """Wait until everything is cleaned up, undisturbed by signals; what is left."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.begin()
        assert self._process.stdout is not None
        left = self._process.stdout.read().splitlines()
        self._process.wait()
        return left


@dataclass
class Rest:
    """The instant of a point in time: all masters, and the entries in the books."""

    images: dict[Volume, Image]
    entries: int


@dataclass
class Play:
    """The stage, the hosts, and what is known so far."""

    stage: Stage
    site: Site
    watch: Watch
    app: Host
    bak: Host
    services: list[Program] = field(default_factory=list)
    books: Program | None = None
    """The program that writes to the database."""
    raw: Program | None = None
    """The program that writes to vol02 to vol05."""
    device: str = ""
    """The loop device below $DATA."""

    def programs(self) -> tuple[Program, Program]:
        """Books and raw, which must be running."""
        assert self.books is not None
        assert self.raw is not None
        self.books.check()
        self.raw.check()
        return self.books, self.raw

    def same(self, of: dict[Volume, Image], path: str, volume: Volume) -> None:
        """Raise Untrue unless a file holds what the master held at an instant."""
        wrong = chunks.changed(of[volume], chunks.image(path))
        if wrong.any():
            first = int(wrong.argmax())
            text = f"{int(wrong.sum())} of {len(wrong)} chunks differ, the first is {first}"
            raise Untrue(f"{path} is what the master was", text)

    @contextmanager
    def frozen(self, mountpoint: str) -> Iterator[None]:
        """Freeze a file system; whatever happens, it is thawed."""
        path = self.site.path(mountpoint)
        self.watch.tell(f"frozen {path}")
        thawed = False
        try:
            self.app.type(f"fsfreeze --freeze {mountpoint}")
            yield
            self.app.type(f"fsfreeze --unfreeze {mountpoint}")
            thawed = True
        finally:
            if not thawed:
                janitor.thaw(path)
            self.watch.tell(f"thawed {path}")


def attach(host: Host, file: str, mountpoint: str) -> str:
    """Mount the file system in a file of the mount; its loop device."""
    for option in LOOP_OPTIONS:
        try:
            device = host.type(f"losetup --find --show {option}{file}", show=True)
        except Untrue:
            if option == LOOP_OPTIONS[-1]:
                raise
            host.stage.remark("no direct I/O for loop devices here, so without")
        else:
            host.type(f"mount {device} {mountpoint}")
            return device
    raise AssertionError


def detach(host: Host, device: str, mountpoint: str) -> None:
    """Unmount, and let go of the file."""
    host.type(f"umount {mountpoint}")
    host.type(f"losetup --detach {device}")


def is_stopped(program: Program) -> bool:
    """Has SIGSTOP arrived? Then no write is under way."""
    stat = Path(f"/proc/{program.process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "T"
