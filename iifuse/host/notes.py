"""What the state database is told, and when.

*Promises* decide what a start may show should a bitmap volume be missing: which sets there are,
whether a copy runs, whether the shadow is lent. They are noted before a verb changes anything
(`announce`, `enter`), so that a state directory that takes no notes refuses the verb, and a crash
in between leaves a row that says more than the header ("perhaps lent"), which is safe to believe.
A start forgets the row of a new set whose header never came; the other order would leave a bitmap
that nobody knows, or half an import.
How it has ended is noted after the header (`remember`); where that fails, it is made up for as
soon as it can be, and until then the row says more. The history is no affair of theirs (`history`).
"""

import logging
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from iifuse import errors
from iifuse.core.header import Header
from iifuse.core.state import Custody, Progress, Role
from iifuse.data.volumeset import VolumeSet
from iifuse.loop.loop import Loop
from iifuse.store.setrow import SetRow
from iifuse.store.statedb import StateDB

log = logging.getLogger(__name__)

EVERY_S: Final = 10.0
"""How often it is tried again to note what could not be noted."""

Coming = Mapping[VolumeSet, tuple[Progress, Custody] | None]
"""What the headers of sets are about to say; None: nothing that a start would have to know."""


class Notes:
    """The only one who tells the state database what sets are and do."""

    def __init__(self, db: StateDB, loop: Loop) -> None:
        self.db, self._loop = db, loop
        self._behind: dict[str, Header] = {}
        """By shadow: headers that the database has not been told of."""
        self._unforgotten: set[str] = set()
        """Sets that are gone and still in the database."""
        self._coming: set[str] = set()
        """Sets of which a verb has announced what their headers will say."""
        self._postponed: set[str] = set()
        """Those of them of which there was more to remember meanwhile."""
        self._told: set[str] = set()
        """Sets of which the log says that their notes are late."""
        self._lock = threading.RLock()
        """So that of two notes on a set the newer one is written last."""

    # -- which sets there are, in a thread ----------------------------------------------------

    def enter(self, row: SetRow) -> None:
        """Put a set into the database. Raises StorageError."""
        with self._lock:
            self._forget_all()
            self.db.add_set(row)

    def forget(self, name: str) -> None:
        """Take a set out of it; where that fails, as soon as it can be. Raises StorageError."""
        with self._lock:
            self._behind.pop(name, None)
            self._unforgotten.add(name)
            self._forget_all()

    def _forget_all(self) -> None:
        for name in list(self._unforgotten):
            self.db.remove_set(name)
            self._unforgotten.discard(name)

    @asynccontextmanager
    async def entered(self, row: SetRow) -> AsyncIterator[None]:
        """Enter a set whose bitmap volume is written next; forget it if that raises.

        Raises StorageError, and the bitmap volume is as it was then.
        """
        await self._loop.blocking(partial(self.enter, row))
        try:
            yield
        except BaseException:
            with trio.CancelScope(shield=True), suppress(errors.StorageError):
                await self._loop.blocking(partial(self.forget, row.shadow))
            raise

    # -- what they do -------------------------------------------------------------------------

    @asynccontextmanager
    async def announced(self, coming: Coming) -> AsyncIterator[None]:
        """Note what a verb is about to do, before it changes anything; take it back if it raises.

        Raises StorageError, and the verb is refused then.
        """
        members = {m.name: m for m, what in coming.items() if what is not None}
        self._coming |= members.keys()
        begun = done = False
        try:
            await self._loop.blocking(partial(self._announce, coming))
            begun = True
            yield
            done = True
        finally:
            self._coming -= members.keys()
            again = set(members) if begun and not done else self._postponed & members.keys()
            self._postponed -= members.keys()
            with trio.CancelScope(shield=True):
                for name in again:
                    await self.remember(members[name])

    def _announce(self, coming: Coming) -> None:
        with self._lock:
            self._catch_up()
            self.db.announce({member.name: what for member, what in coming.items()})

    async def remember(self, member: VolumeSet) -> None:
        """What the header says now. Without a bitmap volume it is a stand-in and knows nothing.

        A copy that ends while a verb is about to change the header must not take back what that has
        announced: the verb lets us know how it has ended.
        """
        if member.name in self._coming:
            self._postponed.add(member.name)
        elif member.bitmap is not None:
            self._behind[member.name] = _safe(member.header)
            await self.catch_up()

    async def copy_is_done(self, member: VolumeSet) -> None:
        """The header is about to say so, and for once the row goes ahead with less.

        Else a start without the bitmap volume would begin a complete restore anew, over what was
        written since.
        """
        idle = {member.name: (Progress.IDLE, member.header.custody)}
        with suppress(errors.StorageError):  # the row says more, until `remember` has caught up
            await self._loop.blocking(partial(self.db.announce, idle))

    async def catch_up(self) -> None:
        """Note what could not be noted before; a failure is logged once for each set."""
        try:
            await self._loop.blocking(self._catch_up)
        except errors.StorageError as error:
            new = self.late() - self._told
            if new:
                log.error("what became of %s is noted later: %s", ", ".join(sorted(new)), error)  # noqa: TRY400
            self._told |= new
        else:
            self._told.clear()

    def late(self) -> set[str]:
        """Sets of which the state database says more than is so."""
        return {*self._behind, *self._unforgotten}

    def _catch_up(self) -> None:
        with self._lock:
            self._forget_all()
            for name, header in list(self._behind.items()):
                self.db.remember(header)
                if self._behind.get(name) is header:
                    del self._behind[name]

    async def keep_up(self) -> None:
        """Try again now and then, for as long as the service lives."""
        while True:
            await trio.sleep(EVERY_S)
            if self._behind or self._unforgotten:
                await self.catch_up()


def _safe(header: Header) -> Header:
    """A shadow that is offline is not to be shown as whole by a start without the bitmap volume."""
    if header.offline & Role.SHADOW and header.progress is Progress.IDLE:
        return replace(header, progress=Progress.TO_SHADOW)
    return header
