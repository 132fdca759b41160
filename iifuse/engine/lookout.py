"""Look at paths in threads that are left alone when a file system does not answer."""

import threading
from collections.abc import Callable, Mapping
from typing import Final, Generic, TypeVar

import trio

from iifuse.engine import limits

PATIENCE_S: Final = 1.0
"""How long one path may take; then it is passed over until that look has ended."""

T = TypeVar("T")


class Lookout:
    """Remembers which paths do not answer, so that each keeps one thread at the most."""

    def __init__(self) -> None:
        self._stuck: set[str] = set()

    async def look(self, how: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """What each look has answered; a path that hangs is left out."""
        found: dict[str, T] = {}
        left = [(path, look) for path, look in how.items() if path not in self._stuck]
        while left:
            walk = _Walk(left, self._stuck)
            await walk.watch()
            found |= walk.found
            left = left[len(walk.found) + 1 :]
        return found


class _Walk(Generic[T]):
    """Looks at one path after the other, in a thread."""

    def __init__(self, looks: list[tuple[str, Callable[[], T]]], stuck: set[str]) -> None:
        self._looks, self._stuck = looks, stuck
        self.found: dict[str, T] = {}
        self._left_alone = False
        self._change = threading.Lock()

    async def watch(self) -> None:
        """Return when all are looked at, or one has taken too long."""
        async with trio.open_nursery() as nursery:
            ended = trio.Event()
            nursery.start_soon(self._walk, ended)
            while not ended.is_set():
                before = len(self.found)
                with limits.move_on_after(PATIENCE_S):
                    await ended.wait()
                if len(self.found) == before and not ended.is_set() and self._leave_alone():
                    nursery.cancel_scope.cancel()
                    return

    async def _walk(self, ended: trio.Event) -> None:
        limiter = trio.CapacityLimiter(1)  # one that hangs may not keep a thread from verbs
        await trio.to_thread.run_sync(self._run, abandon_on_cancel=True, limiter=limiter)
        ended.set()

    def _run(self) -> None:
        for path, look in self._looks:
            answer = look()
            with self._change:
                if self._left_alone:
                    self._stuck.discard(path)
                    return
                self.found[path] = answer

    def _leave_alone(self) -> bool:
        """False: it has just come to its end."""
        with self._change:
            if len(self.found) == len(self._looks):
                return False
            self._left_alone = True
            self._stuck.add(self._looks[len(self.found)][0])
            return True
