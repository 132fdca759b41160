"""Waits for running copies, with a progress bar on a terminal."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Final

from iifuse import errors, terminal
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus

GLANCE_S: Final = 0.25
"""Seconds after which the service is asked again how far the copies are."""

Show = Callable[[Sequence[SetStatus]], None]
"""Shows how far the copies of some sets are."""


@dataclass(frozen=True)
class Waited:
    """A set whose copy has ended, and how many seconds that has taken."""

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
    """Wait until no copy of these sets runs. Returns the sets whose copies have ended.

    `began`: the time.monotonic() from which seconds are counted; None: now. `until`: the
    time.monotonic() at which this stops waiting.
    """
    began = time.monotonic() if began is None else began
    names = tuple(row.shadow for row in rows)
    ended: dict[str, Waited] = {}
    with _bars(rows) as show:
        while True:
            seconds = time.monotonic() - began
            show(rows)
            ended |= {row.shadow: Waited(row, seconds) for row in rows if not row.copying}
            running = tuple(name for name in names if name not in ended)
            if not running or time.monotonic() >= until:
                return [ended[name] for name in names if name in ended]
            # The service answers at once when the copies end, and otherwise after GLANCE_S.
            with suppress(errors.WaitTimedOut, errors.CopyStopped):
                client.notes(protocol.Wait(protocol.Target(running), GLANCE_S))
            rows = client.status(protocol.Target(running))


def watch(client: Client, target: protocol.Target, timeout: float | None) -> None:
    """Show bars until the copies of a target end, for `timeout` seconds at most.

    Without a terminal there are no bars, and the service is not asked.
    """
    if not terminal.is_seen(sys.stderr):
        return
    until = time.monotonic() + (timeout if timeout is not None else float("inf"))
    for_copies(client, client.status(target), until=until)


def _bars(rows: Sequence[SetStatus]) -> AbstractContextManager[Show]:
    """A display of bars. Without a terminal it shows nothing."""
    if not terminal.is_seen(sys.stderr):
        return nullcontext(lambda _: None)
    from . import bars  # noqa: PLC0415 - rich takes a third of the time of a short command

    return bars.of_copies(rows)
