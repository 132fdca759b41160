"""The headers of one set. This is the only place where they are made durable.

A caller names the fields that change, and the log applies them to the header as it is at that
moment. So no caller undoes what another has noted. Above all, a volume that was noted as offline
stays offline until a repair: a new point in time, or `iiadm -R` (invariant 9).

If the bitmap volume takes no header any more, an offline header and then all bits are written anew.
If that fails too, the state database notes that the volume must not be believed.

A caller must hold the set's `header_lock`.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from iifuse import errors
from iifuse.core.header import Header
from iifuse.core.state import NOTHING_OFFLINE, Role
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import Buffer

log = logging.getLogger(__name__)

Elsewhere = Callable[[str], None]
"""Notes durably that a bitmap volume must not be believed, and why. It blocks."""


def nowhere(reason: str) -> None:
    """The `Elsewhere` of a program that has no state database. Raises StorageError."""
    raise errors.StorageError("", f"there is no other place to note that {reason}")


class HeaderLog:
    """The log of one set's headers. Methods block. If one raises OSError, the old header counts.

    `header`: the header that counts. `bitmap`: None while its volume cannot be opened; then the
    header changes in memory only. `is_unnoted`: the set went offline and that could not be noted
    anywhere, so writes that need a bit must fail.
    """

    def __init__(
        self, header: Header, bitmap: BitmapFile | None, elsewhere: Elsewhere = nowhere
    ) -> None:
        self.header, self.bitmap, self.elsewhere = header, bitmap, elsewhere
        self.is_unnoted = False

    def commit(self, *, mended: Role = NOTHING_OFFLINE, **changes: Any) -> Header:
        """Change fields of the header, durably. `mended`: volumes that are not offline any more."""
        return self._write(_with(self.header, changes, mended))

    def repair(self, header: Header) -> Header:
        """Make a whole new header durable. It alone decides which volumes are offline."""
        return self._write(header)

    def amend(self, header: Header) -> Header:
        """Change the header in memory only. The next commit writes it to the disk."""
        self.header = header
        return header

    def write_anew(self, extents: Iterable[tuple[int, Buffer]], **changes: Any) -> Header:
        """Write an offline header and then all bits, relying on nothing that the disk has."""
        if self.bitmap is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.header.bitmap)
        header = _with(self.header, changes, NOTHING_OFFLINE)
        self.header = self.bitmap.write_anew(header, extents)
        return self.header

    def note_elsewhere(self, reason: str) -> None:
        """Note in the state database that the bits are in doubt. This never raises."""
        try:
            self.elsewhere(reason)
        except (errors.IifuseError, OSError) as error:
            log.critical(
                "%s: this cannot be noted anywhere, writes fail now: %s", self.header.shadow, error
            )
            self.is_unnoted = True

    def _write(self, header: Header) -> Header:
        self.header = header if self.bitmap is None else self.bitmap.write_header(header)
        return self.header


def _with(header: Header, changes: dict[str, Any], mended: Role) -> Header:
    changed = replace(header, **changes)
    offline = (changed.offline | header.offline) & ~mended
    reason = changed.offline_reason or header.offline_reason
    return replace(changed, offline=offline, offline_reason=reason if offline else "")
