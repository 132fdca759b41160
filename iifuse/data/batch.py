"""Group commit: the first task that waits does the work of all tasks that wait at that moment."""

from collections.abc import Awaitable, Callable
from inspect import ismethod
from typing import Final, Generic, TypeVar
from weakref import WeakMethod

import trio

T = TypeVar("T")

Work = Callable[[list[T]], Awaitable[list[Exception | None]]]
"""Does the work for the items of a batch. It returns an error or None for each item."""

BATCH_MAX: Final = 64
"""The most items of a batch. To plan for more would stop the event loop for too long."""


class _Entry(Generic[T]):
    __slots__ = ("done", "error", "item", "task")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.error: Exception | None = None
        self.task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Return when the item is done, or when this task has to lead the next batch."""
        self.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(_never)

    def wake(self) -> None:
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


def _never(_: object) -> trio.lowlevel.Abort:
    return trio.lowlevel.Abort.FAILED


class Batcher(Generic[T]):
    """Runs `work` on batches of items, one batch at a time, in order of arrival.

    Items that come while a batch runs make up the next batch, so they share its syncs. A task that
    finds no batch under way goes on without a trip to the scheduler. Tasks that wait are woken
    together when their batch is done.
    """

    def __init__(self, work: Work[T]) -> None:
        """`work`: a function or a method. A method is held weakly.

        Its object usually holds this batcher, so the two would otherwise keep each other in memory.
        """
        self._work: Callable[[], Work[T] | None]
        self._work = WeakMethod(work) if ismethod(work) else lambda: work
        self.is_led = False
        """Is a batch under way, or about to be?"""
        self._waiting: list[_Entry[T]] = []

    async def submit(self, item: T) -> None:
        """Return when the item's batch is done. Raises the error of the item."""
        entry = _Entry(item)
        self._waiting.append(entry)
        with trio.CancelScope(shield=True):  # a step that has begun is always finished (F26)
            if self.is_led:
                await entry.wait()
            if not entry.done:
                await self._lead()
        if entry.error is not None:
            raise entry.error

    async def _lead(self) -> None:
        self.is_led = True
        batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        try:
            work = self._work()
            assert work is not None, "the object is in use while somebody submits items"
            results = await work([entry.item for entry in batch])
        except Exception as error:  # noqa: BLE001 - every task of the batch gets the error
            results = [error] * len(batch)
        for entry, result in zip(batch, results, strict=True):
            entry.done, entry.error = True, result
        if self._pass_on():  # let the next batch begin before the writers of this one go on
            await trio.lowlevel.checkpoint()
        for entry in batch:
            entry.wake()

    def _pass_on(self) -> bool:
        """Let the first task that came meanwhile lead the next batch. False: none has come."""
        self.is_led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].wake()
        return self.is_led
