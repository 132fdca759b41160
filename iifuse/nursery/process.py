"""The process itself: it forks a child for each request, and kills those that nobody waits for.

It reads no request: the service sends one end of a pair of sockets, and the child that gets it
reads the rest. So what a request carries, a volume's descriptor among it, is never held here, where
to close it could hang.
"""

import errno
import gc
import logging
import os
import resource
import select
import signal
import socket
from contextlib import suppress
from typing import Final, NamedTuple, NoReturn

import msgspec

from iifuse.nursery import frames, operations
from iifuse.nursery.operations import Answer, Given, Reached
from iifuse.store import linux
from iifuse.store.programs import NAME

_CHILD: Final = "iifuse-child"
_CHILDREN_MAX: Final = 256
"""The most children that run at a time. Further requests are refused."""
_SPARE_DESCRIPTORS: Final = 16


class _Child(NamedTuple):
    """A child that runs. `end`: its pidfd. `line`: our copy of its socket to the caller."""

    pid: int
    end: int
    line: socket.socket


def run(line: socket.socket, service: int) -> NoReturn:
    """Be the nursery of the process `service`, until that has ended; then end."""
    try:
        _settle(line, service)
        _Nursery(line).serve()
    finally:
        os._exit(0)


def _settle(line: socket.socket, service: int) -> None:
    """Hold nothing but the line, and end with the service and nothing else."""
    linux.end_with(service)
    linux.set_name(NAME)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # they go to whole groups
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    logging.disable()
    _close_all_but(line.fileno())
    os.chdir("/")
    linux.forbid_core_dumps()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # of the programs that children run
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.freeze()  # a collection in a child copies no page of what is shared


def _close_all_but(kept: int) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2 and fd != kept:
            with suppress(OSError):  # that of the list itself has gone
                os.close(fd)


class _Nursery:
    def __init__(self, line: socket.socket) -> None:
        self._line = line
        self._by_end: dict[int, _Child] = {}
        self._by_line: dict[int, _Child] = {}
        self._poll = select.poll()
        self._poll.register(line, select.POLLIN)
        room = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_DESCRIPTORS
        self._children_max = min(_CHILDREN_MAX, room // 2)

    def serve(self) -> None:
        """Until the service has ended; its children end with us."""
        while True:
            told = {fd for fd, _ in self._poll.poll()}
            for fd in told:  # before a new child may get a number that one of them has had
                if fd in self._by_end:
                    self._bury(self._by_end[fd])
                elif fd in self._by_line:
                    self._give_up(self._by_line[fd])
            if self._line.fileno() in told and not self._accept():
                self._kill_all()
                return

    def _accept(self) -> bool:
        """Begin the children that the service asks for. False: the service has ended."""
        try:
            word, fds = frames.receive_some(self._line, 1)
        except OSError as error:  # or no memory just now
            return not isinstance(error, ConnectionError)
        for fd in fds:
            self._begin(socket.socket(fileno=fd))
        return bool(word)

    def _begin(self, line: socket.socket) -> None:
        try:
            if len(self._by_end) >= self._children_max:
                raise BlockingIOError(errno.EAGAIN, "too many calls hang")
            nursery, pid = os.getpid(), os.fork()
        except OSError as error:
            with suppress(OSError):
                frames.send(line, msgspec.msgpack.encode(operations.failed(error)))
            line.close()
            return
        if not pid:
            _be_child(line, nursery)
        try:
            self._keep(_Child(pid, os.pidfd_open(pid), line))
        except OSError:  # no memory: we would not get to know of its end
            _kill(pid)
            line.close()

    def _keep(self, child: _Child) -> None:
        self._by_end[child.end] = self._by_line[child.line.fileno()] = child
        self._poll.register(child.end, select.POLLIN)
        self._poll.register(child.line, 0)  # that it was closed is told all the same

    def _give_up(self, child: _Child) -> None:
        """Nobody waits for its answer. It ends when what it waits for lets it."""
        _kill(child.pid)
        self._let_line_go(child)

    def _let_line_go(self, child: _Child) -> None:
        if self._by_line.pop(child.line.fileno(), None):
            self._poll.unregister(child.line)
            child.line.close()

    def _bury(self, child: _Child) -> None:
        os.waitpid(child.pid, 0)
        self._poll.unregister(child.end)
        del self._by_end[child.end]
        os.close(child.end)
        self._let_line_go(child)

    def _kill_all(self) -> None:
        for child in self._by_end.values():
            _kill(child.pid)


def _kill(pid: int) -> None:
    """With the program that it may run; one that is only just beginning leads no group yet."""
    for kill in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            kill(pid, signal.SIGKILL)


def _be_child(line: socket.socket, nursery: int) -> NoReturn:
    try:
        linux.end_with(nursery)
        os.setsid()
        linux.set_name(_CHILD)
        _close_all_but(line.fileno())
        _answer(line)
    finally:
        os._exit(0)


def _answer(line: socket.socket) -> None:
    def say(answer: Answer, fds: tuple[int, ...] = ()) -> None:
        frames.send(line, msgspec.msgpack.encode(answer), fds)

    message, fds = frames.receive(line)
    answer, opened = operations.run(message, Given(fds, lambda path: say(Reached(path))))
    say(answer, opened)
