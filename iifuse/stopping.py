"""How the service is told to stop, and what it does from then on until it unmounts."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final, NoReturn

import trio

from iifuse import errors
from iifuse.data.view import View
from iifuse.fuse.session import Mount
from iifuse.host.instance import Instance
from iifuse.store.holders import named, ways_out

log = logging.getLogger("iifuse")

LAST_S: Final = 5.0
"""Seconds that a stop may take beyond `stop_wait`."""

VERBS_S: Final = 2.0
"""Seconds for which verbs that run are waited for at the end."""

ARRIVE_S: Final = 5.0
"""Seconds at least for what programs have written to mapped files; else as many as `stop_wait`."""

REQUESTS_S: Final = 1.0
"""Seconds for which the kernel's requests are waited for, when no more of them come."""

SAVE_S: Final = 2.0
"""Seconds that everything has to be saved in, however late it is."""

LET_GO_S: Final = 1.0
"""Seconds in which what nobody waits for is closed, when something does not answer at the end."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def hold_back() -> None:
    """Signals wait from now on until somebody listens: a start is stopped in order too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


@contextmanager
def listening() -> Iterator[AsyncIterator[int]]:
    """The signals that come. After this they do nothing: the service ends as it is."""
    early = signal.sigpending() & set(_SIGNALS)  # which SIG_IGN throws away
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        for number in early:
            signal.raise_signal(number)
        yield signals


def end(code: int) -> NoReturn:
    """End the process, without the interpreter's own end.

    That takes the handlers off first, and a signal that comes then would be the end instead. It
    would wait for a log that nobody reads, too.
    """
    os._exit(code)


async def told(signals: AsyncIterator[int]) -> None:
    """Return when the service is told to stop. A terminal that is closed does not mean that."""
    async for number in signals:
        if number != signal.SIGHUP:
            return
        log.info("the terminal was closed (SIGHUP); the service goes on")


async def close(instance: Instance) -> bool:
    """Let no verb begin any more, and wait for those that run. False: one hangs (K8)."""
    with instance.loop.limits.move_on_after(VERBS_S) as waiting:
        await instance.verb_locks.close()
    if waiting.cancelled_caught:
        log.error("a verb does not come to its end, and is cut off as by a crash")
    return not waiting.cancelled_caught


async def prepare(
    instance: Instance, mount: Mount, stop_wait: float, signals: AsyncIterator[int]
) -> bool:
    """Wait for open files, name who holds them, and let their dirty pages arrive.

    `stop_wait`: in seconds; a second signal ends the waiting. Returns whether all files were
    closed.
    """
    views = list(instance.views.values())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_hurry, signals, nursery.cancel_scope)
        with instance.loop.limits.move_on_after(stop_wait):
            await _wait(mount, views, stop_wait)
        nursery.cancel_scope.cancel()
    still = [view for view in views if view.opens]
    for view in still:
        who = await _holders(mount, view)
        log.warning("%s: still open at the end, unmounted all the same: %s", view.path, who)
    async with trio.open_nursery() as nursery:  # so that one that hangs takes no time of others
        for view in views:
            nursery.start_soon(_let_arrive, mount, view, max(stop_wait, ARRIVE_S))
    return not still


async def _let_arrive(mount: Mount, view: View, limit_s: float) -> None:
    try:
        await view.loop.blocking(partial(mount.sync_mounted, [view], limit_s))
    except (OSError, errors.ServiceError) as error:
        log.error("what programs have written to mapped files may be lost: %s", error)  # noqa: TRY400


async def _hurry(signals: AsyncIterator[int], waiting: trio.CancelScope) -> None:
    await told(signals)
    log.info("told to stop once more: open files are waited for no longer")
    waiting.cancel()


async def _wait(mount: Mount, views: list[View], seconds: float) -> None:
    for view in views:
        if view.opens:
            who = await _holders(mount, view)
            log.warning("%s: waiting up to %g s for %s", view.path, seconds, who)
        await view.wait_closed(float("inf"))


async def _holders(mount: Mount, view: View) -> str:
    """Who has it open, and what ends that."""
    found = await view.loop.blocking(partial(mount.holders, view))
    return "; ".join((named(found), ways_out(found))) if found else "open handles"
