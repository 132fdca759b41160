"""Fixtures for tests against the real program."""

import contextlib
import faulthandler
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hang import HANG_SECONDS, PREFIX, WATCHDOG, unmount
from harness import Service
from hypothesis import HealthCheck, settings
from samples import SEED, WHOLE, some

from iifuse.loop.loop import Loop

# A shell has SIGINT ignored in its background jobs, and every program that is started inherits it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A program that is started a thousand times is compiled once.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says only what else the machine does.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

BEGAN = time.monotonic()
LONGEST = {"crash", "model", "fuzz", "clients", "test_hundred_kills.py"}
"""Where single tests take a minute."""
LONG_SECONDS = float(os.environ.get("IIFUSE_CRASH_SECONDS", "0"))
"""How long all tests marked `long` may take together; 0: they are left out."""
END_SECONDS = 900.0
"""After so long nothing in a test will ever come back."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests unless they are asked for, and cases that are not drawn.

    Where FUSE is not to be had, say so once for every test that needs it.
    """
    _draw(config, items)
    if not LONG_SECONDS:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    if hasattr(config, "workerinput"):  # the longest first, so that all workers end together
        items.sort(key=lambda item: not LONGEST & set(Path(item.fspath).parts))
    if os.path.exists("/dev/fuse") and os.geteuid() == 0:
        return
    for item in items:
        if {"fuse", "clients", "model"} & set(Path(item.fspath).parts):
            item.add_marker(pytest.mark.skip(reason="needs /dev/fuse and root"))


def _draw(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of a test marked `sampled(count)` so many cases stay (all in `make test-long`)."""
    cases: dict[tuple[str, int], list[pytest.Item]] = {}
    for item in items:
        marker = item.get_closest_marker("sampled")
        if marker is not None and marker.args:
            name = item.nodeid.partition("[")[0]
            cases.setdefault((name, marker.args[0]), []).append(item)
    left = {
        item
        for (name, count), matrix in cases.items()
        for item in set(matrix) - set(some(matrix, count, name))
    }
    items[:] = [item for item in items if item not in left]
    config.hook.pytest_deselected(items=list(left))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Whoever has seen a sampled test fail wants to see it again."""
    terminalreporter.write_line(f"samples were drawn with IIFUSE_SEED={SEED}")


@pytest.fixture
def loop() -> Loop:
    """What an event loop waits with."""
    return Loop()


@pytest.fixture
def long_seconds(request: pytest.FixtureRequest) -> float:
    """This test's share: the time that is left, over the long tests that are left."""
    items = [item for item in request.session.items if item.get_closest_marker("long")]
    left = len(items) - items.index(request.node)
    return max(1.0, (BEGAN + LONG_SECONDS - time.monotonic()) / left)


@pytest.fixture
def hang_seconds() -> float:
    """After so long a test counts as hanging; a module with longer tests says so itself."""
    return HANG_SECONDS


@pytest.fixture(autouse=True)
def end() -> Iterator[None]:
    """A test that hangs beyond all else ends its process, with the stacks; the next one goes on."""
    if WHOLE or LONG_SECONDS:
        yield
        return
    faulthandler.dump_traceback_later(END_SECONDS, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def watchdog(hang_seconds: float) -> Iterator[None]:
    """Whatever hangs, the suite goes on."""
    WATCHDOG.watch(hang_seconds)
    yield
    WATCHDOG.rest()


@pytest.fixture
def place(watchdog: None) -> Iterator[Path]:
    """A directory in memory for volumes and mount points."""
    with _directory("/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as path:
        yield path


@pytest.fixture
def disk_place(watchdog: None) -> Iterator[Path]:
    """The same on a real file system (leases, holes, fallocate, page cache)."""
    with _directory("/var/tmp") as path:
        yield path


@contextlib.contextmanager
def _directory(base: str | None) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
    try:
        yield path
    finally:
        unmount(f"{path}/")
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def new_service(place: Path) -> Iterator[Callable[..., Service]]:
    """Make and start services; all are gone at the end."""
    with contextlib.ExitStack() as stack:

        def make(name: str = "app", *options: str, root: Path | None = None) -> Service:
            service = Service(root or place, name, options or ("stop_wait=2",))
            stack.callback(service.clean_up)
            return service.start()

        yield make


@pytest.fixture
def service(new_service: Callable[..., Service]) -> Service:
    """One running service."""
    return new_service()


@pytest.fixture
def volume(place: Path) -> Callable[..., Path]:
    """Make a volume filled with random bytes."""

    def make(name: str, size: int = 40 * 32 * 1024 + 1000) -> Path:
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(size))
        return path

    return make
