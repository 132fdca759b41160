"""What a volume's file looks like, to tell later whether somebody has written to it."""

from dataclasses import replace

from iifuse.core.header import Header, Stamp
from iifuse.store.volume import Volume


def stamp(volume: Volume | None) -> Stamp:
    """What a file looks like; a device gives no sign of having been written."""
    if volume is None or volume.is_device:
        return Stamp()
    found = volume.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def quiet_stamp(volume: Volume | None) -> Stamp:
    """The same of a file in use that nobody writes now: who renames it does not change it."""
    return replace(stamp(volume), ctime_ns=0)


def written_since(header: Header, master: Volume | None, shadow: Volume | None) -> str:
    """Which of a set's volumes was written past the service since it had them last, if one was.

    A stamp stands in the header while the volume is not in use here, or nobody writes to it.
    """
    pairs = (("master", header.master_stamp, master), ("shadow", header.shadow_stamp, shadow))
    for what, then, volume in pairs:
        if volume is not None and then.differs(stamp(volume)):
            return what
    return ""
