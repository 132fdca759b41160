"""Locks over runs of chunks of one master and all its shadows, and the gate (invariant 8).

The gate is a mode of this lock. Rejected: a separate gate. It would need a count of running writes
of its own, and an order between the gate and the locks of chunks.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Final

import trio

from iifuse.units import Run, stop_of

_EVERYTHING: Final = 1 << 62


class Mode(Enum):
    """What the holder of a lock does to its chunks.

    Several readers may hold the same chunk (READ). A writer excludes all others (WRITE). The gate
    (GATE) is for all chunks and excludes writers only: a reader sees what the view showed when it
    began, and no writer changes its chunks until it has ended.
    """

    READ = 1
    WRITE = 2
    GATE = 3


@dataclass(frozen=True, slots=True)
class ChunkLockStatistics:
    """How many requests hold a lock or wait for one. This is for tests and for finding defects."""

    held: int
    waiting: int
    gate_closed: bool


class _Request:
    __slots__ = ("first", "granted", "mode", "stop")

    def __init__(self, mode: Mode, first: int, stop: int) -> None:
        self.mode, self.first, self.stop = mode, first, stop
        self.granted: trio.Event | None = None  # made only when the request has to wait

    def conflicts(self, mode: Mode, first: int, stop: int) -> bool:
        if first >= self.stop or stop <= self.first:
            return False
        if self.mode is Mode.WRITE or mode is Mode.WRITE:
            return True
        return self.mode is Mode.GATE and mode is Mode.GATE

    def waits_for(self, earlier: "_Request") -> bool:
        return earlier.conflicts(self.mode, self.first, self.stop)

    def grant(self) -> None:
        if self.granted is not None:
            self.granted.set()


class _Scattered(_Request):
    """A request for several runs, ascending.

    It has a class of its own, because a request for one run, as every write makes it, is tested
    faster.
    """

    __slots__ = ("runs",)

    def __init__(self, mode: Mode, runs: Sequence[Run]) -> None:
        super().__init__(mode, runs[0][0], stop_of(runs[-1]))
        self.runs = runs

    def conflicts(self, mode: Mode, first: int, stop: int) -> bool:
        if not super().conflicts(mode, first, stop):
            return False
        at = bisect_right(self.runs, first, key=stop_of)  # the first run that ends after `first`
        return at < len(self.runs) and self.runs[at][0] < stop

    def waits_for(self, earlier: _Request) -> bool:
        if not super().waits_for(earlier):
            return False
        return any(earlier.conflicts(self.mode, at, at + count) for at, count in self.runs)


class ChunkLocks:
    """The locks of one family. A request waits for every earlier one that conflicts with it.

    A request is for all its runs at once, so two requests never wait for each other. The gate is a
    request for all chunks: it waits until running writes have ended, and holds later ones.
    """

    def __init__(self) -> None:
        self._requests: list[_Request] = []  # by arrival, granted and waiting

    def free(self, mode: Mode, first: int, count: int) -> bool:
        """Would a request be granted at once? Work without an await needs no lock then."""
        if not self._requests:
            return True
        stop = first + count
        return not any(r.conflicts(mode, first, stop) for r in self._requests)

    def hold(self, mode: Mode, first: int, count: int) -> "Held":
        """`async with locks.hold(...)`: hold chunks `first` to `first + count - 1`."""
        return Held(self, _Request(mode, first, first + count))

    def hold_runs(self, mode: Mode, runs: Sequence[Run]) -> "Held":
        """Hold one or more runs, ascending, and nothing of what is between them."""
        return Held(self, _Scattered(mode, runs))

    def gate(self) -> "Held":
        """`async with locks.gate()`: inside, no write runs and none begins."""
        return Held(self, _Request(Mode.GATE, 0, _EVERYTHING))

    def everything(self) -> "Held":
        """`async with locks.everything()`: inside, nothing is read or written."""
        return Held(self, _Request(Mode.WRITE, 0, _EVERYTHING))

    def statistics(self) -> ChunkLockStatistics:
        """How many requests hold a lock or wait for one at this moment."""
        every = range(len(self._requests))
        held = len([index for index in every if self._first_come(index)])
        gate = any(r.mode is Mode.GATE for r in self._requests)
        return ChunkLockStatistics(held, len(self._requests) - held, gate)

    def _first_come(self, index: int) -> bool:
        request = self._requests[index]
        return not any(request.waits_for(earlier) for earlier in self._requests[:index])

    async def _acquire(self, request: _Request) -> None:
        self._requests.append(request)
        if self._first_come(len(self._requests) - 1):
            return
        request.granted = trio.Event()
        try:
            await request.granted.wait()
        except BaseException:
            self._release(request)
            raise

    def _release(self, request: _Request) -> None:
        """Remove a request, and grant the later ones that have waited for it and for no other."""
        place = self._requests.index(request)
        del self._requests[place]
        for index, waiting in enumerate(self._requests[place:], place):
            if waiting.waits_for(request) and self._first_come(index):
                waiting.grant()


class Held:
    """A request as an asynchronous context manager."""

    __slots__ = ("_locks", "_request")

    def __init__(self, locks: ChunkLocks, request: _Request) -> None:
        self._locks, self._request = locks, request

    async def __aenter__(self) -> None:
        await self._locks._acquire(self._request)  # noqa: SLF001 - one primitive in two classes

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._locks._release(self._request)  # noqa: SLF001
