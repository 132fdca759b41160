"""Calls on their way to a thread and back to the event loop."""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

import trio

log = logging.getLogger(__name__)

T = TypeVar("T")


class Returned:
    """The calls that have come back from threads of ours, for one event loop.

    A thread wakes the loop, which takes trio several steps; or, while `watched`, it only writes to
    `fd`, at which somebody on the loop looks, who then calls `drain`.

    `stand_by`: watches for calls and requests, for a moment, without trio; where there is somebody
    who can (loop.waiter). `under_way`: callers that wait for a thread of ours.
    """

    def __init__(self) -> None:
        self.fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watched = False
        self.under_way = 0
        self.stand_by: Callable[[Returned], object] | None = None
        self._asleep = 0
        """Tasks whose calls have not come back."""
        self._jobs: deque[Job[Any]] = deque()

    def __del__(self) -> None:
        os.close(self.fd)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def put(self, job: "Job[Any]") -> None:
        """In the thread. First the job, then the look at `watched`: see `drain`."""
        self._jobs.append(job)
        if self.watched:
            os.eventfd_write(self.fd, 1)
            return
        with suppress(trio.RunFinishedError):
            job.token.run_sync_soon(self.drain)

    def drain(self) -> None:
        """On the loop: who waits for a job goes on.

        `watched` must be false by then: a job that comes after this call sees that and wakes the
        loop, so that none is left behind.
        """
        while self._jobs:
            self._asleep -= 1
            trio.lowlevel.reschedule(self._jobs.popleft().task)

    async def wait(self) -> None:
        """On the loop: sleep until this task's job has come back."""
        self._asleep += 1
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    @property
    def is_somebody_back(self) -> bool:
        """On the loop: has a task whose call has come back not gone on yet?"""
        return self._asleep < self.under_way

    def catch(self, job: "Job[Any]") -> bool:
        """On the loop: stand by. True if the job has come back: no way through trio's scheduler.

        For the only one under way: whoever gets something to do just then waits for the moment.
        """
        try:
            if self.stand_by is not None:
                self.stand_by(self)
        except Exception:  # the call runs on, and whoever waits for it has to
            log.exception("standing by failed; calls take the way through the scheduler now")
            self.stand_by = None
        if job not in self._jobs:
            return False
        self._jobs.remove(job)
        return True

    def calm(self) -> None:
        """Make `fd` silent again."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class ShortCalls:
    """The short calls with which a thread begins; the event loop stands still for them.

    After each call a thread has to win the interpreter back from the loop, which lets it go only
    for moments while it is busy: to copy eight chunks in the page cache takes 70 µs alone, and 400
    beside it.
    """

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._running.acquire()
        self._have_ended = False

    def end(self) -> None:
        """In the thread: no more short calls for now."""
        if not self._have_ended:
            self._have_ended = True
            self._running.release()

    def wait(self, limit_s: float) -> bool:
        """On the loop, which stands still: have they ended within so many seconds?"""
        return self._running.acquire(timeout=limit_s)


class Job(Generic[T]):
    """A call that a task waits for."""

    def __init__(
        self, call: Callable[[], T], returned: Returned, short: ShortCalls | None = None
    ) -> None:
        self.call, self.returned, self.short = call, returned, short
        self.result: T
        self.error: BaseException | None = None
        self.task = trio.lowlevel.current_task()
        self.token = trio.lowlevel.current_trio_token()

    def do(self) -> None:
        """In the thread."""
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
            self.error = error
        if self.short is not None:
            self.short.end()

    def tell(self) -> None:
        """In the thread: who waits for it goes on."""
        self.returned.put(self)

    def outcome(self) -> T:
        """On the loop: what the call has returned, or raised."""
        if self.error is not None:
            raise self.error
        return self.result


class LooseJob(Job[T]):
    """A call that nobody need wait for to its end."""

    def __init__(self, call: Callable[[], T], returned: Returned) -> None:
        super().__init__(call, returned)
        self.ended = trio.Event()

    def tell(self) -> None:
        """In the thread."""
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self.ended.set)
