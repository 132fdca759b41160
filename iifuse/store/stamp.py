"""What a volume's file looks like, to tell later whether somebody has written to it."""

from dataclasses import replace

from iifuse.core.header import Stamp
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
