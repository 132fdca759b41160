"""Time limits that count only while the event loop turns.

A service that was stopped (SIGSTOP, a debugger, a paused container or virtual machine) has served
nobody meanwhile, and has not looked whether anybody was done. Time that passed so is nobody's
fault, and counted it would take shadows offline that are well. So a limit is counted in ticks, and
a tick that came late counts no more than `LATE_S`.

Not for what a user has named as time on the clock (`-w --timeout`), nor where a pause errs to the
safe side (`family.RECENT_S`: a first touch goes through a thread).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import ClassVar, Final

import trio

TICK_S: Final = 0.05
"""How often the loop looks at its limits, while there are any."""

LATE_S: Final = 2 * TICK_S
"""What a tick counts at the most: what it is later than this, the loop did not turn."""


class _Clock:
    """Counts for all limits of one event loop."""

    _of_this_loop: ClassVar[trio.lowlevel.RunVar["_Clock"]] = trio.lowlevel.RunVar("limits")

    def __init__(self) -> None:
        self.turned_s = 0.0
        """For how long the loop has turned, as far as it was looked at."""
        self._due: dict[trio.CancelScope, float] = {}
        self._ticks = False

    @classmethod
    def here(cls) -> "_Clock":
        try:
            return cls._of_this_loop.get()
        except LookupError:
            clock = cls()
            cls._of_this_loop.set(clock)
            return clock

    def add(self, scope: trio.CancelScope, limit_s: float) -> None:
        self._due[scope] = self.turned_s + LATE_S + limit_s  # the next tick counts what was before
        if not self._ticks:
            self._ticks = True
            trio.lowlevel.spawn_system_task(self._tick, name="limits")

    def remove(self, scope: trio.CancelScope) -> None:
        self._due.pop(scope, None)

    async def _tick(self) -> None:
        """Ends when there is no limit to look at: an idle service sleeps."""
        last = trio.current_time()
        while self._due:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            self.turned_s += min(now - last, LATE_S)
            last = now
            for scope, due in self._due.items():
                if due <= self.turned_s:
                    scope.cancel()
        self._ticks = False


@contextmanager
def move_on_after(limit_s: float) -> Iterator[trio.CancelScope]:
    """As trio's, in seconds in which the loop turned; never early, and late by three ticks."""
    with trio.CancelScope() as scope:
        if limit_s <= 0:
            scope.cancel()
        clock = _Clock.here()
        if 0 < limit_s < inf:
            clock.add(scope, limit_s)
        try:
            yield scope
        finally:
            clock.remove(scope)


def now() -> float:
    """Seconds for which the loop has turned while somebody had a limit: for a common deadline."""
    return _Clock.here().turned_s
