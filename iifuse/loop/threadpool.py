"""Pools of threads, some of which are started in advance.

The host may refuse new threads later: because of a limit on processes, or because no memory is
left. A call that gets no thread has not begun, so no volume is in doubt. It waits until a thread of
its pool is free. Each kind of call has a pool of its own. So calls that wait for each other (a verb
for a program's write, that write for a disk) never wait for each other's threads.
"""

import errno
import os
import threading
from collections import deque
from queue import SimpleQueue
from typing import Final, Protocol


class OutOfResources(OSError):
    """There was no thread or no memory for a call. The call has not begun and may be repeated."""

    def __init__(self, path: str | None = None, code: int = errno.EAGAIN) -> None:
        super().__init__(code, os.strerror(code), path)


NO_THREAD: Final = (RuntimeError, MemoryError)
"""What Python raises when a thread cannot be started."""


class Job(Protocol):
    """A call that a thread makes for the event loop."""

    def do(self) -> None:
        """Make the call. This runs in the thread and never raises."""

    def tell(self) -> None:
        """Tell the event loop that the call is done. This runs in the thread, after it is free."""


class ThreadPool:
    """Threads for calls of one kind.

    `kept` threads stay for ever. More are started when they are needed, and end when they are not.
    """

    def __init__(self, kept: int) -> None:
        self.kept: Final = kept
        self._idle: list[_Worker] = []
        """Threads that have nothing to do. The last one in the list gets the next job."""
        self._waiting: deque[Job] = deque()
        self._threads = 0
        self._ended = False
        self._lock = threading.Lock()

    def fill(self) -> None:
        """Start the threads that stay for ever. Raises OutOfResources."""
        while self._threads < self.kept:
            worker = self._begin()
            if worker is None:
                raise OutOfResources
            self._idle.append(worker)

    def end(self) -> None:
        """No job comes any more: each thread ends as soon as it has nothing to do."""
        self._ended = True
        while (worker := self._pop()) is not None:
            worker.jobs.put(None)

    def hand(self, job: Job) -> None:
        """Give a job to a thread. The job may have to wait until one is free.

        Raises OutOfResources when the pool has no thread and can start none.
        """
        worker = self._pop() or self._begin()
        if worker is None:
            with self._lock:  # else the last thread could become idle just now and miss the job
                worker = self._pop()
                if worker is None and not self._threads:
                    raise OutOfResources
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
        """A thread has done its job: give it the next one, or let it wait. This runs in the thread.

        False means that the pool does not need the thread any more.
        """
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

    def __init__(self, pool: ThreadPool) -> None:
        self._pool = pool
        self.jobs: SimpleQueue[Job | None] = SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        while self._do_one():
            pass

    def _do_one(self) -> bool:
        """Do the next job; False means that the thread has to end.

        This is a function of its own so that a thread which waits holds no reference to its last
        job. Such a reference would keep the bits of a set in memory that has been disabled.
        """
        job = self.jobs.get()
        if job is None:
            return False
        job.do()
        stays = self._pool.rest(self)  # before the event loop can send the next job
        job.tell()
        return stays
