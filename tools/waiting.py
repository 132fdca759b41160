"""Waiting for running copies, with a progress bar on a terminal."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Self

from rich.markup import escape

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus

from . import bars

GLANCE_S: Final = 0.25
"""Seconds after which the service is asked again how far it is."""


@dataclass(frozen=True)
class Waited:
    """A set whose copy has ended, and the seconds that we waited for it."""

    row: SetStatus
    seconds: float

    @property
    def stopped(self) -> bool:
        """Was the copy aborted, or did it fail?"""
        return self.row.progress != "idle"


def for_copies(
    client: Client,
    rows: Sequence[SetStatus],
    began: float | None = None,
    until: float = float("inf"),
) -> list[Waited]:
    """Wait until no copy runs in these sets; those whose copies have ended, in their order.

    `began`: the time.monotonic() from which the seconds count; now without it. `until`: the one at
    which nobody waits any longer.
    """
    began = time.monotonic() if began is None else began
    names = tuple(row.shadow for row in rows)
    ended: dict[str, Waited] = {}
    with _Bars(rows) as shown:
        while True:
            seconds = time.monotonic() - began
            shown.show(rows)
            ended |= {row.shadow: Waited(row, seconds) for row in rows if not row.copying}
            running = tuple(name for name in names if name not in ended)
            if not running or time.monotonic() >= until:
                return [ended[name] for name in names if name in ended]
            # The service sleeps for us, and wakes us at once when the copies end.
            with suppress(errors.WaitTimedOut, errors.CopyStopped):
                client.notes(protocol.Wait(protocol.Target(running), GLANCE_S))
            rows = client.status(protocol.Target(running))


def watch(client: Client, target: protocol.Target, timeout: float | None) -> None:
    """Show bars until the copies of a target end, for `timeout` seconds at most.

    Where nobody sees them the service is asked nothing.
    """
    if not bars.seen():
        return
    until = time.monotonic() + (timeout if timeout is not None else float("inf"))
    for_copies(client, client.status(target), until=until)


class _Bars:
    """One bar for each running copy that has something to copy, where stderr is a terminal."""

    def __init__(self, rows: Sequence[SetStatus]) -> None:
        self._progress = bars.bars()
        self._tasks = {
            row.shadow: self._progress.add_task(escape(row.shadow), total=_total(row))
            for row in rows
            if row.copying and _total(row)
        }

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, rows: Sequence[SetStatus]) -> None:
        for row in rows:
            if row.shadow in self._tasks:
                task = self._tasks[row.shadow]
                total = _total(row)
                left = row.copy_bits * row.chunk_bytes
                self._progress.update(task, total=total, completed=max(0, total - left))


def _total(row: SetStatus) -> int:
    """Bytes to copy, from the first to the last."""
    chunks = row.copied_chunks + row.copy_bits
    return min(chunks * row.chunk_bytes, row.size_bytes)
