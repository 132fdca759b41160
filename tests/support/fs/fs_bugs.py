"""Defects to plant into the real service, one at a time; each forgets what was answered.

As a program: fs_bugs.py BUG OPTION... runs the service with one of them.
"""

import os
import re
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from iifuse import service
from iifuse.host import tickets
from iifuse.store import files, volume
from iifuse.store.headerlog import HeaderLog
from iifuse.store.statedb import StateDB
from iifuse.verbs import giveup


@dataclass(frozen=True)
class FsBug:
    """`scenario`: where to look for it. `says`: what the explorer finds, as a pattern."""

    plant: Callable[[], None]
    scenario: str
    says: str


BUGS: dict[str, FsBug] = {}


def _bug(name: str, scenario: str, says: str) -> Callable[[Callable[[], None]], None]:
    def add(plant: Callable[[], None]) -> None:
        BUGS[name] = FsBug(plant, scenario, says)

    return add


@_bug("SQLite FULL", "fault-ind-any-bitmap", r"offline is set\(\)|differ with all bits")
def _() -> None:
    """With a journal that is removed, FULL leaves the removal to chance."""

    class Forgetful(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            statement = re.sub(r"(synchronous)=\w+", r"\1=FULL", statement)
            return super().execute(re.sub(r"(journal_mode)=\w+", r"\1=DELETE", statement), *values)

    real = sqlite3.connect
    sqlite3.connect = lambda *words, **options: real(*words, factory=Forgetful, **options)  # type: ignore[assignment]


@_bug("a directory not synced", "enable", r"offline is \{|is not there any more")
def _() -> None:
    """Bitmap and shadow are there, and their names are not."""
    files.sync_directory = lambda path: None


@_bug("a ticket not synced", "lend", r"the ticket .* has another content")
def _() -> None:
    def write_file(path: str, blob: bytes) -> None:
        with open(f"{path}.new", "wb") as file:
            file.write(blob)
        os.rename(f"{path}.new", path)
        files.sync_directory(path)

    tickets.write_file = write_file  # type: ignore[assignment]


@_bug("a note before its fallback", "fault-ind-any-bitmap", r"offline is|differ with all bits")
def _() -> None:
    """The set is offline for everybody, and the state database hears of it later."""
    real = HeaderLog.note_elsewhere

    def note(self: HeaderLog, reason: str) -> None:
        threading.Timer(0.1, real, (self, reason)).start()

    HeaderLog.note_elsewhere = note  # type: ignore[method-assign]


@_bug("a doubt forgotten", "fault-dep-any-bitmap", r"offline is|\(chunk \d")
def _() -> None:
    """A bitmap that cannot be written is believed at the next start."""
    StateDB.doubt = lambda self, shadow, reason: None  # type: ignore[method-assign]


@_bug("one sync for all", "writers", r"expected \[|differ with all|the same times")
def _() -> None:
    """Who syncs while another file is synced goes on at once; one writer alone never sees it."""
    real, running = volume.Volume.sync, threading.Lock()

    def sync(self: volume.Volume) -> None:
        if running.acquire(blocking=False):
            try:
                real(self)
                time.sleep(0.01)
            finally:
                running.release()

    volume.Volume.sync = sync  # type: ignore[method-assign]


@_bug("a device not synced", "devices", r"expected \[|differ with all|something else|same times")
def _() -> None:
    real = volume.Volume.sync

    def sync(self: volume.Volume) -> None:
        if not self.is_device or self.path.endswith(".b"):
            real(self)

    volume.Volume.sync = sync  # type: ignore[method-assign]


@_bug("a give-up not synced", "give_up-ind", r"given up|the bits on disk say|expected \[")
def _() -> None:
    real = giveup.give_up

    async def give_up(*words: Any, **options: Any) -> list[str]:
        with patch.object(volume.Volume, "sync", lambda self: None):
            return await real(*words, **options)

    giveup.give_up = give_up


if __name__ == "__main__":
    BUGS[sys.argv.pop(1)].plant()
    sys.exit(service.main())
