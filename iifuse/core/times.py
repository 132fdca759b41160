"""The times that a file on the mount shows.

Backup programs skip a file that shows the same times as before. So two different contents of a file
must never show the same times: each change of the content gets a later time than all that were
shown before, however the clock is set. After a kill nobody knows which time was shown last. So
before the first change after a quiet time a durable record says that the file is being *written*.
The record names a ceiling some seconds ahead, and all times that are shown meanwhile stay below it.
If the service was killed, the next start continues at the ceiling.

This costs one sync in some seconds. After a kill only files that were being written show a later
time than needed. Rejected: a record with each write, which would cost a sync each; and the times of
the raw file, which do not follow points in time and go back when the clock does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

TIME_NS_MAX: Final = (1 << 62) - 1
"""The latest time that can be kept, in nanoseconds since 1970: in the year 2116. The earliest time
is as far before 1970."""

_SECOND_NS: Final = 1_000_000_000
AHEAD_NS: Final = 5 * _SECOND_NS
"""How far a ceiling is above the times that are shown, at the least. After a kill a file may show a
time that is this far in the future. Until that time `tar` reads the file again in every backup."""
ASKED_NS_MAX: Final = TIME_NS_MAX - 10 * 366 * 86400 * _SECOND_NS
"""The latest time that a program can set. Later changes of the file still get later times."""


@dataclass(frozen=True, slots=True)
class Times:
    """Modification and change time of a file, in nanoseconds since 1970, UTC; all 0: unknown.

    `ceiling_ns` is 0 while the file is quiet; then the two times are exact. Otherwise the file may
    have been written since they were recorded, and every time that it has shown is below the
    ceiling.
    """

    mtime_ns: int = 0
    ctime_ns: int = 0
    ceiling_ns: int = 0

    @property
    def next_ns(self) -> int:
        """The earliest time that was certainly not shown yet, in nanoseconds."""
        return max(self.mtime_ns + 1, self.ctime_ns + 1, self.ceiling_ns)


class FileTimes:
    """The times of a file that is on the mount.

    `ceiling_ns` is the one in the durable record. While it is 0 the content must not change: the
    record has to be made first. Every time that is shown is below the ceiling. If the clock reaches
    it before it is raised, the times move by single nanoseconds.
    """

    __slots__ = ("_shown_ns", "ceiling_ns", "ctime_ns", "mtime_ns")

    def __init__(self, times: Times) -> None:
        self.mtime_ns, self.ctime_ns = times.mtime_ns, times.ctime_ns
        self.ceiling_ns = times.ceiling_ns
        self._shown_ns = times.ctime_ns

    def change(self, now_ns: int) -> None:
        """Show a later time, because the content changes.

        Each write calls this. One more function call in here would cost 1 % of its speed.
        """
        if now_ns <= self.mtime_ns or now_ns <= self.ctime_ns or now_ns >= self.ceiling_ns:
            now_ns = max(self.ctime_ns, self.mtime_ns) + 1
        self.mtime_ns = self.ctime_ns = now_ns

    def set_mtime(self, mtime_ns: int, now_ns: int) -> None:
        """A program sets the modification time to any value. The change time moves on."""
        last = self.ctime_ns
        self.ctime_ns = now_ns if last < now_ns < self.ceiling_ns else last + 1
        self.mtime_ns = in_range(mtime_ns)

    def exact(self) -> Times:
        """The record for a file that is quiet."""
        return Times(self.mtime_ns, self.ctime_ns)

    def record(self) -> Times:
        """The record as it is now, for one more place that keeps it."""
        return Times(self.mtime_ns, self.ctime_ns, self.ceiling_ns)

    def written(self, now_ns: int, ahead_ns: int = AHEAD_NS) -> Times:
        """The record that lets the file change until `ahead_ns` after `now_ns`."""
        ceiling = max(now_ns + ahead_ns, self.mtime_ns + ahead_ns, self.ctime_ns + ahead_ns)
        ceiling = max(ceiling, self.ceiling_ns)
        return Times(self.mtime_ns, self.ctime_ns, min(ceiling, TIME_NS_MAX))

    def adopt(self, mtime_ns: int, ctime_ns: int) -> None:
        """Take over the times that the kernel shows (writeback_cache).

        They are earlier than the arrival of the kernel's writes here. Nobody has seen the times of
        the arrival, so the next start has to show the kernel's times. The change time does not go
        back behind one that was adopted before.
        """
        self.mtime_ns = in_range(mtime_ns)
        self.ctime_ns = self._shown_ns = max(self._shown_ns, in_range(ctime_ns))


def in_range(mtime_ns: int) -> int:
    """The time itself, or the nearest one that a program can set."""
    return max(-ASKED_NS_MAX, min(mtime_ns, ASKED_NS_MAX))


def doubted(record: Times, now_ns: int) -> Times:
    """The record of a file that has, or may have, changed since the record was made."""
    return replace(record, ceiling_ns=max(record.next_ns, now_ns))


def after(records: Sequence[Times], now_ns: int) -> Times:
    """Times for another content: later than all that a file with these records can have shown."""
    time_ns = min(max([now_ns, *(record.next_ns for record in records)]), TIME_NS_MAX)
    return Times(time_ns, time_ns)


def times_of_import(exported: Times, known: Times, now_ns: int) -> Times:
    """The times that an imported shadow shows.

    `exported`: what its file showed at the export; if possible the import shows the same, so that
    the same content is not backed up twice. `known`: what this host has shown of it before, which
    must not be shown again.
    """
    if exported == Times():
        return after([known], now_ns)
    shown = known.ceiling_ns or max(known.mtime_ns, known.ctime_ns)
    return exported if shown <= exported.ctime_ns else after([exported, known], 0)


def resumed(records: Sequence[Times], now_ns: int) -> Times:
    """The times of a file that comes back at a start, by its records. There is at least one.

    If a record says that the file was being written, nobody knows what it has shown since. So the
    file gets later times.
    """
    if any(record.ceiling_ns for record in records):
        return after(records, now_ns)
    newest = max(records, key=lambda record: record.ctime_ns)
    return Times(newest.mtime_ns, newest.ctime_ns)

