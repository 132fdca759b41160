"""Time limits that count only the time in which the event loop runs.

A service can be paused as a whole: by SIGSTOP, by a debugger, with its container or its virtual
machine. During the pause it serves nobody and cannot see that a disk has answered. If the pause
counted, it would take healthy shadows offline. So a limit is counted in ticks, and a tick that
comes late counts for at most `LATE_S` seconds.

Two kinds of time are counted by the clock instead. One is the time that a user has asked for
(`-w --timeout`). The other is a time for which a pause does no harm: after `family.RECENT_S` a
first touch goes through a thread, and the pause only makes that happen earlier.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from math import inf
from typing import Final

import trio

TICK_S: Final = 0.05
"""How often the loop checks its limits, in seconds, while there are any."""

LATE_S: Final = 2 * TICK_S
"""The most that one tick counts, in seconds. If a tick is later than that, the loop was paused."""


class TimeLimits:
    """Counts the time of all limits of one event loop."""

    def __init__(self) -> None:
        self._ran_s = 0.0
        self._due: dict[trio.CancelScope, float] = {}
        self._ticks = False

    @contextmanager
    def move_on_after(self, limit_s: float) -> Iterator[trio.CancelScope]:
        """Like trio's function of this name, but only the time counts in which the loop runs.

        `limit_s` is in seconds. The limit never ends early, and at most three ticks late.
        """
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
        """Seconds for which the loop has run while there was a limit. Deadlines count from it."""
        return self._ran_s

    def _add(self, scope: trio.CancelScope, limit_s: float) -> None:
        # The next tick also counts time that passed before this limit began, up to LATE_S.
        self._due[scope] = self._ran_s + LATE_S + limit_s
        if not self._ticks:
            self._ticks = True
            trio.lowlevel.spawn_system_task(self._tick, name="limits")

    async def _tick(self) -> None:
        """Check the limits at every tick. End when none is left, so that an idle service sleeps."""
        last = trio.current_time()
        while self._due:
            await trio.sleep(TICK_S)
            now = trio.current_time()
            self._ran_s += min(now - last, LATE_S)
            last = now
            for scope, due in self._due.items():
                if due <= self._ran_s:
                    scope.cancel()
        self._ticks = False
