"""How the service waits for the kernel's next request: it polls for a moment before it sleeps.

pyfuse3 waits for each request with a lock and with the event loop's epoll. These are two trips
through trio's scheduler, which cost more than the request itself; `fuse.waits` replaces them by
this module. A task that finds a request serves it at once. A task that finds none polls for some
tens of microseconds and sleeps only then. docs/decisions/waiting.md has the measurements.
"""

import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import trio

from iifuse.loop.calls import FinishedCalls
from iifuse.store.linux import PollTwo

LOOK_NS_MAX: Final = 50_000
"""How long to poll before sleeping, at the most. A program with one request under way has sent the
next one by then."""

_LOOK_NS_MIN: Final = 10_000
_SOON_NS: Final = 150_000
"""If a sleep is shorter than this, polling would have been better: the sleep itself takes most of
that time."""

IN_A_ROW_MAX: Final = 32
"""After this many requests in a row the other tasks get a turn."""

IN_A_ROW_BUSY_MAX: Final = 8
"""The same while a thread is at work. With more in a row its end would be noticed late."""

WATCH_S: Final = 0.001
"""How long to wait at a time for a request or a call without trio, in seconds."""

WATCHES_MAX: Final = 2
"""After this many such waits without a result the task sleeps. A call that takes longer than 2 ms
gains nothing by them."""

STAND_BY_S: Final = 0.000_3
"""How long to wait without trio for the only call under way, in seconds. No other task gets a turn
meanwhile. A disk's sync usually takes less."""

STAND_BY_WORTH: Final = 8
"""One such wait counts like this many requests in a row."""


class ReaderLock:
    """The lock for reading the next request.

    trio's own lock goes to the task that waits, so two tasks would take turns at every request, and
    each turn costs a task switch. Here the task that comes back first takes the lock again. The
    others sleep until that task has to wait for something.
    """

    def __init__(self) -> None:
        self._held = False
        self._others = trio.lowlevel.ParkingLot()
        self._is_one_woken = False

    @property
    def readers(self) -> int:
        """How many tasks have the lock or wait for it."""
        holder = 1 if self._held else 0
        on_its_way = 1 if self._is_one_woken else 0
        return holder + on_its_way + len(self._others)

    async def __aenter__(self) -> None:
        while self._held:
            await self._others.park()
            self._is_one_woken = False
        self._held = True

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held = False
        if self._others and not self._is_one_woken:  # one is enough for one request
            self._is_one_woken = True
            self._others.unpark()


class Patience:
    """Decides how long to poll before sleeping, by how long the last waits were.

    KVM does the same before it puts a virtual processor to sleep. If a request comes soon after the
    task has begun to sleep, the next poll is longer. If it comes late, the next poll is shorter. So
    an idle service does not poll at all.
    """

    def __init__(self) -> None:
        self.look_ns = 0

    def slept(self, waited_ns: int) -> None:
        """Learn from a wait that ended in sleep. `waited_ns`: its whole length, in nanoseconds."""
        if waited_ns > _SOON_NS:
            self.look_ns //= 2
            if self.look_ns < _LOOK_NS_MIN:
                self.look_ns = 0
        else:
            self.look_ns = min(max(2 * self.look_ns, _LOOK_NS_MIN), LOOK_NS_MAX)


class Waiter:
    """Waits for requests.

    `busy()`: is a thread at work? Polling would keep the interpreter lock from it. `calls()`: the
    calls of threads that can be waited for together with requests; None if there are none.
    """

    def __init__(self, busy: Callable[[], bool], calls: Callable[[], FinishedCalls | None]) -> None:
        self._busy, self._calls = busy, calls
        self._patience = Patience()
        self._poll = select.poll()
        self._two = PollTwo()
        self.reader_lock = ReaderLock()
        self._request_tasks: trio.Nursery | None = None
        """The nursery of the tasks that serve requests."""
        self._fd = -1
        self._in_a_row = 0
        self._is_closing = False

    def notify_closing(self, fd: int) -> None:
        """Tell the tasks that wait, here or in trio, that the session ends."""
        self._is_closing = True
        trio.lowlevel.notify_closing(fd)

    async def wait_readable(self, fd: int) -> None:
        """Return when a request waits. Raises trio.ClosedResourceError when the session ends."""
        if fd != self._fd:
            self._poll, self._fd = select.poll(), fd
            self._poll.register(fd, select.POLLIN)
            self._request_tasks = trio.lowlevel.current_task().parent_nursery
        in_vain = 0
        while in_vain < WATCHES_MAX:
            busy = self._busy()
            if self._poll.poll(0) or (not busy and self._patience.look_ns and self._look()):
                await self._begin(IN_A_ROW_BUSY_MAX if busy else IN_A_ROW_MAX)
                return
            if self._is_closing or not busy:
                break
            await trio.lowlevel.checkpoint()  # tasks that have something to do come first
            if not self._busy():
                continue
            calls = self._calls()
            if calls is None:
                break
            if not self._has_come(calls):
                in_vain += 1
        if self._is_closing:  # trio would wait for a request that never comes
            raise trio.ClosedResourceError("the session ends")
        self._in_a_row = 0
        began = time.perf_counter_ns()
        await trio.lowlevel.wait_readable(fd)
        self._patience.slept(time.perf_counter_ns() - began)

    async def _begin(self, in_a_row_max: int) -> None:
        """A request is there. Other tasks get a turn only now and then."""
        self._in_a_row += 1
        if self._in_a_row >= in_a_row_max:
            self._in_a_row = 0
            await trio.lowlevel.checkpoint()

    def _look(self) -> bool:
        now, poll = time.perf_counter_ns, self._poll.poll
        deadline = now() + self._patience.look_ns
        while now() < deadline:
            if poll(0):
                return True
        return False

    def _has_come(self, calls: FinishedCalls) -> bool:
        """Watch for a moment. True if a call is done, so that its task has to go on."""
        if calls.has_task_to_wake:
            return True
        self._watch(calls, WATCH_S)
        if not calls:
            return False
        calls.drain()
        return True

    def stand_by(self, calls: FinishedCalls) -> None:
        """Watch for the only call under way, if it belongs to the only request that is served.

        Other requests that are served might be about to be answered, and would have to wait for
        this call. After a few times in a row this does nothing, so that other tasks get a turn.
        """
        if self._in_a_row < IN_A_ROW_MAX and self._is_only_request():
            self._in_a_row += STAND_BY_WORTH
            self._watch(calls, STAND_BY_S)

    def _is_only_request(self) -> bool:
        """Does this task serve a request, and do all other such tasks wait for one?"""
        task = trio.lowlevel.current_task()
        if self._request_tasks is None or task.parent_nursery is not self._request_tasks:
            return False
        return len(self._request_tasks.child_tasks) - self.reader_lock.readers == 1

    def _watch(self, done: FinishedCalls, limit_s: float) -> None:
        """Sleep until a request or a call comes, for `limit_s` seconds at most, without trio.

        trio takes three trips through its scheduler until it notices that a call is done. But all
        other tasks have to wait meanwhile, so `limit_s` has to be short.
        """
        self._two.watch(self._fd, done.fd)
        done.clear_event()  # a call that ended just after the last watch may have set it
        done.watched = True
        try:
            if not done:
                self._two.wait(limit_s)
        finally:
            done.watched = False  # else the tasks would never learn that their calls are done
