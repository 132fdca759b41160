"""The stamp of a volume's file, by which a start finds out whether somebody has written to it."""

from dataclasses import replace

from iifuse.core.header import Header, Stamp
from iifuse.store.volume import Volume


def stamp(volume: Volume | None) -> Stamp:
    """The stamp of a file. A device does not show that it was written, so its stamp is unknown."""
    if volume is None or volume.is_device:
        return Stamp()
    found = volume.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def quiet_stamp(volume: Volume | None) -> Stamp:
    """The stamp of a file in use that nobody writes now. It has no change time (Stamp)."""
    return replace(stamp(volume), ctime_ns=0)


def written_since(header: Header, master: Volume | None, shadow: Volume | None) -> str:
    """'master' or 'shadow', if somebody has written to it behind the service's back; else empty.

    The header has a stamp of a volume while the volume is not in use, or while nobody writes to it.
    """
    pairs = (("master", header.master_stamp, master), ("shadow", header.shadow_stamp, shadow))
    for what, then, volume in pairs:
        if volume is not None and then.differs(stamp(volume)):
            return what
    return ""
