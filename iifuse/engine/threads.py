"""The one way from the event loop to blocking calls."""

from collections.abc import Callable
from typing import TypeVar

import trio

T = TypeVar("T")


async def blocking(call: Callable[[], T]) -> T:
    """Run `call` in a worker thread and wait for it; it is never abandoned half-way."""
    return await trio.to_thread.run_sync(call, abandon_on_cancel=False)
