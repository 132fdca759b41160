"""The lines of the log: with time and level for people, with a priority for the journal."""

import errno
import logging
import os
import socket
import sys
import traceback
from logging.handlers import SysLogHandler, WatchedFileHandler
from typing import Final

from iifuse import errors
from iifuse.store.names import make_directory

SYSLOG: Final = "syslog"
"""Instead of a file: syslog(3), which on most systems is the journal."""
_DEVICE: Final = "/dev/log"
_PRIORITIES: Final = (
    (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6),
)  # fmt: skip
"""Of syslog(3): at which level a line has which, the most severe first."""
_DEBUG: Final = 7


def usual(state: str) -> str:
    """Where a service in the background writes when nothing was said: syslog, if there is one.

    Else a file in its state directory, and standard error says so.
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
    """Let everything go to a file or syslog; None: to standard error. Raises ServiceError.

    A file that is moved away (logrotate) is made anew.
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
    """A call that failed is told without its number; every line passes."""
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
    """Does standard error lead to the journal? systemd says to which file it does, if it does."""
    told = os.environ.get("JOURNAL_STREAM", "")
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return told == f"{found.st_dev}:{found.st_ino}"


class _Syslog(SysLogHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Syslog that is gone for a while costs lines; there is nobody to whom it could be said."""


class _ForPeople(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S")


class _ForJournal(logging.Formatter):
    """`<N>` before each line, those of a traceback too: sd-daemon(3)."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((n for level, n in _PRIORITIES if record.levelno >= level), _DEBUG)
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info)).rstrip()
        return "\n".join(f"<{priority}>{line}" for line in text.split("\n"))
