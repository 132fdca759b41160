"""The one way from the event loop to blocking calls."""

import errno
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import trio

T = TypeVar("T")


CALLS_MAX: Final = 8
"""Threads that one volume may keep: calls that hang must leave threads for everybody else."""


class _Running:
    """How many callers wait for a thread."""

    count = 0


def are_running() -> bool:
    """Does anybody wait for a thread? Whoever polls then would keep the interpreter from it."""
    return _Running.count > 0


async def blocking(call: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """Run `call` in a worker thread and wait for it; it is never abandoned half-way."""
    _Running.count += 1
    try:
        return await trio.to_thread.run_sync(call, abandon_on_cancel=False, limiter=limiter)
    finally:
        _Running.count -= 1


class Stuck:
    """Calls on one volume that were given up because they took too long, and still run.

    What such a call does when it ends at last, it does behind everybody's back: until then nothing
    may rely on what it reads or writes. True while there is one.
    """

    def __init__(self) -> None:
        self._running: set[object] = set()
        self._given_up: set[object] = set()
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(CALLS_MAX)

    def __bool__(self) -> bool:
        return bool(self._running & self._given_up)

    async def blocking(self, call: Callable[[], T], limit_s: float, path: str) -> T:
        """Run `call` in a worker thread, for `limit_s` seconds at most; 0: for as long as it takes.

        Raises OSError (ETIMEDOUT), which names `path`, when it had to be given up.
        """
        if not limit_s:
            return await blocking(call, self._limiter)
        token = object()
        with trio.move_on_after(limit_s):
            tracked = self._tracked(token, call)
            return await trio.to_thread.run_sync(
                tracked, abandon_on_cancel=True, limiter=self._limiter
            )
        with self._lock:  # one that has not begun yet never does
            self._given_up.add(token)
        raise OSError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s", path)

    def _tracked(self, token: object, call: Callable[[], T]) -> Callable[[], T]:
        def tracked() -> T:
            with self._lock:
                if token in self._given_up:
                    raise OSError(errno.ETIMEDOUT, "given up before it began")
                self._running.add(token)
            try:
                return call()
            finally:
                self._running.discard(token)
                self._given_up.discard(token)

        return tracked
