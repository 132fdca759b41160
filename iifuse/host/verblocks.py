"""Which verbs may run side by side: those that have nothing to do with one another (K8).

A verb claims the masters of its sets. While one waits for a volume that does not answer, verbs on
other sets go on; those on the same sets wait, in the order in which they came.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from iifuse import errors

NEW: Final = "new volumes"
"""Claimed by who brings volumes in: what two bring at once might be one."""

RECORD: Final = "the record of group commands"
"""Claimed by who writes it, or forgets what stands there."""

Claim = frozenset[str]
"""Paths of masters (of imported shadows: theirs), and the names above."""


class _Waiter:
    """`has_it`: the claim is held; else the desk was closed before it could be."""

    def __init__(self, claim: Claim) -> None:
        self.claim, self.may_go, self.has_it = claim, trio.Event(), False


class VerbLocks:
    """Who works on what. The first who asked for something is the first to have it."""

    def __init__(self) -> None:
        self._held: list[Claim] = []
        self._inside: list[_Waiter] = []
        """Those who hold something and want more; they come before all others."""
        self._waiting: list[_Waiter] = []
        self._closed: trio.Event | None = None
        """Once it is closed: set when nobody holds anything any more."""

    async def close(self) -> None:
        """Return when nobody holds anything any more; nobody begins from now on."""
        if self._closed is None:
            self._closed = trio.Event()
        for waiter in self._waiting:
            waiter.may_go.set()
        self._waiting.clear()
        self._let_in()
        await self._closed.wait()

    @asynccontextmanager
    async def claimed(self, what: Iterable[str]) -> AsyncIterator[Claim]:
        """While this is held nobody else works on any of it.

        Raises ServiceError when the service is about to stop.
        """
        waiter = _Waiter(frozenset(what))
        if self._closed is None:
            await self._wait(waiter, self._waiting)
        if not waiter.has_it:
            raise errors.ServiceError("", "the service stops", "ask it when it runs again")
        with self._until_left(waiter.claim):
            yield waiter.claim

    @asynccontextmanager
    async def also(self, what: Iterable[str]) -> AsyncIterator[Claim]:
        """The same for who holds something already: NEW, so that no two wait for each other.

        It waits for those who hold it and for nobody else, and a desk that was closed meanwhile
        lets it finish what it has begun.
        """
        waiter = _Waiter(frozenset(what))
        await self._wait(waiter, self._inside)
        with self._until_left(waiter.claim):
            yield waiter.claim

    @contextmanager
    def at_once(self, what: Iterable[str]) -> Iterator[bool]:
        """Held, if nobody else holds any of it just now; else False, and not held."""
        claim = frozenset(what)
        if _conflict(claim, self._held):
            yield False
            return
        self._held.append(claim)
        with self._until_left(claim):
            yield True

    def is_free(self, what: Iterable[str]) -> bool:
        """Would a claim have to wait? Not if nobody holds or wants any of it."""
        wanted = [waiter.claim for waiter in (*self._inside, *self._waiting)]
        return self._closed is None and not _conflict(frozenset(what), [*self._held, *wanted])

    @contextmanager
    def _until_left(self, claim: Claim) -> Iterator[None]:
        try:
            yield
        finally:
            self._held.remove(claim)
            self._let_in()

    async def _wait(self, waiter: _Waiter, queue: list[_Waiter]) -> None:
        queue.append(waiter)
        self._let_in()
        try:
            await waiter.may_go.wait()
        except trio.Cancelled:
            if waiter.has_it:
                self._held.remove(waiter.claim)
            elif waiter in queue:
                queue.remove(waiter)
            self._let_in()
            raise

    def _let_in(self) -> None:
        """Whoever waits and is in nobody's way any more; nobody overtakes one of his claims."""
        for waiter in list(self._inside):
            if not _conflict(waiter.claim, self._held):
                self._give(waiter, self._inside)
        before = [waiter.claim for waiter in self._inside]
        for waiter in list(self._waiting):
            if _conflict(waiter.claim, [*self._held, *before]):
                before.append(waiter.claim)
            else:
                self._give(waiter, self._waiting)
        if self._closed is not None and not (self._held or self._inside):
            self._closed.set()

    def _give(self, waiter: _Waiter, queue: list[_Waiter]) -> None:
        queue.remove(waiter)
        self._held.append(waiter.claim)
        waiter.has_it = True
        waiter.may_go.set()


def _conflict(claim: Claim, others: Iterable[Claim]) -> bool:
    return any(claim & other for other in others)
