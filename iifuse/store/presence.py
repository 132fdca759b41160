"""What paths lead to at this moment, and whether that is the volume that is meant."""

import os
from contextlib import suppress
from typing import Final, Protocol

from iifuse import errors
from iifuse.core.header import FileId
from iifuse.core.missing import Missing, same_file
from iifuse.store import identity as identities
from iifuse.store import linux
from iifuse.store.identity import Identity
from iifuse.store.volume import Volume

_INODE_MASK: Final = (1 << 63) - 1  # SQLite has no larger numbers
STRANGER: Final = "is another one than that of this set"


class Away(Exception):
    """The volume that is meant is not there; `missing` says what is instead."""

    def __init__(self, missing: Missing) -> None:
        super().__init__(missing.why)
        self.missing = missing


class Open(Protocol):
    """Opens a volume (store.volume.open_volume)."""

    def __call__(self, path: str, *, exclusive: bool = True) -> Volume:
        """See there."""


def open_meant(open_volume: Open, path: str, meant: FileId, size_bytes: int = 0) -> Volume:
    """Open a volume if it is the one that is meant. Raises Away; BadVolume for a damaged one.

    `open_volume`: how the instance does it. `meant` and `size_bytes`: what is known of the volume.
    The size tells one device from another; a file that was cut is still the file.
    """
    stranger = _stranger(path, meant)
    if stranger:
        raise Away(Missing(f"{path} {stranger}", stranger=True))
    try:
        volume = open_volume(path, exclusive=False)
    except errors.IifuseError as error:
        if is_absence(error):
            raise Away(Missing(f"{error.subject} {error.why}")) from error
        raise
    try:
        _check_meant(volume, meant, size_bytes)
    except BaseException:
        volume.close()
        raise
    return volume


def hear(path: str) -> None:
    """Open what stands at a path and read a little of it, to learn whether it answers at all.

    Raises nothing: what is wrong with it is told by whoever uses it.
    """
    with suppress(errors.IifuseError, OSError):
        identities.identify(path)  # a path into the mount of a service ends here
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(identities.real_path(path), flags)
        try:
            os.pread(fd, 512, 0)
        finally:
            os.close(fd)


def probe(path: str) -> FileId | Missing:
    """What stands at a path, which is not opened, or why that is no volume."""
    try:
        return file_at(path)
    except errors.BadVolume as error:
        return Missing(f"{path} {error.why}", stranger=not is_absence(error))


def misfit(path: str, meant: FileId, stands: FileId | Missing) -> Missing | None:
    """What is wrong with what a probe has found; None: it may be the volume that is meant."""
    if isinstance(stands, Missing):
        return stands
    return None if same_file(meant, stands) else Missing(f"{path} {STRANGER}", stranger=True)


def is_absence(error: errors.IifuseError) -> bool:
    """Was a volume not opened because it is not there, or cannot be used just now?"""
    if isinstance(error, errors.Busy | errors.InUse | errors.NoAnswer):
        return True
    return isinstance(error.__cause__, OSError)


def file_at(path: str) -> FileId:
    """What tells the volume of a path from another one, links followed. Raises BadVolume."""
    identity = identities.identify(path)
    return _file_id(identity, 0 if identity.is_device else linux.birth_ns(path))


def file_of(volume: Volume) -> FileId:
    """The same of an open one, which is not asked; it is known by that also after a boot."""
    return _file_id(volume.identity, volume.born_ns)


def _file_id(identity: Identity, born_ns: int) -> FileId:
    if identity.is_device:
        return identities.device_id(identity)
    return FileId(identity.number[1] & _INODE_MASK, born_ns)


def _stranger(path: str, meant: FileId) -> str:
    """What is wrong with what stands there, before it is opened; nothing at all is not wrong."""
    try:
        return "" if same_file(meant, file_at(path)) else STRANGER
    except errors.BadVolume as error:
        return "" if is_absence(error) else error.why


def _check_meant(volume: Volume, meant: FileId, size_bytes: int) -> None:
    """Once more of what is open now, which nobody can swap any more."""
    if volume.is_device and volume.size_bytes < size_bytes:
        why = f"{volume.path} has {volume.size_bytes} bytes, and {size_bytes} are needed"
        raise Away(Missing(why, stranger=True))
    if not same_file(meant, file_of(volume)):
        raise Away(Missing(f"{volume.path} {STRANGER}", stranger=True))


def astray(volume: Volume) -> str:
    """Why the path of an open volume leads to it no more; empty while it does.

    What cannot be told just now is no reason.
    """
    try:
        if identities.number_at(volume.path) == volume.identity.number:
            return ""
    except errors.BadVolume as error:
        cause = error.__cause__
        if cause is None:
            return f"{volume.path} is no volume any more, what was there is still in use"
        if isinstance(cause, FileNotFoundError | NotADirectoryError):
            return f"{volume.path} was deleted or renamed, and is still in use"
        return ""
    return f"{volume.path} leads to another file or device than the one that is in use"


def deleted(volume: Volume) -> str:
    """The same where our own file is mounted over the path, which hides what stands there."""
    try:
        if volume.is_device or volume.stat().st_nlink:
            return ""
    except OSError:  # the next read or write of the volume will meet this error
        return ""
    return f"{volume.path} was deleted or replaced, and is still in use"
