"""Which verbs may run side by side: those that have nothing to do with one another (K8).

A verb claims the masters of its sets. While one waits for a volume that does not answer, verbs on
other sets go on; those on the same sets wait, in the order in which they came.
"""

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from iifuse import errors

NEW: Final = "new volumes"
"""Claimed by who brings volumes in: what two bring at once might be one."""

RECORD: Final = "the record of group commands"
"""Claimed by who writes it, or forgets what stands there."""

EVERYTHING: Final = "everything"

Claim = frozenset[str]
"""Paths of masters (of imported shadows: theirs), and the names above."""


class Desk:
    """Who works on what. The first who asked for something is the first to have it."""

    def __init__(self) -> None:
        self._held: list[Claim] = []
        self._waiting: deque[tuple[Claim, trio.Event]] = deque()
        self._is_closed = False

    async def close(self) -> None:
        """Return when nobody holds anything any more; nobody begins from now on."""
        self._is_closed = True
        await self._wait(frozenset({EVERYTHING}))

    @asynccontextmanager
    async def claimed(self, what: Iterable[str]) -> AsyncIterator[Claim]:
        """While this is held nobody else works on any of it. May be nested: NEW first.

        Raises ServiceError when the service is about to stop.
        """
        claim = frozenset(what)
        if self._is_closed and claim:
            raise errors.ServiceError("", "the service stops", "ask it when it runs again")
        await self._wait(claim)
        try:
            yield claim
        finally:
            self._held.remove(claim)
            self._let_in()

    def is_free(self, what: Iterable[str]) -> bool:
        """Would a claim have to wait? Not if nobody holds or wants any of it."""
        claim = frozenset(what)
        wanted = [other for other, _ in self._waiting]
        return not any(_conflict(claim, other) for other in (*self._held, *wanted))

    async def _wait(self, claim: Claim) -> None:
        await trio.lowlevel.checkpoint()
        if self.is_free(claim):
            self._held.append(claim)
            return
        entry = claim, trio.Event()
        self._waiting.append(entry)
        try:
            await entry[1].wait()
        except trio.Cancelled:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._held.remove(claim)
            self._let_in()
            raise

    def _let_in(self) -> None:
        """Whoever waits and is in nobody's way any more; nobody overtakes one of his claims."""
        before: list[Claim] = []
        for entry in list(self._waiting):
            claim, may_go = entry
            if any(_conflict(claim, other) for other in (*self._held, *before)):
                before.append(claim)
                continue
            self._waiting.remove(entry)
            self._held.append(claim)
            may_go.set()


def _conflict(one: Claim, other: Claim) -> bool:
    return bool(one & other) or EVERYTHING in one or EVERYTHING in other
