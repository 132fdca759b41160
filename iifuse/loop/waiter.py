"""How the service waits for the kernel's next request: it looks a little before it sleeps.

pyfuse3 waits for each request with a lock and the event loop's epoll, two trips through trio's
scheduler, which cost more than the request itself; `fuse.waits` puts this in their place. Whoever
finds a request waiting goes on with it at once; whoever finds none looks for some tens of
microseconds and sleeps only then. What was measured stands in docs/decisions/waiting.md.
"""

import select
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final

import trio

from iifuse.loop.returned import Returned
from iifuse.store.linux import Either

LOOK_NS_MAX: Final = 50_000
"""How long to look before sleeping: a program at depth 1 is back with its next request by then."""

_LOOK_NS_MIN: Final = 10_000
_SOON_NS: Final = 150_000
"""A sleep shorter than this was a mistake: it is mostly the way to sleep and back."""

IN_A_ROW_MAX: Final = 32
"""So many requests are served one after the other before every other task gets its turn."""

IN_A_ROW_BUSY_MAX: Final = 8
"""The same while a thread is at work, whose end would otherwise be noticed late."""

WATCH_S: Final = 0.001
"""How long to wait at a time for a request or a call without trio, in seconds."""

WATCHES_MAX: Final = 2
"""How often to wait so in vain before sleeping; what takes longer than 2 ms gains nothing by it."""

STAND_BY_S: Final = 0.000_3
"""How long to wait like this for the only call under way, before anybody else has a turn: longer
than a disk's sync takes."""

STAND_BY_WORTH: Final = 8
"""Standing by once counts as so many requests in a row."""


class Baton:
    """The task that has it reads the next request. It is a lock that need not be handed over.

    trio's own lock goes to whoever waits, so two tasks would take turns at every request, with a
    task switch each. Here the task that comes back first keeps it, and the others sleep until that
    one has to wait for something.
    """

    def __init__(self) -> None:
        self._held = False
        self._others = trio.lowlevel.ParkingLot()
        self._is_one_woken = False

    @property
    def readers(self) -> int:
        """How many tasks have it or wait for it."""
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
        if self._others and not self._is_one_woken:  # else all would wake for one request
            self._is_one_woken = True
            self._others.unpark()


class Patience:
    """Decides how long to look before sleeping, by how long the last waits were.

    As KVM does before it puts a virtual processor to sleep: longer when the next request came just
    after we slept, not at all when it came long after. So an idle service does not look at all.
    """

    def __init__(self) -> None:
        self.look_ns = 0

    def slept(self, waited_ns: int) -> None:
        """Learn that a wait which ended in sleep took so long, from its first look on."""
        if waited_ns > _SOON_NS:
            self.look_ns //= 2
            if self.look_ns < _LOOK_NS_MIN:
                self.look_ns = 0
        else:
            self.look_ns = min(max(2 * self.look_ns, _LOOK_NS_MIN), LOOK_NS_MAX)


class Waiter:
    """Waits for requests.

    `busy()`: is a thread at work, from which looking would keep the interpreter? `watchable()`:
    the calls that come back from threads, to be waited for together with requests; or None.
    """

    def __init__(self, busy: Callable[[], bool], watchable: Callable[[], Returned | None]) -> None:
        self._busy, self._watchable = busy, watchable
        self._patience = Patience()
        self._poll = select.poll()
        self._either = Either()
        self.baton = Baton()
        self._servants: trio.Nursery | None = None
        """Of the tasks that serve requests."""
        self._fd = -1
        self._in_a_row = 0
        self._is_closing = False

    def notify_closing(self, fd: int) -> None:
        """Tell whoever waits, here or in trio, that the session ends."""
        self._is_closing = True
        trio.lowlevel.notify_closing(fd)

    async def wait_readable(self, fd: int) -> None:
        """Return when a request waits. Raises trio.ClosedResourceError when the session ends."""
        if fd != self._fd:
            self._poll, self._fd = select.poll(), fd
            self._poll.register(fd, select.POLLIN)
            self._servants = trio.lowlevel.current_task().parent_nursery
        in_vain = 0
        while in_vain < WATCHES_MAX:
            busy = self._busy()
            if self._poll.poll(0) or (not busy and self._patience.look_ns and self._look()):
                await self._begin(IN_A_ROW_BUSY_MAX if busy else IN_A_ROW_MAX)
                return
            if self._is_closing or not busy:
                break
            await trio.lowlevel.checkpoint()  # who has something to do does it first
            if not self._busy():
                continue
            calls = self._watchable()
            if calls is None:
                break
            if not self._has_come(calls):
                in_vain += 1
        if self._is_closing:  # trio would wait for the next request
            raise trio.ClosedResourceError("the session ends")
        self._in_a_row = 0
        began = time.perf_counter_ns()
        await trio.lowlevel.wait_readable(fd)
        self._patience.slept(time.perf_counter_ns() - began)

    async def _begin(self, in_a_row_max: int) -> None:
        """A request is there: others have their turn only now and then."""
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

    def _has_come(self, calls: Returned) -> bool:
        """Watch. True if a call has come, or did so before, and who waits for it has to go on."""
        if calls.is_somebody_back:
            return True
        self._watch(calls, WATCH_S)
        if not calls:
            return False
        calls.drain()
        return True

    def stand_by(self, calls: Returned) -> None:
        """Watch for the only call under way, if it is part of the only request in hand.

        With more requests in hand, some might be about to be answered, and would have to wait for
        the call. After a few times in a row the call goes through trio, and others have their turn.
        """
        if self._in_a_row < IN_A_ROW_MAX and self._is_only_request():
            self._in_a_row += STAND_BY_WORTH
            self._watch(calls, STAND_BY_S)

    def _is_only_request(self) -> bool:
        """Does this task serve a request, and has every other one that does nothing to do?"""
        task = trio.lowlevel.current_task()
        if self._servants is None or task.parent_nursery is not self._servants:
            return False
        return len(self._servants.child_tasks) - self.baton.readers == 1

    def _watch(self, done: Returned, limit_s: float) -> None:
        """Sleep, for a moment, until a request or a call comes.

        Without trio, which takes three trips through its scheduler to notice that a call is back.
        Whoever gets something to do meanwhile has to wait, so the moment is a short one.
        """
        self._either.watch(self._fd, done.fd)
        done.calm()  # who came while we stopped watching may have written late
        done.watched = True
        try:
            if not done:
                self._either.wait(limit_s)
        finally:
            done.watched = False  # or who waits for a call would never learn of its end
