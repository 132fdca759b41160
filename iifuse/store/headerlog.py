"""The headers of one set: the only place where they are made durable.

Whoever changes a header says which fields; the log applies that to the header as it is by then. So
nobody takes back what another has noted: that a volume is offline above all, which is only ever
added, until a repair (invariant 9): a new point in time, or `iiadm -R`.

Where the bitmap volume takes no header any more, all its bits are written anew behind an offline
header; where that fails too, the state database is told that the volume is not to be believed.

One at a time: who uses a log holds the set's `header_lock`.
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
"""Notes durably, with the reason, that a bitmap volume is not to be believed; blocks."""


def nowhere(reason: str) -> None:
    """For who has no state database."""
    raise errors.StorageError("", f"there is no other place to note that {reason}")


class HeaderLog:
    """Methods block and raise OSError, and nothing has changed then, as far as anybody may rely on.

    `header`: the one that counts. `bitmap`: None while its volume cannot be opened; what changes
    then is in memory only. `is_unnoted`: the set went offline and that could be noted nowhere, so
    that writes which need a bit must fail.
    """

    def __init__(
        self, header: Header, bitmap: BitmapFile | None, elsewhere: Elsewhere = nowhere
    ) -> None:
        self.header, self.bitmap, self.elsewhere = header, bitmap, elsewhere
        self.is_unnoted = False

    def commit(self, *, mended: Role = NOTHING_OFFLINE, **changes: Any) -> Header:
        """Make a header with these fields changed durable. `mended`: is offline no more."""
        return self._write(_with(self.header, changes, mended))

    def repair(self, header: Header) -> Header:
        """Make the whole header of a new point in time durable: it says what is offline."""
        return self._write(header)

    def amend(self, header: Header) -> Header:
        """Only in memory: it stands on the disk with the next commit."""
        self.header = header
        return header

    def write_anew(self, extents: Iterable[tuple[int, Buffer]], **changes: Any) -> Header:
        """An offline header, then all bits: what a failed sync has lost is not relied on."""
        if self.bitmap is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF), self.header.bitmap)
        header = _with(self.header, changes, NOTHING_OFFLINE)
        self.header = self.bitmap.write_anew(header, extents)
        return self.header

    def note_elsewhere(self, reason: str) -> None:
        """Note in the state database that the bits are in doubt. Raises nothing."""
        try:
            self.elsewhere(reason)
        except (errors.IifuseError, OSError) as error:
            log.critical(
                "%s: that can be noted nowhere, writes fail now: %s", self.header.shadow, error
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
