"""Threads that are there when none can be started: a limit on processes, or no memory left.

A call that finds no thread has not begun, so nobody is to blame and no volume is in doubt. It waits
for a thread that is there already. Each kind of call has threads of its own that stay, so that
calls which wait for one another (a verb for a program's write, that write for a disk) never wait
for one another's threads.
"""

import errno
import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import Final, Protocol


class Starved(OSError):
    """A call for which there was no thread or no memory: it may be asked for again."""

    def __init__(self, path: str | None = None, code: int = errno.EAGAIN) -> None:
        super().__init__(code, os.strerror(code), path)


NO_THREAD: Final = (RuntimeError, MemoryError)
"""What Python raises when a thread cannot be started."""


class Job(Protocol):
    """A call on its way to a thread and back."""

    def do(self) -> None:
        """In the thread; never raises."""

    def tell(self) -> None:
        """In the thread, when it is free for the next job."""


class Crew:
    """Threads for calls of one kind: `kept` of them stay, more come as they are needed."""

    def __init__(self, kept: int) -> None:
        self.kept: Final = kept
        self._idle: list[_Worker] = []
        """Those that have nothing to do; the last one is the next."""
        self._waiting: deque[Job] = deque()
        self._threads = 0
        self._ended = False
        self._lock = threading.Lock()

    def fill(self) -> None:
        """Start the threads that stay. Raises Starved."""
        while self._threads < self.kept:
            worker = self._begin()
            if worker is None:
                raise Starved
            self._idle.append(worker)

    def end(self) -> None:
        """Nobody comes any more: threads end when they have nothing to do."""
        self._ended = True
        while (worker := self._pop()) is not None:
            worker.jobs.put(None)

    def hand(self, job: Job) -> None:
        """Give a job to a thread, which may have to finish another one first. Raises Starved."""
        worker = self._pop() or self._begin()
        if worker is None:
            with self._lock:  # or the last of them rests just now, and nobody looks any more
                worker = self._pop()
                if worker is None and not self._threads:
                    raise Starved
                if worker is None:
                    self._waiting.append(job)
                    return
        worker.jobs.put(job)

    def _pop(self) -> "_Worker | None":
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _begin(self) -> "_Worker | None":
        try:
            worker = _Worker(self)
        except NO_THREAD:
            return None
        with self._lock:
            self._threads += 1
        return worker

    def rest(self, worker: "_Worker") -> bool:
        """In a thread that has done its job. False: it is not needed any more."""
        with self._lock:
            if self._waiting:
                worker.jobs.put(self._waiting.popleft())
            elif self._ended or len(self._idle) >= self.kept:
                self._threads -= 1
                return False
            else:
                self._idle.append(worker)
        return True


class _Worker:
    """A thread that waits for jobs."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while self._do_one():
            pass

    def _do_one(self) -> bool:
        """Nothing of a job stays with a thread that waits for the next: a set may be disabled."""
        job = self.jobs.get()
        if job is None:
            return False
        job.do()
        stays = self._crew.rest(self)  # before the next job can come
        job.tell()
        return stays
