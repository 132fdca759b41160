"""The ways from the event loop to calls that block, and what it has to wait with."""

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Final, Generic, TypeVar

import trio

from iifuse.loop.clock import Clock
from iifuse.loop.crew import NO_THREAD, Crew
from iifuse.loop.returned import Job, LooseJob, Returned, ShortCalls

T = TypeVar("T")

STAND_STILL_S: Final = 0.000_5
"""How long the event loop stands still for a thread's short calls, in seconds, at the most."""

IN_VAIN: Final = 16
"""So often it does not after it did in vain: they were not short."""


class Loop:
    """What one event loop has to wait with. Made once, by whoever runs it, and passed on.

    Each kind of call has threads of its own, so that those which wait for one another never wait
    for one another's threads (crew).
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.returned = Returned()
        self._programs = Crew(4)
        """For what programs wait for."""
        self._verbs, self._shadows = Crew(2), Crew(2)
        """For verbs and for calls on slow shadows, when trio can start no thread for them."""
        self._of_trio = 0
        """Callers that wait for one of trio's threads."""
        self._left_out = 0

    def __del__(self) -> None:
        for crew in (self._programs, self._verbs, self._shadows):
            crew.end()

    def keep_in_reserve(self) -> None:
        """Start the threads that are there when none can be started. Raises Starved."""
        for crew in (self._programs, self._verbs, self._shadows):
            crew.fill()

    def are_running(self) -> bool:
        """Does anybody wait for a thread? Whoever polls then would keep the interpreter from it."""
        return self.returned.under_way > 0 or self._of_trio > 0

    def watchable(self) -> Returned | None:
        """What to look at while threads are at work; None unless all of them are our own."""
        return self.returned if self.returned.under_way and not self._of_trio else None

    async def blocking(
        self, call: Callable[[], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """Run `call` in a thread and wait for it; it is never abandoned half-way."""
        self._of_trio += 1
        try:
            return await self.in_background(call, limiter)
        finally:
            self._of_trio -= 1

    @asynccontextmanager
    async def unwinding(self, undo: ExitStack) -> AsyncIterator[None]:
        """As `with undo`, but for its calls being made in a thread: a close may hang."""
        try:
            yield
        finally:
            with trio.CancelScope(shield=True):
                await self.blocking(undo.close)

    async def in_background(
        self, call: Callable[[], T], limiter: trio.CapacityLimiter | None = None
    ) -> T:
        """As `blocking`, for what no program waits for: whoever polls need not make way for it.

        What may go on for hours has a `limiter` of its own, or verbs would want for threads.
        """
        begun = Begun(call)
        try:
            return await trio.to_thread.run_sync(begun, abandon_on_cancel=False, limiter=limiter)
        except NO_THREAD:
            if begun:
                raise
        return await self._in_crew(self._verbs, call)

    async def for_program(self, call: Callable[[], T], short: ShortCalls | None = None) -> T:
        """As `blocking`, but there and back in a third of the time: for what a write waits for.

        `short`: those with which the call begins.

        There are as many threads as there are calls under way, which is as many as the kernel has
        requests under way at the most; fewer where no more can be started.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._in_crew(self._programs, call, short)

    async def abandonable(self, call: "Begun[T]", limiter: trio.CapacityLimiter) -> T:
        """As `blocking`, but who is cancelled leaves the call alone. Raises Starved."""
        try:
            return await trio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
        except NO_THREAD:
            if call:
                raise
        call.wants_thread = True
        job = LooseJob(call, self.returned)
        self._shadows.hand(job)
        await job.ended.wait()
        return job.outcome()

    async def _in_crew(
        self, crew: Crew, call: Callable[[], T], short: ShortCalls | None = None
    ) -> T:
        returned = self.returned
        returned.under_way += 1
        try:
            job = Job(call, returned, short)
            crew.hand(job)
            is_only_one = returned.under_way == 1 and not self._of_trio
            if not (is_only_one and returned.catch(job)):
                if short is not None:
                    self._stand_still(short)
                await returned.wait()
            return job.outcome()
        finally:
            returned.under_way -= 1

    def _stand_still(self, short: ShortCalls) -> None:
        if self._left_out:
            self._left_out -= 1
        elif not short.wait(STAND_STILL_S):
            self._left_out = IN_VAIN


class Begun(Generic[T]):
    """A call that knows whether it has begun: what fails before that is the want of a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._has_begun = call, False
        self.wants_thread = False
        """trio could start no thread for it."""

    def __bool__(self) -> bool:
        return self._has_begun

    def __call__(self) -> T:
        """In the thread."""
        self._has_begun = True
        return self._call()
