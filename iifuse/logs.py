"""Writes the log: with time and level for people, or with a priority for the journal.

The reader of the log may stop reading, such as a terminal after Ctrl-S, or a log collector that
hangs. A process that writes into a full pipe stops, and every volume of the service would stop with
it. So while volumes are served, lines wait in memory, and only one thread writes them.
"""

import errno
import logging
import os
import socket
import sys
import threading
import traceback
from contextlib import suppress
from logging.handlers import QueueHandler, SysLogHandler, WatchedFileHandler
from queue import Full, Queue
from typing import Final

from iifuse import errors
from iifuse.store.names import make_directory
from iifuse.units import count

log = logging.getLogger("iifuse")

SYSLOG: Final = "syslog"
"""This word instead of a file means syslog(3), which on most systems is the journal."""
_DEVICE: Final = "/dev/log"
_PRIORITIES: Final = (
    (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6),
)  # fmt: skip
"""(level of a line, priority of syslog(3)), the most severe first."""
_DEBUG: Final = 7
_LINES_MAX: Final = 4096
"""The most lines that wait to be written. Further lines are lost, and counted."""
_END_SECONDS: Final = 1.0
"""Seconds that the end of the service waits until all lines are written."""


def usual(state: str) -> str:
    """Where a service in the background writes its log by default: to syslog, if there is one.

    Otherwise this is a file in the state directory, and a line on standard error says so.
    """
    if _answers():
        return SYSLOG
    make_directory(state)
    path = os.path.join(state, "log")
    print(f"iifuse: there is no {_DEVICE}: the log goes to {path}", file=sys.stderr)
    return path


def _answers() -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_DEVICE)
        except OSError:
            return False
    return True


def set_up(log: str | None = None) -> None:
    """Write the log to a file or to syslog; None: to standard error. Raises ServiceError.

    If the file is moved away (logrotate), it is made again.
    """
    try:
        handler = _handler(log)
    except OSError as error:
        where = _DEVICE if log == SYSLOG else str(log)
        raise errors.ServiceError(
            where, f"the log cannot be written there ({error.strerror})", "name another --log FILE"
        ) from error
    handler.addFilter(in_words)
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def in_words(record: logging.LogRecord) -> bool:
    """Replace an OSError in a line by words without its number. Every line passes this filter."""
    if isinstance(record.args, tuple):
        record.args = tuple(
            errors.words(one) if isinstance(one, OSError) else one for one in record.args
        )
    return True


def _handler(log: str | None) -> logging.Handler:
    if log == SYSLOG:
        if not _answers():
            raise FileNotFoundError(errno.ENOENT, "nobody listens there")
        handler: logging.Handler = _Syslog(_DEVICE)
        handler.setFormatter(logging.Formatter(f"iifuse[{os.getpid()}]: %(message)s"))
        return handler
    handler = logging.StreamHandler(sys.stderr) if log is None else WatchedFileHandler(log)
    handler.setFormatter(_ForJournal() if log is None and _is_journal() else _ForPeople())
    return handler


def _is_journal() -> bool:
    """Does standard error lead to the journal? systemd names the file that does."""
    told = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return told == f"{found.st_dev}:{found.st_ino}"


class LogWriter:
    """Writes the log in a thread. Only that thread waits for the reader of the log.

    Until `start` each line is written at once, so that a failed start is explained.
    """

    def __init__(self, lines_max: int = _LINES_MAX) -> None:
        self._waiting = _Waiting(lines_max)
        self._handlers = logging.getLogger().handlers[:]
        self._thread = threading.Thread(target=self._write, name="log", daemon=True)
        self._ends = False

    def start(self) -> None:
        """Let the thread write the log from now on. Raises ServiceError if there is no thread.

        Python's own messages about failed threads and destructors go to the log as well.
        """
        try:
            self._thread.start()
        except RuntimeError as error:
            raise errors.ServiceError(
                "threads", f"cannot be started ({error})", "allow it more (pids, TasksMax)"
            ) from error
        logging.getLogger().handlers[:] = [self._waiting]
        threading.excepthook = _tell_of_thread
        sys.unraisablehook = _tell_of_object

    def say(self, text: str) -> None:
        """Write a line to standard error after the log. It is lost if nobody reads for a second."""
        with suppress(Full):
            self._waiting.queue.put(text, timeout=_END_SECONDS)

    def wait_until_written(self) -> None:
        """Return when everything is written that was logged before, or after a second."""
        queue = self._waiting.queue
        with queue.all_tasks_done:
            queue.all_tasks_done.wait_for(lambda: not queue.unfinished_tasks, _END_SECONDS)

    def end(self) -> None:
        """End the thread when everything is written, or give it up after a second."""
        self._ends = True
        with suppress(Full):  # if the queue is full the thread is awake already
            self._waiting.queue.put_nowait(None)
        self._thread.join(_END_SECONDS)

    def _write(self) -> None:
        queue = self._waiting.queue
        while not (self._ends and queue.empty()):
            self._write_one(queue.get())
            queue.task_done()
            if queue.empty():
                self._write_one(self._waiting.loss())

    def _write_one(self, line: "_Line") -> None:
        if isinstance(line, str):
            with suppress(OSError, ValueError):
                print(line, file=sys.stderr, flush=True)
        elif line is not None:
            for handler in self._handlers:
                handler.handle(line)


_Line = logging.LogRecord | str | None
"""What waits to be written: a line of the log, or one for standard error; None: nothing."""


class _Waiting(QueueHandler):
    """The lines that wait to be written. If there is no room for a line, it is counted as lost."""

    queue: Queue[_Line]

    def __init__(self, lines_max: int) -> None:
        super().__init__(Queue(lines_max))
        self.addFilter(in_words)
        self._lost = 0
        self._counting = threading.Lock()

    def enqueue(self, record: logging.LogRecord) -> None:
        """Add a line, without waiting. Before it comes a line about those that were lost."""
        with self._counting:
            try:
                if self._lost:
                    self.queue.put_nowait(_loss(self._lost))
                    self._lost = 0
                self.queue.put_nowait(record)
            except Full:
                self._lost += 1

    def loss(self) -> logging.LogRecord | None:
        """The line about lost lines, if there are any that no line has reported yet."""
        with self._counting:
            lost, self._lost = self._lost, 0
        return _loss(lost) if lost else None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Log that a line is wrong in itself. By default this goes to standard error."""
        why = traceback.format_exc().rstrip()
        self.enqueue(_line(logging.ERROR, f"a line of the log is wrong: {record.msg!r}\n{why}"))


def _loss(lines: int) -> logging.LogRecord:
    were = "was" if lines == 1 else "were"
    text = f"{count(lines, 'line')} of the log {were} lost: nobody read them"
    return _line(logging.WARNING, text)


def _line(level: int, text: str) -> logging.LogRecord:
    return log.makeRecord(log.name, level, "", 0, text, (), None)


def _tell_of_thread(what: threading.ExceptHookArgs) -> None:
    name = what.thread.name if what.thread else "that has gone"
    log.critical("the thread %s ends by a defect", name, exc_info=what.exc_value)


def _tell_of_object(what: "sys.UnraisableHookArgs") -> None:
    text = what.err_msg or "a defect could not be reported, in"
    log.error("%s %r", text, what.object, exc_info=what.exc_value)


class _Syslog(SysLogHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """While syslog is not there, lines are lost. There is no place to report that."""


class _ForPeople(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


class _ForJournal(logging.Formatter):
    """Puts `<N>` before each line, also before those of a traceback (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((n for level, n in _PRIORITIES if record.levelno >= level), _DEBUG)
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))
