"""The service's end of the line: calls that may hang, made by children of the nursery process."""

import errno
import logging
import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress
from math import ceil
from typing import Final, NamedTuple, NoReturn, TypeVar

import msgspec

from iifuse import errors
from iifuse.nursery import frames, operations, process
from iifuse.nursery.operations import Answer, Defect, Done, Failed, Found, Opened, Reached, Request
from iifuse.store.programs import GONE, NAME, RESTART, ProgramOutput

log = logging.getLogger(__name__)

SYNC_SECONDS: Final = 60.0
"""How long the dirty pages of one file may take to arrive."""
LOOK_SECONDS: Final = 10.0
"""How long all else may take that is not said to take longer."""
_STEP_SECONDS: Final = 0.25
"""A time limit is counted in these: while the service stands still, at most one goes by."""
_END_SECONDS: Final = 1.0
_WORD: Final = b"!"


T = TypeVar("T")
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


class _Asked(NamedTuple):
    """A call under way. `about`: the path that its failure names."""

    line: socket.socket
    limit_s: float
    about: str


class Nursery:
    """The process that forks a child for each call; every method blocks, in any thread.

    They raise OSError, ETIMEDOUT with the path when there was no answer in time: the child is left
    behind then, and what it does when it can is done behind everybody's back. When the process has
    ended they raise ServiceError: a new one would have to be forked while volumes are open.
    """

    def __init__(self, line: socket.socket, pid: int) -> None:
        self._line, self.pid = line, pid
        self.end: Final = os.pidfd_open(pid)
        """Readable when the process has ended."""
        line.settimeout(LOOK_SECONDS)
        self._is_closed = False

    @classmethod
    def start(cls) -> "Nursery":
        """Fork it, before any volume is open and any thread runs. Raises ServiceError."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        service = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            raise errors.ServiceError(
                NAME, f"cannot be started ({error.strerror})",
                "allow more processes (pids, TasksMax)",
            ) from error
        if not pid:
            process.run(theirs, service)
        theirs.close()
        return cls(ours, pid)

    def close(self) -> None:
        """Let it end, and wait a second for that."""
        self._line.close()
        self._has_ended(_END_SECONDS)
        self.bury()
        self._is_closed = True
        os.close(self.end)

    def bury(self) -> None:
        """Reap the process, which has ended."""
        with suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)

    @property
    def is_there(self) -> bool:
        """Does it still run?"""
        return not self._has_ended(0)

    def _has_ended(self, within_s: float) -> bool:
        if self._is_closed:
            return True
        poll = select.poll()
        poll.register(self.end, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    # -- the calls --------------------------------------------------------------------------

    def sync(self, paths: Sequence[str], limit_s: float = SYNC_SECONDS) -> None:
        """Sync files, so that dirty pages of theirs arrive; errors of a sync are not told.

        Each may take `limit_s` seconds.
        """
        request = operations.Sync([os.fsencode(path) for path in paths])
        self.call(request, None, limit_s, next(iter(paths), ""))

    def set_time(self, path: str, mtime_ns: int) -> None:
        """Say when a file was changed last, its time of access left alone."""
        self.call(operations.SetTime(os.fsencode(path), mtime_ns), None, LOOK_SECONDS, path)

    def ask(self, words: Sequence[str], fd: int, path: str, limit_s: float) -> ProgramOutput:
        """See store.programs."""
        return self.call(operations.Ask(list(words)), ProgramOutput, limit_s, path, (fd,))

    def bind(self, source: str, target: str) -> None:
        """Mount a file over a regular file; over anything else it is not."""
        request = operations.Bind(os.fsencode(source), os.fsencode(target))
        self.call(request, None, LOOK_SECONDS, target)

    def unmount(self, path: str) -> None:
        """Take down what is mounted there, if anything is, also while it is in use."""
        self.call(operations.Unmount(os.fsencode(path)), None, LOOK_SECONDS, path)

    def unmount_dead(self, path: str) -> int:
        """Take down the mounts that nobody serves any more; how many they were."""
        return self.call(operations.UnmountDead(os.fsencode(path)), int, LOOK_SECONDS, path)

    def stat(self, path: str, limit_s: float = LOOK_SECONDS) -> Found:
        """What a path leads to, links followed, mounts of services not entered."""
        return self.call(operations.Stat(os.fsencode(path)), Found, limit_s, path)

    def open(self, path: str, flags: int, limit_s: float = LOOK_SECONDS) -> tuple[int, Opened]:
        """Open a volume; its descriptor is not inherited. Raises BadVolume too."""
        request = operations.Open(os.fsencode(path), flags)
        found, (fd,) = self._exchange(request, Opened, limit_s, path)
        return fd, found

    def call(
        self,
        request: Request,
        answer: type[T] | None,
        limit_s: float,
        about: str,
        fds: Sequence[int] = (),
    ) -> T:
        """What a child answers within so many seconds. `about`: the path that a failure names."""
        return self._exchange(request, answer, limit_s, about, fds)[0]

    # -- the line ---------------------------------------------------------------------------

    def _exchange(
        self,
        request: Request,
        answer: type[T] | None,
        limit_s: float,
        about: str,
        fds: Sequence[int] = (),
    ) -> tuple[T, list[int]]:
        ours, theirs = _pair(about)
        with ours:
            ours.settimeout(limit_s)
            asked = _Asked(ours, limit_s, about)
            with theirs:
                self._hand(theirs, asked)
            self._send(request, fds, asked)
            raw, found = self._await(asked)
            if fds or found:
                _await_end(asked, found)
        return msgspec.msgpack.decode(raw, type=answer), found

    def _hand(self, theirs: socket.socket, asked: _Asked) -> None:
        """To the process, which forks the child that reads the rest."""
        try:
            socket.send_fds(self._line, [_WORD], [theirs.fileno()])
        except TimeoutError as error:
            raise _timeout(asked) from error
        except ConnectionError as error:
            raise _gone() from error

    def _send(self, request: Request, fds: Sequence[int], asked: _Asked) -> None:
        """A failure means that the child has ended; what it has said before that comes first."""
        with suppress(ConnectionError):
            try:
                frames.send(asked.line, msgspec.msgpack.encode(request), fds)
            except TimeoutError as error:
                raise _timeout(asked) from error

    def _await(self, asked: _Asked) -> tuple[msgspec.Raw, list[int]]:
        while True:
            answer, fds = self._receive(asked)
            match answer:
                case Done():
                    return answer.result, fds
                case Reached():
                    asked = asked._replace(about=os.fsdecode(answer.path))
                case _:
                    _fail(answer, asked)

    def _receive(self, asked: _Asked) -> tuple[Answer, list[int]]:
        if not _comes(asked.line, asked.limit_s):
            raise _timeout(asked)
        try:
            message, fds = frames.receive(asked.line)
        except TimeoutError as error:
            raise _timeout(asked) from error
        except (EOFError, ConnectionError) as error:
            if self._has_ended(_STEP_SECONDS):
                raise _gone() from error
            why = "the process that was to look there was ended"
            raise OSError(errno.EIO, why, asked.about) from error
        return _answers.decode(message), fds


def _pair(about: str) -> tuple[socket.socket, socket.socket]:
    try:
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        error.filename = about
        raise


def _comes(line: socket.socket, limit_s: float) -> bool:
    """Is there something to be read in time?"""
    poll = select.poll()
    poll.register(line, select.POLLIN)
    step = min(limit_s, _STEP_SECONDS)
    return any(poll.poll(step * 1000) for _ in range(ceil(limit_s / step)))


def _await_end(asked: _Asked, found: list[int]) -> None:
    """The child holds its copies of descriptors no more, and no lock of a volume with them."""
    if not _comes(asked.line, asked.limit_s):
        for fd in found:
            os.close(fd)
        raise _timeout(asked)


def _timeout(asked: _Asked) -> OSError:
    return OSError(errno.ETIMEDOUT, f"no answer within {asked.limit_s:g} s", asked.about)


def _gone() -> errors.ServiceError:
    return errors.ServiceError(NAME, GONE, RESTART)


def _fail(answer: Answer, asked: _Asked) -> NoReturn:
    match answer:
        case Failed(code, text, path):
            raise OSError(code, text, os.fsdecode(path) or asked.about)
        case operations.Refused(name, subject, why, todo, cause):
            texts = map(os.fsdecode, (subject, why, todo))
            raise errors.BY_NAME[name](*texts) from _cause(cause)
        case Defect(text):
            log.error("%s: a call in a child failed by a defect\n%s", asked.about, text.rstrip())
    raise errors.InternalError(asked.about, "a call failed by a defect", "see the log")


def _cause(code: int | None) -> OSError | None:
    return None if code is None else OSError(code, os.strerror(code))
