"""What a volume's file looks like, to tell later whether somebody has written to it."""

from iifuse.core.header import Stamp
from iifuse.store.volume import Volume


def stamp(volume: Volume | None) -> Stamp:
    """What a file looks like; a device gives no sign of having been written."""
    if volume is None or volume.is_device:
        return Stamp()
    found = volume.stat()
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
