"""Who may reach what through the mount: nobody whom the path of the volume itself keeps out (K10).

A directory on the mount has owner, mode and access control list of the real one. Where links lead
a path through further directories, which the mount does not show, each of those has to let
everybody through; else the place is root's alone, as more cannot be said with one owner and mode.
"""

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final

from iifuse.store.identity import Host, Location, OnService

ACL: Final = "system.posix_acl_access"
_SEARCH: Final = 0o111
_PERMISSIONS: Final = 0o777


@dataclass(frozen=True)
class Access:
    """Owner, group and permission bits. `acl`: as the extended attribute has it; None: no list."""

    uid: int = 0
    gid: int = 0
    mode: int = 0o700
    acl: bytes | None = None


ROOT_ONLY: Final = Access()
"""Of what cannot be looked at."""


def of_directory(path: str, host: Host) -> Access:
    """Blocks; raises OSError."""
    try:
        spot = host.locate(path)
    except OnService:
        return ROOT_ONLY
    found = os.stat(spot.path)
    if not stat.S_ISDIR(found.st_mode) or not _lets_all(path, spot, host):
        return ROOT_ONLY
    return of(found, acl(spot.path))


def of(found: os.stat_result, acl: bytes | None) -> Access:
    """What stands in the file or directory itself."""
    return Access(found.st_uid, found.st_gid, found.st_mode & _PERMISSIONS, acl)


def of_link(path: str, host: Host) -> bool:
    """Does the link that a volume is named by lead through directories that let everybody through?

    Blocks; raises OSError. False where it leads to a service.
    """
    try:
        return _lets_all(path, host.locate(path), host)
    except OnService:
        return False


def _lets_all(path: str, spot: Location, host: Host) -> bool:
    above = host.locate(os.path.dirname(path))
    hidden = spot.searched - above.searched - {above.path}
    return all(_is_searched_by_all(directory) for directory in hidden)


def _is_searched_by_all(directory: str) -> bool:
    return os.stat(directory).st_mode & _SEARCH == _SEARCH and acl(directory) is None


def acl(volume: str | int) -> bytes | None:
    """The access control list of a path or an open file; None where there is none.

    Raises OSError where that cannot be told: the mode alone would say too much.
    """
    try:
        return os.getxattr(volume, ACL)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return None
