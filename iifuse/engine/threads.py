"""The ways from the event loop to blocking calls."""

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, ClassVar, Final, Generic, TypeVar

import trio

from iifuse.engine import limits

log = logging.getLogger(__name__)

T = TypeVar("T")

WORKERS_KEPT: Final = 4
"""Threads of the write path that stay when they have nothing to do."""

GIVE_WAY_S: Final = 0.000_5
"""How long the event loop stands still for a worker's short calls, in seconds, at the most."""

IN_VAIN: Final = 16
"""So often it does not after it did in vain: they were not short."""

CALLS_MAX: Final = 8
"""Threads that one volume may keep: calls that hang must leave threads for everybody else."""


class _Running:
    """How many callers wait for a thread: for trio's, and for one of our own."""

    trios = ours = 0


def are_running() -> bool:
    """Does anybody wait for a thread? Whoever polls then would keep the interpreter from it."""
    return _Running.ours > 0 or _Running.trios > 0


async def blocking(call: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """Run `call` in a worker thread and wait for it; it is never abandoned half-way."""
    _Running.trios += 1
    try:
        return await aside(call, limiter)
    finally:
        _Running.trios -= 1


async def aside(call: Callable[[], T], limiter: trio.CapacityLimiter | None = None) -> T:
    """As `blocking`, for what no program waits for: whoever polls need not make way for it.

    What may go on for hours has a `limiter` of its own, or verbs would want for threads.
    """
    return await trio.to_thread.run_sync(call, abandon_on_cancel=False, limiter=limiter)


class Done:
    """The calls that have come back from a worker, for one event loop.

    A worker wakes the loop, which takes trio several steps; or, while `watched`, only writes to
    `fd`, at which somebody on the loop looks, who then calls `drain`.

    `stand_by`: watches for calls and requests, for a moment, without trio; where there is somebody
    who can (fuse.polling).
    """

    _of_this_loop: ClassVar[trio.lowlevel.RunVar["Done"]] = trio.lowlevel.RunVar("done")

    def __init__(self) -> None:
        self.fd: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.watched = False
        self._asleep = 0
        """Tasks whose calls have not come back."""
        self.stand_by: Callable[[Done], object] | None = None
        self._jobs: deque[_Job[Any]] = deque()
        self._token = trio.lowlevel.current_trio_token()

    def __del__(self) -> None:
        os.close(self.fd)

    @classmethod
    def here(cls) -> "Done":
        """That of the event loop that runs in this thread."""
        try:
            return cls._of_this_loop.get()
        except LookupError:
            done = cls()
            cls._of_this_loop.set(done)
            return done

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def put(self, job: "_Job[Any]") -> None:
        """In a worker. First the job, then the look at `watched`: see `drain`."""
        self._jobs.append(job)
        if self.watched:
            os.eventfd_write(self.fd, 1)
            return
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.drain)

    def drain(self) -> None:
        """On the loop: who waits for a job goes on.

        Who has watched ends that before: a job that comes after this call sees it and wakes the
        loop, so none is left behind.
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
        return self._asleep < _Running.ours

    def catch(self, job: "_Job[Any]") -> bool:
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


def _is_only_one() -> bool:
    return _Running.ours == 1 and not _Running.trios


def watchable() -> Done | None:
    """What to look at while threads are at work; None unless all of them are our own."""
    return Done.here() if _Running.ours and not _Running.trios else None


class Way:
    """What the event loop gives to a worker that begins with short calls, by standing still.

    After each of them a thread has to win the interpreter back from the loop, which lets it go
    only for moments while it is busy: to copy eight chunks in the page cache takes 70 µs alone,
    and 400 beside it.
    """

    _left_out: ClassVar[int] = 0

    def __init__(self) -> None:
        self._taken = threading.Lock()
        self._taken.acquire()
        self._is_free = False

    def free(self) -> None:
        """In the worker: no more short calls for now."""
        if not self._is_free:
            self._is_free = True
            self._taken.release()

    def give(self) -> None:
        """On the loop: stand still until it is free, but no longer than GIVE_WAY_S."""
        if Way._left_out:
            Way._left_out -= 1
        elif not self._taken.acquire(timeout=GIVE_WAY_S):
            Way._left_out = IN_VAIN


class _Job(Generic[T]):
    """A call on its way to a worker and back."""

    def __init__(self, call: Callable[[], T], way: Way | None) -> None:
        self.call, self.way = call, way
        self.result: T
        self.error: BaseException | None = None
        self.task = trio.lowlevel.current_task()
        self.done = Done.here()

    def do(self) -> None:
        """In the worker."""
        try:
            self.result = self.call()
        except BaseException as error:  # noqa: BLE001 - it is raised where the call is waited for
            self.error = error
        if self.way is not None:
            self.way.free()

    def tell(self) -> None:
        """In the worker: who waits for it goes on."""
        self.done.put(self)


class _Worker:
    """A thread that waits for jobs."""

    idle: ClassVar[list["_Worker"]] = []
    """Those that have nothing to do; the last one is the next."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job[Any]] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while True:
            job = self.jobs.get()
            job.do()
            if len(self.idle) >= WORKERS_KEPT:
                job.tell()
                return
            self.idle.append(self)  # before the next job can come
            job.tell()


async def _in_worker(call: Callable[[], T], way: Way | None) -> T:
    job = _Job(call, way)
    worker = _Worker.idle.pop() if _Worker.idle else _Worker()
    worker.jobs.put(job)
    if not (_is_only_one() and job.done.catch(job)):
        if way is not None:
            way.give()
        await job.done.wait()
    if job.error is not None:
        raise job.error
    return job.result


async def swiftly(call: Callable[[], T], way: Way | None = None) -> T:
    """As `blocking`, but there and back in a third of the time: for what a write waits for.

    `way`: the call begins with short ones, and frees the way after them.

    There are as many threads as there are calls under way, which is as many as the kernel has
    requests under way at the most.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    _Running.ours += 1
    try:
        return await _in_worker(call, way)
    finally:
        _Running.ours -= 1


class Stuck:
    """Calls on one volume that were given up because they took too long, and still run.

    What such a call does when it ends at last, it does behind everybody's back: until then nothing
    may rely on what it reads or writes. True while there is one.
    """

    def __init__(self) -> None:
        self._running: set[object] = set()
        self._given_up: set[object] = set()
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(CALLS_MAX)

    def __bool__(self) -> bool:
        return bool(self._given_up) and bool(self._running & self._given_up)

    async def blocking(self, call: Callable[[], T], limit_s: float, path: str) -> T:
        """Run `call` in a worker thread, for `limit_s` seconds at most; 0: for as long as it takes.

        A pause of the service does not count (limits).

        Raises OSError (ETIMEDOUT), which names `path`, when it had to be given up.
        """
        if not limit_s:
            return await blocking(call, self._limiter)
        token = object()
        with limits.move_on_after(limit_s):
            tracked = self._tracked(token, call)
            return await trio.to_thread.run_sync(
                tracked, abandon_on_cancel=True, limiter=self._limiter
            )
        with self._lock:  # one that has not begun yet never does
            self._given_up.add(token)
        raise OSError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s", path)

    def _tracked(self, token: object, call: Callable[[], T]) -> Callable[[], T]:
        def tracked() -> T:
            with self._lock:
                if token in self._given_up:
                    raise OSError(errno.ETIMEDOUT, "given up before it began")
                self._running.add(token)
            try:
                return call()
            finally:
                self._running.discard(token)
                self._given_up.discard(token)

        return tracked
