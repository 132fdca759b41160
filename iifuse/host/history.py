"""The history of sets, volumes and the service. Events are collected here, and then written.

The history decides nothing, and a failure of it fails nothing else. A verb waits until its event is
durable. Other events often happen in the middle of a write, which must not wait: they are written a
moment later.
"""

import logging
import time
from collections import deque
from functools import partial
from typing import Any, Final

import trio

from iifuse import errors
from iifuse.core.event import SERVICE, Event, timestamp
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import Header
from iifuse.loop.loop import Loop
from iifuse.store.historyrows import DAYS_MAX
from iifuse.store.statedb import StateDB

log = logging.getLogger(__name__)

LINES_MAX: Final = 1000
"""The most events that wait to be written. If the disk takes none, the oldest are lost."""
STEP_S: Final = 0.1
"""Seconds between two steps that remove old rows, so that verbs can use the database."""
EVERY_S: Final = 3600.0
_DAY_S: Final = 86_400


class History:
    """The events that wait to be written to the state database."""

    def __init__(self, db: StateDB, loop: Loop) -> None:
        self._db, self._loop = db, loop
        self._waiting: deque[Event] = deque(maxlen=LINES_MAX)
        self._news = trio.Event()
        self._writing = trio.Lock()

    def tell(self, header: Header | None, what: str, **more: Any) -> None:
        """Add an event of a set, or (None) of the service. `more`: further fields of Event."""
        if header is not None:
            if header.pit.number:  # 0: the bitmap volume is missing, so the number is not known
                more = {"pit": header.pit.number, "pit_id": header.pit.id, **more}
            if more.get("chunks") is not None:
                more["bytes"] = min(more["chunks"] * CHUNK_BYTES, header.size_bytes)
        self._add(header.shadow if header is not None else SERVICE, what, more)

    def tell_of(self, path: str, what: str, **more: Any) -> None:
        """Add an event of a volume that belongs to no set."""
        self._add(path, what, more)

    def _add(self, subject: str, what: str, more: dict[str, Any]) -> None:
        self._waiting.append(Event(timestamp(time.time()), subject, what, **more))
        self._news.set()

    async def note(self) -> None:
        """Write the events that wait. At the return they are durable, or a failure is logged."""
        async with self._writing:
            lines = list(self._waiting)
            self._waiting.clear()
            self._news = trio.Event()
            if not lines:
                return
            try:
                await self._loop.blocking(partial(self._db.record, lines))
            except errors.StorageError as error:
                told = ", ".join(f"'{e.what}' of {e.subject or 'the service'}" for e in lines)
                log.warning("the history will not have %s: %s", told, error)

    async def keep_up(self) -> None:
        """Write events that no verb waits for, as long as the service runs."""
        while True:
            await self._news.wait()
            await self.note()

    async def keep_short(self) -> None:
        """Remove old rows now and then, a few at a time, as long as the service runs."""
        while True:
            try:
                more = await self._loop.blocking(partial(self._db.prune, _oldest()))
            except errors.StorageError as error:
                log.warning("the history is not shortened: %s", error)
                more = False
            await trio.sleep(STEP_S if more else EVERY_S)


def _oldest() -> str:
    return timestamp(time.time() - DAYS_MAX * _DAY_S)
