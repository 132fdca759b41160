"""`iibitmap changed`: what was written since the point in time, or why that is not known."""

import os

from iifuse.core.header import BitmapRole, Closure, Header, Stamp
from iifuse.core.sector import Region
from iifuse.core.state import Change, Custody, Progress

from .iibitmap_read import BitmapReading

Extent = tuple[int, int]
"""(offset, length) in bytes."""


def unknown(found: BitmapReading) -> str | None:
    """Why the bits do not say what has changed; None: they do.

    They do so only in an idle set. A copy clears bits while it runs, and then nothing says which
    chunks it has copied.
    """
    header = found.header
    reasons = {
        "the machine went down under durability=process": found.distrusted,
        "a volume of the set is offline": bool(header.offline),
        "a point in time was cut short": header.pending is not Change.NONE,
        "a copy is not complete": header.progress is not Progress.IDLE,
        "copy bits are set, a point in time of a group was cut short most likely": _copies(found),
        "the shadow is exported, its importer notes what is written there": (
            header.custody is Custody.EXPORTED
        ),
        "the set was disabled, and nobody has noted writes since": (
            header.role is BitmapRole.MAIN and header.closure is not Closure.OPEN
        ),
        "its bits are damaged": bool(found.damaged(Region.SHADOW)),
        "a volume was written while the service was down": _written_meanwhile(header),
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def _copies(found: BitmapReading) -> bool:
    return bool(found.damaged(Region.COPY)) or next(found.runs(Region.COPY), None) is not None


def _written_meanwhile(header: Header) -> bool:
    """Do the files show that they were written while the service was down?

    Of an import this says nothing: its shadow goes back to its owner, and changes there.
    """
    if header.role is BitmapRole.IMPORTED or not header.clean:
        return False
    pairs = (header.master, header.master_stamp), (header.shadow, header.shadow_stamp)
    seen = [(stamp, _stamp(path)) for path, stamp in pairs]
    return any(then.differs(now) and now != Stamp() for then, now in seen)


def _stamp(path: str) -> Stamp:
    """The stamp of a file. If the file is not on this host, the stamp is unknown."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return Stamp()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def extents(found: BitmapReading) -> list[Extent]:
    """The extents whose shadow bits are set, ascending."""
    return [found.header.geometry.extent(run) for run in found.runs(Region.SHADOW)]
