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

from .bars import bars

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
    client: Client, rows: Sequence[SetStatus], began: float | None = None
) -> list[Waited]:
    """Wait until no copy runs in these sets; in their order.

    `began`: the time.monotonic() from which the seconds count; now without it.
    """
    began = time.monotonic() if began is None else began
    names = tuple(row.shadow for row in rows)
    ended: dict[str, Waited] = {}
    with _Bars(rows) as bars:
        while True:
            seconds = time.monotonic() - began
            bars.show(rows)
            ended |= {row.shadow: Waited(row, seconds) for row in rows if not row.copying}
            running = tuple(name for name in names if name not in ended)
            if not running:
                return [ended[name] for name in names]
            # The service sleeps for us, and wakes us at once when the copies end.
            with suppress(errors.WaitTimedOut, errors.CopyStopped):
                client.notes(protocol.Wait(protocol.Target(running), GLANCE_S))
            rows = client.status(protocol.Target(running))


class _Bars:
    """One bar for each running copy; nothing where stderr is no terminal."""

    def __init__(self, rows: Sequence[SetStatus]) -> None:
        self._progress = bars()
        self._tasks = {
            row.shadow: self._progress.add_task(escape(row.shadow), total=_total(row))
            for row in rows
            if row.copying
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
                done = row.copied_chunks if row.copy_bits else total  # also with nothing to copy
                self._progress.update(task, total=total, completed=done)


def _total(row: SetStatus) -> int:
    return row.copied_chunks + row.copy_bits or 1
