"""The real program with volumes that fail when the test says so (fault_shim.c)."""

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import Service

SHIM = Path(__file__).with_name("fault_shim.c")


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled shim."""
    library = tmp_path_factory.mktemp("shim") / "fault_shim.so"
    command = ["gcc", "-shared", "-fPIC", "-O1", "-Wall", "-o", str(library), str(SHIM), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Faulty:
    """One service, and the means to make its volumes fail."""

    def __init__(self, service: Service, shim: Path, place: Path) -> None:
        self.service, self.rule = service, place / "faults"
        self.env = {"LD_PRELOAD": str(shim), "FAULTS": str(self.rule)}

    def start(self) -> "Faulty":
        self.service.start(env=self.env)
        return self

    def kill_and_start(self) -> None:
        self.service.kill()
        subprocess.run(["umount", "-l", str(self.service.mountpoint)], check=False)
        self.start()

    def fail(self, operation: str, path: Path | str, code: int = errno.EIO) -> None:
        """From now on; 0: short."""
        beside = self.rule.with_suffix(".new")
        beside.write_text(f"{operation} {code} {path}\n")
        beside.rename(self.rule)

    def repair(self) -> None:
        self.rule.unlink(missing_ok=True)

    @contextlib.contextmanager
    def failing(self, operation: str, path: Path | str, code: int = errno.EIO) -> Iterator[None]:
        self.fail(operation, path, code)
        try:
            yield
        finally:
            self.repair()

    def json(self, shadow: Path) -> dict[str, object]:
        """What `iiadm -i --json` says of a set."""
        done = self.service.run("iiadm", "-i", "--json", shadow)
        assert done.returncode == 0, done.stderr
        (found,) = json.loads(done.stdout)["sets"]
        return found


@pytest.fixture
def faulty(shim: Path, place: Path) -> Iterator[Faulty]:
    """A running service whose volumes can fail."""
    service = Service(place, "app", ("stop_wait=2",))
    made = Faulty(service, shim, place)
    try:
        yield made.start()
    finally:
        made.repair()
        service.clean_up()


def outcome(call: Callable[..., object], *arguments: object) -> str:
    """'ok', or the name of the errno with which a call fails."""
    try:
        call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "ok"


def sync(path: Path) -> None:
    """What fsync(1) would do."""
    fd = os.open(path, os.O_RDWR)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
