"""The times that a file shows, and those that a bitmap volume has of it."""

import os
from pathlib import Path

from devices import eventually

from iifuse.core import header as fmt
from iifuse.core.times import Times

Shown = tuple[int, int]
"""(modification time, change time) in nanoseconds."""


def times(file: Path | int) -> Shown:
    found = os.stat(file)
    return found.st_mtime_ns, found.st_ctime_ns


def moved(before: Shown, after: Shown) -> bool:
    """Are both later, as after every change of the content?"""
    return after[0] > before[0] and after[1] > before[1]


def recorded(bitmap: Path) -> tuple[Times, Times]:
    """The times of both files as a bitmap volume has them."""
    blob = bitmap.read_bytes()
    slots = [blob[at : at + fmt.SLOT_BYTES] for at in fmt.SLOT_OFFSETS]
    header, _ = fmt.newest(str(bitmap), slots)
    return header.master_times, header.shadow_times


def wait_quiet(*bitmaps: Path) -> None:
    """Until the exact times are recorded."""

    def quiet() -> bool:
        return not any(t.ceiling_ns for bitmap in bitmaps for t in recorded(bitmap))

    eventually(quiet, "the exact times are recorded", 60)
