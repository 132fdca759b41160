"""Group commit: whoever comes first does the work of all who wait at that moment."""

from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import trio

T = TypeVar("T")


class _Entry(Generic[T]):
    __slots__ = ("done", "error", "item")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.error: Exception | None = None


class Batcher(Generic[T]):
    """Runs `work` on batches of items, one batch at a time, in order of arrival.

    While a batch runs, later items gather and make up the next one, so that they share its syncs.
    `work` answers with one error or None for each item.
    """

    def __init__(self, work: Callable[[list[T]], Awaitable[list[Exception | None]]]) -> None:
        self._work = work
        self._lock = trio.Lock()
        self._waiting: list[_Entry[T]] = []

    async def submit(self, item: T) -> None:
        """Return when the item's batch is done; raise the item's error."""
        entry = _Entry(item)
        self._waiting.append(entry)
        with trio.CancelScope(shield=True):  # a step once begun is finished (F26)
            async with self._lock:
                if not entry.done:
                    await self._lead()
        if entry.error is not None:
            raise entry.error

    async def _lead(self) -> None:
        batch, self._waiting = self._waiting, []
        try:
            results = await self._work([entry.item for entry in batch])
        except Exception as error:  # noqa: BLE001 - every waiter has to learn of it
            results = [error] * len(batch)
        for entry, result in zip(batch, results, strict=True):
            entry.done, entry.error = True, result
