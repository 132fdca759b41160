"""The lines of the log: with time and level for people, with a priority for the journal."""

import logging
import os
import sys
import traceback
from typing import Final

_PRIORITIES: Final = (
    (logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6),
)  # fmt: skip
"""Of syslog(3): at which level a line has which, the most severe first."""
_DEBUG: Final = 7


def set_up() -> None:
    """Let everything go to standard error, as whoever reads that expects it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_ForJournal() if _is_journal() else _ForPeople())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


def _is_journal() -> bool:
    """Does standard error lead to the journal? systemd says to which file it does, if it does."""
    told = os.environ.get("JOURNAL_STREAM", "")
    found = os.fstat(sys.stderr.fileno())
    return told == f"{found.st_dev}:{found.st_ino}"


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
