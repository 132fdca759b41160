"""A host: its service, the commands that are typed there, the programs that run there."""

# ruff: noqa: S603, S607  # commands are what this is about; they are all written down here

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus

from .janitor import MARK, SERVICE_MARK
from .places import Site, Volume
from .stage import Stage, Untrue

COMMAND_S_MAX: Final = 120.0
READY_S_MAX: Final = 30.0

PROGRAMS: Final = os.path.dirname(sys.executable)
PATH: Final = f"{PROGRAMS}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


@dataclass
class Program:
    """Something that runs on a host until it is stopped."""

    name: str
    process: subprocess.Popen[bytes]

    def check(self) -> None:
        """Raise Untrue if it has ended."""
        if self.process.poll() is not None:
            raise Untrue(f"{self.name} runs", f"it ended with exit code {self.process.returncode}")


class Host:
    """One of the two. `name` is its prompt and the directory with its service's state."""

    def __init__(self, name: str, mount: str, site: Site, stage: Stage) -> None:
        """`mount`: the variable that names its mount point."""
        self.name, self.mount, self.site, self.stage = name, mount, site, stage
        self.prompt = f"{name}#"
        socket = site.path(f"$D/{name}/socket")
        self._client = Client(socket)
        self._environment = {
            **os.environ,
            **site.variables,
            "PATH": PATH,
            "IIFUSE_SOCKET": socket,
            "LC_ALL": "C.UTF-8",
            MARK: site.root,
        }

    # -- commands ---------------------------------------------------------------------------

    def type(self, command: str, *, show: bool = False) -> str:
        """Type a command and wait for it; what it prints. Raises Untrue when it fails."""
        with self.stage.command(self.prompt, command):
            done = self._run(command)
        if done.returncode:
            said = (done.stderr or done.stdout).strip()
            raise Untrue(f"'{command}' works", f"exit code {done.returncode}; {said}")
        if show:
            self.stage.output(done.stdout + done.stderr)
        return done.stdout.strip()

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                ["bash", "-c", command],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=COMMAND_S_MAX,
            )
        except subprocess.TimeoutExpired as error:
            raise Untrue(f"'{command}' ends", f"not within {COMMAND_S_MAX:g} s") from error

    def start(self, command: str, name: str, *, service: bool = False) -> Program:
        """Start something that goes on. Ctrl-C does not reach it; the janitor ends it."""
        with self.stage.command(self.prompt, f"{command} &"):
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                env={**self._environment, SERVICE_MARK: "1" if service else ""},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
            if service:
                self._wait_ready(process)
        return Program(name, process)

    def start_service(self) -> Program:
        """Mount."""
        command = (
            f"iifuse --state $D/{self.name}/state --socket $IIFUSE_SOCKET ${self.mount} "
            f"2>$D/{self.name}/log"
        )
        return self.start(command, f"the service of {self.name}", service=True)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        def answers() -> bool:
            if process.poll() is not None:
                raise Untrue("the service starts", self.log())
            try:
                self._client.call(protocol.Hello(), protocol.ServiceInfo)
            except errors.ServiceError:
                return False
            return True

        wait_until(answers, "the service answers", READY_S_MAX)

    def stop(self, program: Program) -> int:
        """SIGTERM, and wait; the exit code."""
        program.check()
        with self.stage.command(self.prompt, f"kill {program.process.pid}   # {program.name}"):
            program.process.send_signal(signal.SIGTERM)
            return program.process.wait(COMMAND_S_MAX)

    def log(self) -> str:
        """What the service has to say."""
        with open(self.site.path(f"$D/{self.name}/log")) as file:
            return file.read().strip()

    # -- what the service knows -------------------------------------------------------------

    def status(self, volume: Volume) -> SetStatus:
        """The set of a volume; all of it is in `iiadm -i --json` too."""
        target = protocol.Target((self.site.shadow(volume),))
        return self._client.status(target)[0]

    def has_on_mount(self, raw: str) -> bool:
        """Is there a file for a raw volume?"""
        return os.path.exists(self.site.view(self.mount, raw))


def wait_until(holds: Callable[[], bool], what: str, seconds: float) -> None:
    """Look again and again. Raises Untrue at the bound."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise Untrue(what, f"not within {seconds:g} s")
        time.sleep(0.02)
