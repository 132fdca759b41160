"""What the state database is told about sets, and when.

If a bitmap volume is missing at a start, the database decides what may be shown: which sets there
are, whether a copy runs, whether a shadow is exported. So this is noted before a verb changes
anything (`announce`, `enter`). If the state directory takes no notes, the verb is refused. After a
crash in between, the row says more than the header ("perhaps exported"), which is safe to believe.
A start forgets the row of a new set whose header was never written. In the other order a crash
could leave a bitmap that nobody knows, or half an import.

How the verb has ended is noted after the header (`remember`). If that fails, it is tried again, and
until then the row says more than the header. The history is kept elsewhere (`history`).
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
"""Seconds after which a note that has failed is tried again."""

Coming = Mapping[VolumeSet, tuple[Progress, Custody] | None]
"""What the headers of sets are about to say; None: nothing that a start has to know."""


class Notes:
    """Writes the notes on sets into the state database. Nothing else does."""

    def __init__(self, db: StateDB, loop: Loop) -> None:
        self.db, self._loop = db, loop
        self._behind: dict[str, Header] = {}
        """Path of a shadow -> a header that the database does not know yet."""
        self._unforgotten: set[str] = set()
        """Sets that do not exist any more and are still in the database."""
        self._coming: set[str] = set()
        """Sets for which a verb has announced what their headers will say."""
        self._postponed: set[str] = set()
        """Sets of `_coming` about which there was something else to note meanwhile."""
        self._told: set[str] = set()
        """Sets for which the log says already that their notes have failed."""
        self._lock = threading.RLock()
        """Held during a note, so that of two notes on a set the newer one is written last."""

    # -- which sets there are, in a thread ----------------------------------------------------

    def enter(self, row: SetRow) -> None:
        """Put a set into the database. Blocks; raises StorageError."""
        with self._lock:
            self._forget_all()
            self.db.add_set(row)

    def forget(self, name: str) -> None:
        """Take a set out of the database. If that fails, it is tried again later.

        Blocks; raises StorageError.
        """
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
        """Put a set into the database while its bitmap volume is written; remove it after an error.

        Raises StorageError before the bitmap volume is touched.
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
        """Note what a verb is about to do, before it changes anything. An error takes it back.

        Raises StorageError; then the verb has to be refused.
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
        """Note what the header says now. Without a bitmap volume the header does not count.

        If a copy ends while a verb is about to change the header, this must not undo what the verb
        has announced. Then the note is made when the verb has ended.
        """
        if member.name in self._coming:
            self._postponed.add(member.name)
        elif member.bitmap is not None:
            self._behind[member.name] = _safe(member.header)
            await self.catch_up()

    async def copy_is_done(self, member: VolumeSet) -> None:
        """Note that a copy is complete, before the header says so.

        Here the row says less than the header for a moment. Otherwise a start without the bitmap
        volume would repeat a complete restore, and overwrite what was written since.
        """
        idle = {member.name: (Progress.IDLE, member.header.custody)}
        with suppress(errors.StorageError):  # then the row says more until it is noted later
            await self._loop.blocking(partial(self.db.announce, idle))

    async def catch_up(self) -> None:
        """Make the notes that have failed before. A failure is logged once for each set."""
        try:
            await self._loop.blocking(self._catch_up)
        except errors.StorageError as error:
            new = self.behind() - self._told
            if new:
                log.error("what became of %s is noted later: %s", ", ".join(sorted(new)), error)  # noqa: TRY400
            self._told |= new
        else:
            self._told.clear()

    def behind(self) -> set[str]:
        """The sets for which the state database is not up to date."""
        return {*self._behind, *self._unforgotten}

    def _catch_up(self) -> None:
        with self._lock:
            self._forget_all()
            for name, header in list(self._behind.items()):
                self.db.remember(header)
                if self._behind.get(name) is header:
                    del self._behind[name]

    async def keep_up(self) -> None:
        """Try failed notes again now and then, as long as the service runs."""
        while True:
            await trio.sleep(EVERY_S)
            if self._behind or self._unforgotten:
                await self.catch_up()


def _safe(header: Header) -> Header:
    """The header to note. A start without the bitmap volume must not show an offline shadow."""
    if header.offline & Role.SHADOW and header.progress is Progress.IDLE:
        return replace(header, progress=Progress.TO_SHADOW)
    return header
