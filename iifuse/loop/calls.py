"""Calls that threads make for the event loop, and how the loop learns that they are done."""

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


class FinishedCalls:
    """The calls that our threads have finished and whose callers have not gone on yet.

    Usually a thread wakes the event loop through trio, which takes several steps. While `watched`
    is true the thread only writes to the event descriptor `fd`. Then a task on the loop waits for
    that descriptor and calls `drain`.

    `stand_by` watches for calls and requests for a moment, without trio; loop.waiter sets it.
    `under_way` is the number of callers that wait for a call.
    """

    def __init__(self) -> None:
        self.fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watched = False
        self.under_way = 0
        self.stand_by: Callable[[FinishedCalls], object] | None = None
        self._asleep = 0
        """Number of tasks that sleep until their calls are done."""
        self._jobs: deque[Job[Any]] = deque()

    def __del__(self) -> None:
        os.close(self.fd)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def put(self, job: "Job[Any]") -> None:
        """Add a finished job. This runs in the thread.

        The job is added before `watched` is read; `drain` relies on that order.
        """
        self._jobs.append(job)
        if self.watched:
            os.eventfd_write(self.fd, 1)
            return
        with suppress(trio.RunFinishedError):
            job.token.run_sync_soon(self.drain)

    def drain(self) -> None:
        """Wake every task whose job is done. This runs on the event loop.

        `watched` must be false before this is called. A job that is added later sees that and
        wakes the loop, so no job is forgotten.
        """
        while self._jobs:
            self._asleep -= 1
            trio.lowlevel.reschedule(self._jobs.popleft().task)

    async def wait(self) -> None:
        """Sleep until the job of this task is done. This runs on the event loop."""
        self._asleep += 1
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    @property
    def has_task_to_wake(self) -> bool:
        """Is there a task whose call is done and which has not gone on yet? For the event loop."""
        return self._asleep < self.under_way

    def wait_briefly(self, job: "Job[Any]") -> bool:
        """Wait for a job for a moment, without trio's scheduler. True if it is done by then.

        The whole event loop waits. So this is for the only job under way.
        """
        try:
            if self.stand_by is not None:
                self.stand_by(self)
        except Exception:  # the call goes on, so its caller has to wait for it in any case
            log.exception("the short wait for a call failed; calls go through the scheduler now")
            self.stand_by = None
        if job not in self._jobs:
            return False
        self._jobs.remove(job)
        return True

    def clear_event(self) -> None:
        """Reset `fd`, so that it is not readable any more."""
        with suppress(BlockingIOError):
            os.eventfd_read(self.fd)


class ShortCalls:
    """The short system calls at the beginning of a thread's work. The event loop waits for them.

    After each system call a thread has to get the interpreter lock back from the loop, and a busy
    loop gives it up only for moments. To copy eight chunks in the page cache takes 70 µs while the
    loop waits, and 400 µs while it runs.
    """

    def __init__(self) -> None:
        self._running = threading.Lock()
        self._running.acquire()
        self._have_ended = False

    def end(self) -> None:
        """The short calls are over. This runs in the thread."""
        if not self._have_ended:
            self._have_ended = True
            self._running.release()

    def wait(self, limit_s: float) -> bool:
        """Stop the event loop until they are over. False: `limit_s` seconds were not enough."""
        return self._running.acquire(timeout=limit_s)


class Job(Generic[T]):
    """A call that a task of the event loop waits for."""

    def __init__(
        self, call: Callable[[], T], finished: FinishedCalls, short: ShortCalls | None = None
    ) -> None:
        self.call, self.finished, self.short = call, finished, short
        self.result: T
        self.error: BaseException | None = None
        self.task = trio.lowlevel.current_task()
        self.token = trio.lowlevel.current_trio_token()

    def do(self) -> None:
        """Make the call. This runs in the thread."""
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
            self.error = error
        if self.short is not None:
            self.short.end()

    def tell(self) -> None:
        """Let the task go on that waits for the call. This runs in the thread."""
        self.finished.put(self)

    def outcome(self) -> T:
        """Return what the call has returned, or raise what it has raised."""
        if self.error is not None:
            raise self.error
        return self.result


class AbandonableJob(Job[T]):
    """A call whose caller may give up waiting for it."""

    def __init__(self, call: Callable[[], T], finished: FinishedCalls) -> None:
        super().__init__(call, finished)
        self.ended = trio.Event()

    def tell(self) -> None:
        """Set the event that the caller waits for, if it still does. This runs in the thread."""
        with suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self.ended.set)
