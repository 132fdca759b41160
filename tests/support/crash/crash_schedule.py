"""Threads that take turns at every call to the disk, in an order that a seed decides.

One thing runs at a time: the event loop, or the one worker that it has just resumed. So a
recording can be repeated exactly, and writers come between any two disk calls of a worker.
"""

import random
import threading
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

_local = threading.local()


class _Job:
    """A call in a worker thread that stops at each `pause`."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call = call
        self.go, self.back = threading.Semaphore(0), threading.Semaphore(0)
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        self.go.acquire()
        _local.job = self
        try:
            self.result = self.call()
        except BaseException as error:
            self.error = error
        self.done = True
        self.back.release()

    def resume(self) -> bool:
        """Let it work up to its next pause; True at its end."""
        self.go.release()
        self.back.acquire()
        return self.done

    def pause(self) -> None:
        self.back.release()
        self.go.acquire()


class _Mode:
    inline = True
    random = random.Random()


def pause() -> None:
    """In a worker: somebody else may go on first."""
    job = getattr(_local, "job", None)
    if job is not None:
        job.pause()


async def run_sync(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Instead of trio.to_thread.run_sync."""
    if _Mode.inline:
        return call(*arguments)
    job = _Job(lambda: call(*arguments))
    slowness = _Mode.random.choice((1, 1, 2, 12))
    with trio.CancelScope(shield=True):
        while not job.resume():
            for _ in range(_Mode.random.randint(1, slowness)):
                await trio.lowlevel.checkpoint()
    if job.error is not None:
        raise job.error
    return job.result


async def in_pool(self: Any, pool: object, call: Callable[[], Any], short: object = None) -> Any:
    """Instead of Loop._in_pool; nobody stands still."""
    return await run_sync(call)


class CooperativeLock:
    """Instead of threading.Lock: who waits lets the others go on."""

    def __init__(self) -> None:
        self._held = False

    def __enter__(self) -> None:
        while self._held:
            assert getattr(_local, "job", None), "the event loop would wait for a thread"
            pause()
        self._held = True

    def __exit__(self, *what: object) -> None:
        self._held = False

    def locked(self) -> bool:
        return self._held


class CooperativeRLock(CooperativeLock):
    """The same instead of threading.RLock: who holds it may take it again."""

    def __init__(self) -> None:
        super().__init__()
        self._owner: object = None
        self._depth = 0

    def __enter__(self) -> None:
        me = getattr(_local, "job", None)
        if not (self._held and self._owner is me):
            super().__enter__()
            self._owner = me
        self._depth += 1

    def __exit__(self, *what: object) -> None:
        self._depth -= 1
        if not self._depth:
            super().__exit__(*what)


def run(main: Callable[[], Any], seed: int, *, interleave: bool = False) -> Any:
    """trio.run, always in the same order for the same seed.

    Time stands still while there is anything to do: limits are counted when nobody else runs.
    """
    with (
        patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch.object(scheduler, "_r", random.Random(seed)),
        _interleaving(interleave, seed),
    ):
        return trio.run(main, clock=MockClock(autojump_threshold=0))


@contextmanager
def _interleaving(on: bool, seed: int):
    _Mode.inline, _Mode.random = not on, random.Random(seed)
    try:
        yield
    finally:
        _Mode.inline = True
