"""Locks for verbs: which verbs may run side by side (K8).

A verb locks the masters of its sets. If it has to wait for a volume that does not answer, verbs on
other masters go on. Verbs on the same masters wait, in the order in which they came.
"""

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import trio

from iifuse import errors

NEW: Final = "new volumes"
"""A verb that adds volumes claims this, because two verbs might add the same volume."""

RECORD: Final = "the record of group commands"
"""A verb claims this if it writes the record or removes what is in it."""

Claim = frozenset[str]
"""What a verb locks: paths of masters (for an imported shadow its own path) and the names above."""


class _Waiter:
    """A verb that waits. `has_it`: its claim is held; otherwise no verb begins any more."""

    def __init__(self, claim: Claim) -> None:
        self.claim, self.may_go, self.has_it = claim, trio.Event(), False


class VerbLocks:
    """The claims of all verbs. A claim that was made earlier is granted earlier."""

    def __init__(self) -> None:
        self._held: list[Claim] = []
        self._inside: list[_Waiter] = []
        """Verbs that hold a claim and want another one. They come before all others."""
        self._waiting: list[_Waiter] = []
        self._closed: trio.Event | None = None
        """Exists after `close`, and is set when no claim is held any more."""

    async def close(self) -> None:
        """Let no verb begin from now on, and return when no claim is held any more."""
        if self._closed is None:
            self._closed = trio.Event()
        for waiter in self._waiting:
            waiter.may_go.set()
        self._waiting.clear()
        self._let_in()
        await self._closed.wait()

    @asynccontextmanager
    async def claimed(self, what: Iterable[str]) -> AsyncIterator[Claim]:
        """Hold a claim. While it is held, no other claim on any of these names is.

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
        """Hold one more claim. The caller must hold NEW, so that no two wait for each other.

        This waits only for claims that are held, and not for verbs that wait. It is granted even
        after `close`, so that the verb can finish.
        """
        waiter = _Waiter(frozenset(what))
        await self._wait(waiter, self._inside)
        with self._until_left(waiter.claim):
            yield waiter.claim

    @contextmanager
    def at_once(self, what: Iterable[str]) -> Iterator[bool]:
        """Hold a claim if that is possible without waiting. Yields False if it is not."""
        claim = frozenset(what)
        if _conflict(claim, self._held):
            yield False
            return
        self._held.append(claim)
        with self._until_left(claim):
            yield True

    def is_free(self, what: Iterable[str]) -> bool:
        """Could a claim be held at once? Only if nobody holds or wants any of these names."""
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
        """Grant the claims that conflict with no claim that is held or that has waited longer."""
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
