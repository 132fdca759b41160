"""Who may use a file or directory of the mount: nobody who could not use the volume itself (K10).

A directory of the mount has the owner, the mode and the access control list of the real one. Links
may lead a path through more directories, which the mount does not show. If one of those does not
let everybody through, only root gets access: one owner and mode cannot express more.
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
    """Owner, group and permission bits.

    `acl`: the access control list, as the extended attribute holds it; None: there is none.
    """

    uid: int = 0
    gid: int = 0
    mode: int = 0o700
    acl: bytes | None = None


ROOT_ONLY: Final = Access()
"""The access to what cannot be looked at."""


def of_directory(path: str, host: Host) -> Access:
    """The access to a directory of the mount. Blocks; raises OSError."""
    try:
        spot = host.locate(path)
    except OnService:
        return ROOT_ONLY
    found = os.stat(spot.path)
    if not stat.S_ISDIR(found.st_mode) or not _lets_all(path, spot, host):
        return ROOT_ONLY
    return of(found, acl(spot.path))


def of(found: os.stat_result, acl: bytes | None) -> Access:
    """The access that the file or directory itself gives."""
    return Access(found.st_uid, found.st_gid, found.st_mode & _PERMISSIONS, acl)


def of_link(path: str, host: Host) -> bool:
    """A volume is named by a link: do all directories on the way to it let everybody through?

    Blocks; raises OSError. False where the link leads to the mount of a service.
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
    """The access control list of a path or an open file; None: there is none.

    Raises OSError where it cannot be read, because the mode alone might give too much access.
    """
    try:
        return os.getxattr(volume, ACL)
    except OSError as error:
        if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
            raise
        return None
