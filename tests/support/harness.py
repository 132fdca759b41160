"""The real program in a subprocess, on volumes of its own, and nothing left behind."""

import contextlib
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import advice
import loaded
from hang import PATIENCE_SECONDS, WATCHDOG, abort, unmount
from loaded import BIN, LOADED, Child

from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus, Target

CHUNK = 32 * 1024


class Service:
    """One `iifuse` with state, socket and mount point below `root/name`."""

    def __init__(self, root: Path, name: str = "app", options: tuple[str, ...] = ()) -> None:
        self.home = root / name
        self.mountpoint = self.home / "mnt"
        self.mountpoint.mkdir(parents=True)
        self.socket = self.home / "s.sock"
        self.state = self.home / "state"
        self.log = self.home / "log"
        self.options = options
        self.client = Client(str(self.socket))
        self.process: subprocess.Popen[bytes] | Child | None = None

    # -- life -------------------------------------------------------------------------------

    def command(self) -> list[str]:
        options = [w for o in self.options for w in ("-o", o)]
        paths = ["--state", str(self.state), "--socket", str(self.socket)]
        return [str(BIN / "iifuse"), *paths, *options, str(self.mountpoint)]

    def start(self, *, env: dict[str, str] | None = None) -> "Service":
        """Start and wait for READY=1, as systemd does."""
        WATCHDOG.feed()
        notify = self.home / "notify"
        notify.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            ready.bind(str(notify))
            ready.settimeout(0.2)
            self.process = self._begin({"NOTIFY_SOCKET": str(notify), **(env or {})})
            for _ in range(int(PATIENCE_SECONDS / 0.2)):
                with contextlib.suppress(TimeoutError):
                    if b"READY=1" in ready.recv(4096):
                        return self
                if self.process.poll() is not None:
                    break
        raise AssertionError(f"the service did not start: {self.log.read_text()}")

    def _begin(self, more: dict[str, str]) -> subprocess.Popen[bytes] | Child:
        words, env = self.command(), {**os.environ, **more}
        with self.log.open("ab") as log:
            if loaded.may_fork(words, env):
                return LOADED.start(words, env, (0, 1, log.fileno()))
            return subprocess.Popen(words, stderr=log, env=env)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def said(self) -> str:
        """The log of a service that runs, with all that it had to say before this call.

        It writes it when it has time; the line that a closed terminal makes comes after all else.
        """
        mark = "the terminal was closed"
        lines = self.log.read_text().count(mark)
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.log.read_text().count(mark) == lines:
            assert time.monotonic() < deadline, "nothing is written into the log"
            time.sleep(0.005)
        return self.log.read_text()

    def tell_to_stop(self) -> None:
        """SIGTERM, and no waiting."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM; the exit code."""
        self.tell_to_stop()
        return self.wait_for_end(timeout)

    def part(self) -> subprocess.Popen[bytes] | Child:
        """The process that ends by itself; what is started from now on is another one."""
        process, self.process = self.process, None
        assert process is not None
        return process

    def kill(self) -> None:
        """SIGKILL; the mount stays behind, dead."""
        assert self.process is not None
        self.process.kill()
        self.wait_for_end(30)

    def wait_for_end(self, timeout: float) -> int:
        assert self.process is not None
        code = self.process.wait(timeout)
        self.process = None
        return code

    def restart(self) -> "Service":
        self.stop()
        return self.start()

    def clean_up(self) -> None:
        """Whatever happened: no process, no mount. If a test failed, its log is shown."""
        tell = print if "PYTEST_CURRENT_TEST" in os.environ else lambda _: None
        if self.process is not None:
            tell(f"{self.home.name}: ended with {self.process.poll()} (None: it ran)")
            self.process.kill()
            abort(f"{self.mountpoint}/")  # its own threads may wait for it, beyond the signal
            self.process.wait(30)
        unmount(f"{self.mountpoint}/")
        if self.log.exists():
            tell(f"{self.home.name}: {self.log.read_text(errors='replace')[-3000:]}")

    @contextlib.contextmanager
    def files_end_at(self, size: int) -> Iterator[None]:
        """It can write no regular file behind `size` bytes."""
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        try:
            yield
        finally:
            unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, unlimited)

    # -- files and verbs --------------------------------------------------------------------

    def path(self, volume: Path | str) -> Path:
        """Where the mount shows a volume."""
        return Path(f"{self.mountpoint}{volume}")

    def read(self, volume: Path | str) -> bytes:
        return self.path(volume).read_bytes()

    def write(self, volume: Path | str, offset: int, data: bytes) -> None:
        fd = os.open(self.path(volume), os.O_WRONLY)
        try:
            os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    def enable(
        self,
        kind: str,
        master: Path,
        shadow: Path,
        bitmap: Path | None = None,
        group: str | None = None,
    ) -> SetStatus:
        bitmap = bitmap or shadow.with_name(shadow.name + ".bmp")
        request = protocol.Enable(kind, str(master), str(shadow), str(bitmap), group)
        self.client.notes(request)
        return self.status(shadow)

    def flip(self, direction: str, *shadows: Path | str, full: bool = False) -> list[SetStatus]:
        target = Target(tuple(map(str, shadows)))
        request = protocol.Update(direction, full, target, sure=True)
        return self.client.call(request, list[SetStatus])

    def wait(self, *shadows: Path | str) -> None:
        self.client.notes(protocol.Wait(Target(tuple(map(str, shadows))), 60))

    def disable(self, *shadows: Path | str) -> tuple[str, ...]:
        return self.client.notes(protocol.Disable(Target(tuple(map(str, shadows)))))

    def abort(self, *shadows: Path | str) -> None:
        self.client.notes(protocol.Abort(Target(tuple(map(str, shadows)))))

    def leave_restore_aborted(self, shadow: Path | str) -> None:
        """Begin a full restore and abort it; a copy may be quicker than who aborts it."""
        for _ in range(20):
            self.flip("m", shadow, full=True)
            self.abort(shadow)
            if self.status(shadow).progress != "idle":
                return
        raise AssertionError("every copy was quicker than its abort")

    def status(self, shadow: Path | str) -> SetStatus:
        return self.client.status(Target((str(shadow),)))[0]

    def run(self, program: str, *words: object, **options: object) -> subprocess.CompletedProcess:
        """One of the tools as a user runs it: no terminal, text output."""
        command = [str(BIN / program), *map(str, words)]
        env = {**os.environ, "IIFUSE_SOCKET": str(self.socket)}
        if not options and loaded.may_fork(command, env):
            done = loaded.run(command, env, 120)
            advice.check(done.stderr)
            return done
        done = subprocess.run(
            command,
            env=env,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
            timeout=120,
            **options,
        )
        advice.check(done.stderr)
        return done


_BACKING: dict[str, str | None] = {}
"""Loop devices that were made here, and what is under them."""


def _backing(device: str) -> str | None:
    with contextlib.suppress(OSError):  # the device is free
        text = Path("/sys/block", Path(device).name, "loop/backing_file").read_text()
        return text.strip().removesuffix(" (deleted)")
    return None


def is_attached(device: str) -> bool:
    """Is it still what `losetup` made? A device that was let go is somebody else's soon."""
    return _backing(device) == _BACKING[device] is not None


def losetup(path: Path | str, *options: str) -> str:
    """A loop device over a file. Whoever else on this machine takes the free number, is first."""
    words = ["losetup", "-f", "--show", *options, str(path)]
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            device = done.stdout.strip()
            _BACKING[device] = _backing(device)
            return device
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.05)
