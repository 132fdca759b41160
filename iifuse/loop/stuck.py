"""Calls on a volume that does not answer in time."""

import errno
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import trio

from iifuse.loop.crew import Starved
from iifuse.loop.loop import Begun, Loop

T = TypeVar("T")

CALLS_MAX: Final = 8
"""Threads that one volume may keep: calls that hang must leave threads for everybody else."""


class Stuck:
    """Calls on one volume that were given up because they took too long, and still run.

    What such a call does when it ends at last, it does behind everybody's back: until then nothing
    may rely on what it reads or writes. True while there is one.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._running: set[object] = set()
        self._given_up: set[object] = set()
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(CALLS_MAX)

    def __bool__(self) -> bool:
        return bool(self._given_up) and bool(self._running & self._given_up)

    async def blocking(self, call: Callable[[], T], limit_s: float, path: str) -> T:
        """Run `call` in a thread, for `limit_s` seconds at most; 0: for as long as it takes.

        A pause of the service does not count (clock).

        Raises OSError (ETIMEDOUT), which names `path`, when it had to be given up, and Starved
        when it could not even begin for want of a thread.
        """
        if not limit_s:
            return await self._loop.blocking(call, self._limiter)
        token = object()
        tracked = Begun(self._tracked(token, call))
        with self._loop.clock.move_on_after(limit_s):
            return await self._loop.abandonable(tracked, self._limiter)
        with self._lock:  # one that has not begun yet never does
            self._given_up.add(token)
            if tracked.wants_thread and token not in self._running:
                raise Starved(path)
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
