"""The ways from the event loop to blocking calls."""

import errno
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar, Final, Generic, TypeVar

import trio

from iifuse.engine import limits
from iifuse.engine.crew import NO_THREAD, Crew, Starved

log = logging.getLogger(__name__)

T = TypeVar("T")

_PROGRAMS: Final = Crew(4)
"""For what programs wait for."""

_VERBS: Final = Crew(2)
_SHADOWS: Final = Crew(2)
"""For verbs and for calls on slow shadows, when trio can start no thread for them."""

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
    begun = _Begun(call)
    try:
        return await trio.to_thread.run_sync(begun, abandon_on_cancel=False, limiter=limiter)
    except NO_THREAD:
        if begun:
            raise
    _Running.ours += 1
    try:
        return await _in_crew(_VERBS, call)
    finally:
        _Running.ours -= 1


def keep_in_reserve() -> None:
    """Start the threads that are there when none can be started. Raises Starved."""
    for crew in (_PROGRAMS, _VERBS, _SHADOWS):
        crew.fill()


class _Begun(Generic[T]):
    """A call that knows whether it has begun: what fails before that is the want of a thread."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call, self._has_begun = call, False

    def __bool__(self) -> bool:
        return self._has_begun

    def __call__(self) -> T:
        self._has_begun = True
        return self._call()


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

    def outcome(self) -> T:
        """On the loop: what the call has returned, or raised."""
        if self.error is not None:
            raise self.error
        return self.result


class _Loose(_Job[T]):
    """A job that nobody need wait for to its end."""

    def __init__(self, call: Callable[[], T]) -> None:
        super().__init__(call, None)
        self.ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def tell(self) -> None:
        """In the worker."""
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self.ended.set)


async def _in_crew(crew: Crew, call: Callable[[], T], way: Way | None = None) -> T:
    job = _Job(call, way)
    crew.hand(job)
    if not (_is_only_one() and job.done.catch(job)):
        if way is not None:
            way.give()
        await job.done.wait()
    return job.outcome()


async def swiftly(call: Callable[[], T], way: Way | None = None) -> T:
    """As `blocking`, but there and back in a third of the time: for what a write waits for.

    `way`: the call begins with short ones, and frees the way after them.

    There are as many threads as there are calls under way, which is as many as the kernel has
    requests under way at the most; fewer where no more can be started.
    """
    await trio.lowlevel.checkpoint_if_cancelled()
    _Running.ours += 1
    try:
        return await _in_crew(_PROGRAMS, call, way)
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
        self._wanting: set[object] = set()
        """Those for which trio could start no thread."""
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(CALLS_MAX)

    def __bool__(self) -> bool:
        return bool(self._given_up) and bool(self._running & self._given_up)

    async def blocking(self, call: Callable[[], T], limit_s: float, path: str) -> T:
        """Run `call` in a worker thread, for `limit_s` seconds at most; 0: for as long as it takes.

        A pause of the service does not count (limits).

        Raises OSError (ETIMEDOUT), which names `path`, when it had to be given up, and Starved
        when it could not even begin for want of a thread.
        """
        if not limit_s:
            return await blocking(call, self._limiter)
        token = object()
        with limits.move_on_after(limit_s):
            return await self._abandonable(token, call)
        with self._lock:  # one that has not begun yet never does
            self._given_up.add(token)
            if token in self._wanting and token not in self._running:
                self._wanting.discard(token)
                raise Starved(path)
        raise OSError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s", path)

    async def _abandonable(self, token: object, call: Callable[[], T]) -> T:
        tracked = _Begun(self._tracked(token, call))
        try:
            return await trio.to_thread.run_sync(
                tracked, abandon_on_cancel=True, limiter=self._limiter
            )
        except NO_THREAD:
            if tracked:
                raise
        self._wanting.add(token)
        job = _Loose(tracked)
        _SHADOWS.hand(job)
        await job.ended.wait()
        self._wanting.discard(token)
        return job.outcome()

    def _tracked(self, token: object, call: Callable[[], T]) -> Callable[[], T]:
        def tracked() -> T:
            with self._lock:
                if token in self._given_up:
                    self._given_up.discard(token)
                    raise OSError(errno.ETIMEDOUT, "given up before it began")
                self._running.add(token)
            try:
                return call()
            finally:
                self._running.discard(token)
                self._given_up.discard(token)

        return tracked
