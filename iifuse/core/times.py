"""The times that a file on the mount shows. Backup programs skip a file that shows the same times.

So two different contents of a file never show the same times: each change of the content gets a
later time than all that were shown before, however the clock is set. After a kill nobody knows what
was shown last. So a durable record says *written* before the first change after a quiet while. It
names a ceiling, some seconds ahead, below which all times stay that are shown meanwhile. A start
that no stop came before begins at the ceiling.

That is one sync in some seconds, and after a kill only files that were being written show later
times in vain. Rejected: a record with each write, which would cost a sync each; and the times of
the raw file, which do not follow points in time and go back with a clock.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

TIME_NS_MAX: Final = (1 << 62) - 1
"""The latest time that can be kept, in nanoseconds since 1970: the year 2116. So many before 1970
lies the earliest."""

_SECOND_NS: Final = 1_000_000_000
AHEAD_NS: Final = 5 * _SECOND_NS
"""How far above what is shown a ceiling is put, at the least. A start after a kill shows a time
that may be so far ahead, and until it has come `tar` reads the file again in every backup."""
ASKED_NS_MAX: Final = TIME_NS_MAX - 10 * 366 * 86400 * _SECOND_NS
"""The latest time that a program can set; changes after that still get later ones."""


@dataclass(frozen=True, slots=True)
class Times:
    """Modification and change time of a file, in UTC nanoseconds; all 0: unknown.

    `ceiling_ns` is 0 while the file is quiet: the two times are exact. Else it may have been
    written since they were noted, and every time that it has shown lies before the ceiling.
    """

    mtime_ns: int = 0
    ctime_ns: int = 0
    ceiling_ns: int = 0

    @property
    def next_ns(self) -> int:
        """The earliest time that was certainly not shown yet."""
        return max(self.mtime_ns + 1, self.ctime_ns + 1, self.ceiling_ns)


class FileTimes:
    """The times of a file that is on the mount.

    `ceiling_ns`: as the durable record has it. While it is 0 nothing may change: the record has to
    be made first. No time at or above it is shown: until it is raised, times move by nanoseconds.
    """

    __slots__ = ("_shown_ns", "ceiling_ns", "ctime_ns", "mtime_ns")

    def __init__(self, times: Times) -> None:
        self.mtime_ns, self.ctime_ns = times.mtime_ns, times.ctime_ns
        self.ceiling_ns = times.ceiling_ns
        self._shown_ns = times.ctime_ns

    def change(self, now_ns: int) -> None:
        """The content changes. Each write does this, and one more call in here would cost 1 %."""
        if now_ns <= self.mtime_ns or now_ns <= self.ctime_ns or now_ns >= self.ceiling_ns:
            now_ns = max(self.ctime_ns, self.mtime_ns) + 1
        self.mtime_ns = self.ctime_ns = now_ns

    def set_mtime(self, mtime_ns: int, now_ns: int) -> None:
        """A program sets the modification time, as it likes; the change time moves on."""
        last = self.ctime_ns
        self.ctime_ns = now_ns if last < now_ns < self.ceiling_ns else last + 1
        self.mtime_ns = asked(mtime_ns)

    def exact(self) -> Times:
        """The record of a file that is quiet."""
        return Times(self.mtime_ns, self.ctime_ns)

    def record(self) -> Times:
        """The record as it stands now, for one more place."""
        return Times(self.mtime_ns, self.ctime_ns, self.ceiling_ns)

    def written(self, now_ns: int, ahead_ns: int = AHEAD_NS) -> Times:
        """The record that lets the file change until `ahead_ns` after `now_ns`."""
        ceiling = max(now_ns + ahead_ns, self.mtime_ns + ahead_ns, self.ctime_ns + ahead_ns)
        ceiling = max(ceiling, self.ceiling_ns)
        return Times(self.mtime_ns, self.ctime_ns, min(ceiling, TIME_NS_MAX))

    def adopt(self, mtime_ns: int, ctime_ns: int) -> None:
        """Take over the times that the kernel says it shows (writeback_cache).

        They are earlier than the arrival of its writes here, which nobody was shown; so a later
        start shows what the kernel did. The change time does not go back behind an earlier one.
        """
        self.mtime_ns = asked(mtime_ns)
        self.ctime_ns = self._shown_ns = max(self._shown_ns, asked(ctime_ns))


def asked(mtime_ns: int) -> int:
    """A modification time that a program asks for, within what can be kept."""
    return max(-ASKED_NS_MAX, min(mtime_ns, ASKED_NS_MAX))


def doubted(record: Times, now_ns: int) -> Times:
    """The record of a file that was or may have been changed since it was made."""
    return replace(record, ceiling_ns=max(record.next_ns, now_ns))


def after(records: Sequence[Times], now_ns: int) -> Times:
    """Times that none of the records can have shown: those of another content."""
    time_ns = min(max([now_ns, *(record.next_ns for record in records)]), TIME_NS_MAX)
    return Times(time_ns, time_ns)


def lent(told: Times, known: Times, now_ns: int) -> Times:
    """The times of a shadow that another host lends and `told` of.

    `known`: what this host has shown of it before, which must not be shown again. With the same
    content comes the same time, and nothing is backed up twice.
    """
    if told == Times():
        return after([known], now_ns)
    shown = max(known.mtime_ns, known.ctime_ns) if not known.ceiling_ns else known.ceiling_ns
    return told if shown <= told.ctime_ns else after([told, known], 0)


def resumed(records: Sequence[Times], now_ns: int) -> Times:
    """The times of a file that comes back, from the records of it, of which there is one at least.

    If one of them says written, nobody knows whether the file was: it gets later times.
    """
    if any(record.ceiling_ns for record in records):
        return after(records, now_ns)
    newest = max(records, key=lambda record: record.ctime_ns)
    return Times(newest.mtime_ns, newest.ctime_ns)

