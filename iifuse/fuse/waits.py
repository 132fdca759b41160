"""Lets pyfuse3 wait for requests with loop.waiter.

pyfuse3 has a global `trio` in its module, which its own asyncio mode replaces. This module replaces
it in the same way.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import pyfuse3
import trio

from iifuse.loop.waiter import Waiter


class _Lowlevel:
    """`trio.lowlevel` with the waiter's functions."""

    wait_readable: Callable[[int], Awaitable[None]]

    def __init__(self, waiter: Waiter, greet: Callable[[], bool]) -> None:
        async def first(fd: int) -> None:
            await trio.lowlevel.checkpoint()
            if not greet():
                self.wait_readable = waiter.wait_readable
                await waiter.wait_readable(fd)

        self.notify_closing, self.wait_readable = waiter.notify_closing, first

    def __getattr__(self, name: str) -> Any:
        return getattr(trio.lowlevel, name)


class _Trio:
    """`trio` as pyfuse3 sees it."""

    def __init__(self, waiter: Waiter, greet: Callable[[], bool]) -> None:
        self.lowlevel = _Lowlevel(waiter, greet)
        self.Lock = lambda: waiter.reader_lock  # pyfuse3 makes exactly one lock

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)


def install(waiter: Waiter, greet: Callable[[], bool]) -> None:
    """Let pyfuse3 wait with the waiter. This is called before its main loop begins.

    `greet()`: is the kernel's first request, INIT, still waiting for libfuse? (Connection.greet)
    """
    pyfuse3.trio = _Trio(waiter, greet)  # type: ignore[attr-defined]
