"""Looks at paths in threads. A thread is left behind when a file system does not answer.

A failure concerns only its own path or set: it is logged once, and the others are looked at.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Generic, TypeVar, cast

import outcome
import trio

from iifuse import errors
from iifuse.loop.loop import Loop, TrackedCall

log = logging.getLogger(__name__)

PATIENCE_S: Final = 1.0
"""How long a look at one path may take, in seconds. After that the path is left out until the look
has ended."""

ANSWER_S: Final = 5.0
"""How long somebody waits for the first answer of a volume while others could go on."""

PATIENT_S: Final = 20.0
"""The same for a verb, which has to look at more than one volume."""

BULK_S: Final = 60.0
"""How long a volume that has answered may take for what takes time: to sync what a killed service
has written, to read and check the bits of a large bitmap volume."""

TOLD_MAX: Final = 4096
"""The most failures that are remembered. New sets bring new paths, so there must be a bound."""

T = TypeVar("T")


class Silent:
    """Paths that have not answered, each once for every call that still waits there."""

    def __init__(self) -> None:
        self._waiting: Counter[str] = Counter()
        self._change = threading.Lock()

    def __contains__(self, path: str) -> bool:
        return self._waiting[path] > 0

    def paths(self) -> list[str]:
        """All of them, sorted."""
        with self._change:
            return sorted(path for path, calls in self._waiting.items() if calls > 0)

    def add(self, path: str) -> None:
        """One more call waits there."""
        with self._change:
            self._waiting[path] += 1

    def discard(self, path: str) -> None:
        """One of them has come to its end."""
        with self._change:
            self._waiting[path] -= 1
            if self._waiting[path] <= 0:
                del self._waiting[path]


class Lookout:
    """Remembers which paths do not answer, so that each of them occupies one thread at the most."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._stuck = Silent()
        self._told: dict[tuple[str, str], str] = {}
        """(name, what was tried) -> why it failed last time."""

    @contextmanager
    def apart(self, name: str, what: str) -> Iterator[None]:
        """Log what fails inside, once, and go on. `what` says what was tried with `name`."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the others have to be looked at
            self._tell(name, what, error)
        else:
            self._told.pop((name, what), None)

    def _tell(self, name: str, what: str, error: Exception) -> None:
        if self._told.get((name, what)) == repr(error):
            return
        if len(self._told) >= TOLD_MAX:
            del self._told[next(iter(self._told))]
        self._told[name, what] = repr(error)
        known = isinstance(error, errors.IifuseError | OSError)
        log.error("%s: %s failed: %s", name, what, error, exc_info=None if known else error)

    @property
    def silent(self) -> list[str]:
        """The paths that have not answered and are still waited for, each in a thread."""
        return self._stuck.paths()

    async def ask(
        self, path: str, call: Callable[[], T],
        undo: Callable[[T], object] = lambda _: None, limit_s: float = ANSWER_S,
    ) -> T:
        """What a call answers that may hang at this path. Raises NoAnswer, and what it raises.

        A call that is too late is left alone in its thread, which undoes what it still brings.
        Until then nobody asks at that path again.
        """  # fmt: skip
        if path in self._stuck:
            raise _no_answer(path, "still does not answer")
        question = _Question(call, undo, lambda: self._stuck.discard(path))
        with trio.CancelScope(shield=True), self._loop.limits.move_on_after(limit_s):
            await self._loop.blocking_abandonable(TrackedCall(question), trio.CapacityLimiter(1))
        if question.leave_alone(lambda: self._stuck.add(path)):
            raise _no_answer(path, f"has not answered within {limit_s:g} s")
        return question.answer()

    async def look(self, how: Mapping[str, Callable[[], T]]) -> dict[str, T]:
        """Make the looks of `how`, by path. Returns what they answered.

        A path that hangs, or whose look fails, is left out.
        """
        found: dict[str, T] = {}
        left = [(path, look) for path, look in how.items() if path not in self._stuck]
        while left:
            walk = _Walk(self._loop, left, self._stuck)
            await walk.watch()
            found |= walk.found
            for path, _ in left[: walk.done]:
                with self.apart(path, "the look at its path"):
                    if path in walk.failed:
                        raise walk.failed[path]
            left = left[walk.done + 1 :]
        return found


def _no_answer(path: str, how: str) -> errors.NoAnswer:
    return errors.NoAnswer(path, how, "see whether its disk or its file server is well")


class _Question(Generic[T]):
    """A call in a thread. Whoever does not wait for its end leaves it to undo what it brings."""

    def __init__(
        self, call: Callable[[], T], undo: Callable[[T], object], ended: Callable[[], object]
    ) -> None:
        self._call, self._undo, self._ended = call, undo, ended
        self._left_alone, self._change = False, threading.Lock()
        self._answer: outcome.Outcome[T] | None = None

    def __call__(self) -> None:
        """In the thread. One for which no thread was found in time is not made any more."""
        with self._change:
            if self._left_alone:
                self._ended()
                return
        answer = outcome.capture(self._call)
        with self._change:
            if not self._left_alone:
                self._answer = answer
                return
        try:
            if isinstance(answer, outcome.Value):
                self._undo(answer.value)
        finally:
            self._ended()  # not before: what it has opened is in the way of the next who asks

    def leave_alone(self, silent: Callable[[], object]) -> bool:
        """False: it has come to its end. `silent` is called before anybody can notice that."""
        with self._change:
            self._left_alone = self._answer is None
            if self._left_alone:
                silent()
            return self._left_alone

    def answer(self) -> T:
        """What it has returned, or raised."""
        assert self._answer is not None
        return self._answer.unwrap()


class _Walk(Generic[T]):
    """Looks at one path after the other in a thread."""

    def __init__(
        self, loop: Loop, looks: list[tuple[str, Callable[[], T]]], stuck: Silent
    ) -> None:
        self._loop, self._looks, self._stuck = loop, looks, stuck
        self.found: dict[str, T] = {}
        self.failed: dict[str, Exception] = {}
        self._left_alone = False
        self._change = threading.Lock()

    @property
    def done(self) -> int:
        """How many of the looks have ended."""
        return len(self.found) + len(self.failed)

    async def watch(self) -> None:
        """Return when all looks have ended, or when one takes too long."""
        async with trio.open_nursery() as nursery:
            ended = trio.Event()
            nursery.start_soon(self._walk, ended)
            while not ended.is_set():
                before = self.done
                with self._loop.limits.move_on_after(PATIENCE_S):
                    await ended.wait()
                if self.done == before and not ended.is_set() and self._leave_alone():
                    nursery.cancel_scope.cancel()
                    return

    async def _walk(self, ended: trio.Event) -> None:
        limiter = trio.CapacityLimiter(1)  # a look that hangs must not take a thread from verbs
        await trio.to_thread.run_sync(self._run, abandon_on_cancel=True, limiter=limiter)
        ended.set()

    def _run(self) -> None:
        for path, look in self._looks:
            answer, error = _try(look)
            with self._change:
                if self._left_alone:
                    self._stuck.discard(path)
                    return
                if error is not None:
                    self.failed[path] = error
                else:
                    self.found[path] = cast("T", answer)

    def _leave_alone(self) -> bool:
        """Give up waiting for the walk. False means that it has just ended."""
        with self._change:
            if self.done == len(self._looks):
                return False
            self._left_alone = True
            self._stuck.add(self._looks[self.done][0])
            return True


def _try(look: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return look(), None
    except Exception as error:  # noqa: BLE001 - raised where the look is waited for
        return None, error
