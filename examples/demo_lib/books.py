"""Is the database what it should be?"""

import os
import sqlite3
from contextlib import closing

from . import ledger
from .hosts import Host
from .play import Play
from .stage import Untrue

COUNT = "SELECT count(*) FROM entry"
NOTE = "$D/note"


def checkpoint(play: Play) -> None:
    """Have SQLite bring its log home. A writer may be quicker, so more than once if need be."""
    command = "sqlite3 -cmd '.timeout 5000' $DATA/bank.db 'PRAGMA wal_checkpoint(TRUNCATE)'"
    for _ in range(5):
        if play.app.type(command).startswith("0|"):
            return
    raise Untrue("SQLite writes a checkpoint", "it was busy five times")


def count_frozen(play: Play) -> int:
    """Entries in the books on a frozen file system.

    SQLite cannot open them there, since a reader writes to the file of the locks. A copy of
    database and log is what a shadow will show as well.
    """
    note = play.site.path(NOTE)
    os.makedirs(note, exist_ok=True)
    for name in os.listdir(note):
        os.unlink(f"{note}/{name}")
    play.app.type(f"cp $DATA/bank.db $DATA/bank.db-wal {NOTE}/")
    return count(play.app, f"{NOTE}/bank.db")


def count(host: Host, path: str) -> int:
    """Entries in the books."""
    return int(host.type(f"sqlite3 -cmd '.timeout 5000' {path} '{COUNT}'", show=True))


def check(play: Play, host: Host, path: str, entries: int) -> None:
    """Claim that the books are whole and hold so many entries."""
    claim = play.stage.claim
    said = host.type(f"sqlite3 {path} 'PRAGMA integrity_check'", show=True)
    claim(said == "ok", "SQLite finds the database sound", said)
    found = count(host, path)
    claim(found == entries, f"it holds {entries:,} entries, as many as it should", str(found))
    with closing(sqlite3.connect(play.site.path(path))) as database:
        truths = database.execute(ledger.TRUTHS).fetchone()
    right = truths == (entries, entries, 0, 0)
    claim(right, "no transaction is missing or half there; every balance adds up", str(truths))


def acknowledged(play: Play) -> int:
    """Entries that SQLite has promised to keep, as the program that writes them says."""
    with open(play.site.path("$D/acknowledged")) as file:
        return int(file.read() or 0)
