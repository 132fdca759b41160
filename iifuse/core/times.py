"""The times that a file on the mount shows (findings: backup programs go by them)."""

from dataclasses import dataclass
from typing import Final

TIME_NS_MAX: Final = (1 << 62) - 1
"""Nanoseconds since 1970 after which no time lies, nor so many before: the year 2116."""


@dataclass(frozen=True, slots=True)
class Times:
    """Modification and change time of a file, in UTC nanoseconds; all 0: unknown.

    `ceiling_ns`: 0 while the file is quiet: the two times are exact. Else it may have been written
    since they were noted, and no time that it has shown lies at the ceiling or after it.
    """

    mtime_ns: int = 0
    ctime_ns: int = 0
    ceiling_ns: int = 0
