"""The applications come to rest: everything that they wrote is in the volumes."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import books, chunks
from .hosts import wait_until
from .places import VOLUMES
from .play import Play, Rest, is_stopped


@dataclass
class Hold:
    """What was found while nothing could write."""

    rest: Rest
    began: float
    looked_s: float
    """Time that the demonstration itself took for its notes."""


@contextmanager
def at_rest(play: Play) -> Iterator[Hold]:
    """Stop the program on the raw volumes, bring SQLite's log home, freeze the file system."""
    database, raw = play.programs()
    play.app.type(f"kill -STOP {raw.process.pid}   # {raw.name}")
    try:
        wait_until(lambda: is_stopped(raw), "the program stops", 10)
        books.checkpoint(play)
        with play.frozen("$DATA"):
            hold = _look(play)
            yield hold
            database.check()
    finally:
        raw.process.send_signal(signal.SIGCONT)
    held = time.monotonic() - hold.began
    play.stage.remark(
        f"writes were held for {held:.2f} s, {hold.looked_s:.2f} s of them "
        "for the notes that the checks need"
    )


def _look(play: Play) -> Hold:
    """Note what the masters hold now."""
    began = time.monotonic()
    entries = books.count_frozen(play)
    promised = books.acknowledged(play)
    play.stage.claim(
        promised <= entries <= promised + 2,
        f"noted: {entries:,} entries, with all that SQLite has acknowledged",
        f"it acknowledged {promised}",
    )
    images = {volume: chunks.image(play.site.master(volume)) for volume in VOLUMES}
    return Hold(Rest(images, entries), began, time.monotonic() - began)
