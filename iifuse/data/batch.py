"""Group commit: whoever comes first does the work of all who wait at that moment."""

from collections.abc import Awaitable, Callable
from inspect import ismethod
from typing import Final, Generic, TypeVar
from weakref import WeakMethod

import trio

T = TypeVar("T")

Work = Callable[[list[T]], Awaitable[list[Exception | None]]]
"""Does what a batch is about; one error or None for each of its items."""

BATCH_MAX: Final = 64
"""The most items of a batch: what more of them need would keep the event loop for too long."""


class _Entry(Generic[T]):
    __slots__ = ("done", "error", "item", "task")

    def __init__(self, item: T) -> None:
        self.item = item
        self.done = False
        self.error: Exception | None = None
        self.task: trio.lowlevel.Task | None = None

    async def wait(self) -> None:
        """Return when it is done or, if it is not, when it is its turn to lead."""
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

    While a batch runs, later items gather and make up the next one, so that they share its syncs.
    Whoever finds nobody at work goes through without a trip to the scheduler. Whoever has waited
    is woken together with all others of the batch.
    """

    def __init__(self, work: Work[T]) -> None:
        """A method is held weakly: its object has the batcher, and the two would never go."""
        self._work: Callable[[], Work[T] | None]
        self._work = WeakMethod(work) if ismethod(work) else lambda: work
        self.is_led = False
        """Is a batch under way, or about to be?"""
        self._waiting: list[_Entry[T]] = []

    async def submit(self, item: T) -> None:
        """Return when the item's batch is done; raise the item's error."""
        entry = _Entry(item)
        self._waiting.append(entry)
        with trio.CancelScope(shield=True):  # a step once begun is finished (F26)
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
            assert work is not None, "whoever submits has the object"
            results = await work([entry.item for entry in batch])
        except Exception as error:  # noqa: BLE001 - every waiter has to learn of it
            results = [error] * len(batch)
        for entry, result in zip(batch, results, strict=True):
            entry.done, entry.error = True, result
        if self._pass_on():  # the next batch is at work before the writers of this one are
            await trio.lowlevel.checkpoint()
        for entry in batch:
            entry.wake()

    def _pass_on(self) -> bool:
        """Let the first of those who came meanwhile lead the next batch. False: nobody came."""
        self.is_led = bool(self._waiting)
        if self._waiting:
            self._waiting[0].wake()
        return self.is_led
