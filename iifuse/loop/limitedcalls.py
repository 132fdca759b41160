"""Calls on a volume that have a time limit, and what is known of those that were given up."""

import errno
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from iifuse.loop.loop import Loop, TrackedCall
from iifuse.loop.threadpool import OutOfResources

T = TypeVar("T")

CALLS_MAX: Final = 8
"""The most threads that one volume may occupy. Calls that hang must leave threads for others."""


class LimitedCalls:
    """Makes calls on one volume with a time limit, and knows which of them were given up.

    A call that was given up still runs in its thread. It may read or write at any moment, so
    nothing may rely on the volume until that call has ended.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._running: set[object] = set()
        self._given_up: set[object] = set()
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(CALLS_MAX)

    @property
    def hang(self) -> bool:
        """Does a call still run that was given up?"""
        return bool(self._given_up) and bool(self._running & self._given_up)

    async def blocking(self, call: Callable[[], T], limit_s: float, path: str) -> T:
        """Run `call` in a thread and wait for it for `limit_s` seconds at most; 0 means no limit.

        A pause of the service does not count (timelimits).

        Raises OSError (ETIMEDOUT) with `path` when the call was given up, and OutOfResources when
        it could not begin because there was no thread.
        """
        if not limit_s:
            return await self._loop.blocking(call, self._limiter)
        token = object()
        tracked = TrackedCall(self._tracked(token, call))
        with self._loop.limits.move_on_after(limit_s):
            return await self._loop.blocking_abandonable(tracked, self._limiter)
        with self._lock:  # a call that has not begun yet will not begin any more
            self._given_up.add(token)
            if tracked.wants_thread and token not in self._running:
                raise OutOfResources(path)
        raise OSError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s", path)

    def _tracked(self, token: object, call: Callable[[], T]) -> Callable[[], T]:
        def tracked() -> T:
            with self._lock:
                if token in self._given_up:
                    self._given_up.discard(token)
                    raise OSError(errno.ETIMEDOUT, "given up before it began")
                self._running.add(token)
            try:
                return call()
            finally:
                self._running.discard(token)
                self._given_up.discard(token)

        return tracked
