"""How the event loop has blocking calls made by threads."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Final, Generic, TypeVar

import trio

from iifuse.loop.calls import AbandonableJob, FinishedCalls, Job, ShortCalls
from iifuse.loop.threadpool import NO_THREAD, ThreadPool
from iifuse.loop.timelimits import TimeLimits

T = TypeVar("T")

STAND_STILL_S: Final = 0.000_5
"""How long the event loop waits for a thread's short calls, in seconds, at the most."""

SKIPPED_WAITS: Final = 16
"""After a wait for short calls that were not short, the loop skips this many such waits."""


class Loop:
    """The threads and time limits of one event loop. It is made once and passed on.

    Each kind of call has threads of its own. So calls that wait for each other never wait for each
    other's threads (threadpool).
    """

    def __init__(self) -> None:
        self.limits = TimeLimits()
        self.finished = FinishedCalls()
        self._programs = ThreadPool(4)
        """Threads for calls that a program waits for."""
        self._verbs, self._shadows = ThreadPool(2), ThreadPool(2)
        """Threads for verbs, and for calls with a limit, when trio can start no thread for them."""
        self._waiting_for_trio = 0
        """Number of callers that wait for one of trio's threads."""
        self._waits_to_skip = 0

    def __del__(self) -> None:
        for pool in (self._programs, self._verbs, self._shadows):
            pool.end()

    def start_reserve_threads(self) -> None:
        """Start the threads that serve when no new thread can be started. Raises OutOfResources."""
        for pool in (self._programs, self._verbs, self._shadows):
            pool.fill()

    def has_waiters(self) -> bool:
        """Does anybody wait for a thread? Then a task that polls would slow that thread down."""
        return self.finished.under_way > 0 or self._waiting_for_trio > 0

    def watchable_calls(self) -> FinishedCalls | None:
        """The calls under way, if they can be watched without trio.

        None if there is no call, or if one of trio's own threads is at work as well.
        """
        return self.finished if self.finished.under_way and not self._waiting_for_trio else None

    async def blocking(
        self, call: Callable[[], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """Run `call` in a thread and wait until it is done. It is never abandoned half-way."""
        self._waiting_for_trio += 1
        try:
            return await self.blocking_low_priority(call, limiter)
        finally:
            self._waiting_for_trio -= 1

    @asynccontextmanager
    async def closing_in_thread(self, undo: ExitStack) -> AsyncIterator[None]:
        """Like `with undo`, but its calls are made in a thread, because a close may hang."""
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self.blocking(undo.close)

    async def blocking_low_priority(
        self, call: Callable[[], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """Like `blocking`, for calls that no program waits for: tasks that poll go on polling.

        A caller whose calls go on for hours brings a `limiter` of its own. Otherwise it would take
        the threads that verbs need.
        """
        tracked = TrackedCall(call)
        try:
            return await trio.to_thread.run_sync(tracked, abandon_on_cancel=False, limiter=limiter)
        except NO_THREAD:
            if tracked.has_begun:
                raise
        return await self._in_pool(self._verbs, call)

    async def blocking_for_program(
        self, call: Callable[[], T], short: ShortCalls | None = None
    ) -> T:
        """Like `blocking`, in a third of the time, for calls that a program's request waits for.

        `short`: the short calls at the beginning of `call`, if there are any.

        There is a thread for each call under way, unless no more threads can be started. The kernel
        bounds their number, because it bounds the number of requests under way.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._in_pool(self._programs, call, short)

    async def blocking_abandonable(
        self, call: "TrackedCall[T]", limiter: trio.CapacityLimiter
    ) -> T:
        """Like `blocking`, but a caller that is cancelled does not wait for the call to end.

        Raises OutOfResources.
        """
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        except NO_THREAD:
            if call.has_begun:
                raise
        call.wants_thread = True
        job = AbandonableJob(call, self.finished)
        self._shadows.hand(job)
        await job.ended.wait()
        return job.outcome()

    async def _in_pool(
        self, pool: ThreadPool, call: Callable[[], T], short: ShortCalls | None = None
    ) -> T:
        finished = self.finished
        finished.under_way += 1
        try:
            job = Job(call, finished, short)
            pool.hand(job)
            is_only_one = finished.under_way == 1 and not self._waiting_for_trio
            if not (is_only_one and finished.wait_briefly(job)):
                if short is not None:
                    self._wait_for_short_calls(short)
                await finished.wait()
            return job.outcome()
        finally:
            finished.under_way -= 1

    def _wait_for_short_calls(self, short: ShortCalls) -> None:
        if self._waits_to_skip:
            self._waits_to_skip -= 1
        elif not short.wait(STAND_STILL_S):
            self._waits_to_skip = SKIPPED_WAITS


class TrackedCall(Generic[T]):
    """A call that knows whether it has begun. If it has not, a failure is the lack of a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self.has_begun = False
        self.wants_thread = False
        """trio could start no thread for it."""

    def __call__(self) -> T:
        """Make the call. This runs in the thread."""
        self.has_begun = True
        return self._call()
