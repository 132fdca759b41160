"""Time limits that count only while the event loop turns.

A service that was stopped (SIGSTOP, a debugger, a paused container or virtual machine) has served
nobody meanwhile, and has not looked whether anybody was done. Time that passed so is nobody's
fault, and counted it would take shadows offline that are well. So a limit is counted in ticks, and
a tick that came late counts no more than `LATE_S`.

Two kinds of time are not counted like this: what a user has named as time on the clock
(`-w --timeout`), and that in which a pause errs on the safe side (`family.RECENT_S`: a first touch
goes through a thread).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

import trio

TICK_S: Final = 0.05
"""How often the loop looks at its limits, while there are any."""

LATE_S: Final = 2 * TICK_S
"""The most that a tick counts: for the rest of the time that it is late, the loop did not turn."""


class Clock:
    """Counts for all limits of one event loop."""

    def __init__(self) -> None:
        self._turned_s = 0.0
        self._due: dict[trio.CancelScope, float] = {}
        self._ticks = False

    @contextmanager
    def move_on_after(self, limit_s: float) -> Iterator[trio.CancelScope]:
        """As trio's, in seconds in which the loop turned; never early, and late by three ticks."""
        with trio.CancelScope() as scope:
            if limit_s <= 0:
                scope.cancel()
            elif limit_s < inf:
                self._add(scope, limit_s)
            try:
                yield scope
            finally:
                self._due.pop(scope, None)

    def now(self) -> float:
        """Seconds for which the loop has turned while somebody had a limit: for deadlines."""
        return self._turned_s

    def _add(self, scope: trio.CancelScope, limit_s: float) -> None:
        # The next tick counts what was before.
        self._due[scope] = self._turned_s + LATE_S + limit_s
        if not self._ticks:
            self._ticks = True
            trio.lowlevel.spawn_system_task(self._tick, name="limits")

    async def _tick(self) -> None:
        """Ends when there is no limit to look at: an idle service sleeps."""
        last = trio.current_time()
        while self._due:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            self._turned_s += min(now - last, LATE_S)
            last = now
            for scope, due in self._due.items():
                if due <= self._turned_s:
                    scope.cancel()
        self._ticks = False
