"""Reads and writes ticket files, and maps their paths to paths on this host."""

import argparse
import os
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

import msgspec

from iifuse import errors
from iifuse.core import ticket as tickets
from iifuse.core.ticket import Ticket, TicketEntry

from . import common

SUFFIX: Final = ".iiticket"


def read(path: str) -> Ticket:
    """Read a ticket that names each shadow once. Raises BadTicket."""
    try:
        with open(path, "rb") as file:
            blob = file.read(tickets.TICKET_BYTES_MAX + 1)
    except OSError as error:
        raise errors.BadTicket(path, f"cannot be read ({error.strerror})") from error
    ticket = tickets.decode(path, blob)
    names = [lent.shadow for lent in ticket.sets]
    if len(set(names)) < len(names):
        raise errors.BadTicket(path, "names a shadow twice")
    bitmaps = [lent.bitmap for lent in ticket.sets if lent.bitmap is not None]
    if not all(bitmap.startswith("/") for bitmap in bitmaps):
        raise errors.BadTicket(path, "names a bitmap by no absolute path")
    # The names will be printed on a terminal, and another host has written them.
    if any(unicodedata.category(sign) == "Cc" for sign in "".join([*names, *bitmaps])):
        raise errors.BadTicket(path, "a name in it holds a control character")
    return ticket


def check_place(path: str, own_folder: str = "") -> None:
    """Check that a ticket can be written here, before anything is exported.

    `own_folder`: the service's directory for tickets, which is made if it is needed. Raises
    StorageError, and BadTicket if the ticket would replace another kind of file.
    """
    folder = os.path.dirname(path)
    if os.path.isdir(path):
        raise errors.StorageError(path, "the ticket cannot be written, it is a directory")
    with suppress(OSError):
        if folder == own_folder:
            os.mkdir(folder, 0o700)
            _sync_directory(os.path.dirname(folder))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.StorageError(path, f"the ticket cannot be written to {folder}")
    if os.path.exists(path) and os.path.getsize(path):
        read(path)


def write(path: str, ticket: Ticket) -> None:
    """Write a ticket, durably. After a crash there is either the old file or the new one.

    Only its owner may read it. Raises StorageError.
    """
    try:
        scratch = _scratch(os.path.dirname(path), ticket)
        with common.removed_on_error(scratch):
            os.rename(scratch, path)
        _sync_directory(os.path.dirname(path))
    except OSError as error:
        raise errors.StorageError(path, f"cannot be written ({error.strerror})") from error


def _scratch(folder: str, ticket: Ticket) -> str:
    """Write a ticket to a new temporary file, durably. Returns its path."""
    descriptor, name = tempfile.mkstemp(prefix=".ticket-", suffix=SUFFIX, dir=folder)
    with common.removed_on_error(name), os.fdopen(descriptor, "wb") as file:
        file.write(tickets.encode(ticket))
        file.flush()
        os.fsync(file.fileno())
    return name


def _sync_directory(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def with_bitmaps(ticket: Ticket, bitmaps: Sequence[str]) -> Ticket:
    """The same ticket with a bitmap for each set, in the ticket's order."""
    pairs = zip(ticket.sets, bitmaps, strict=True)
    sets = tuple(msgspec.structs.replace(lent, bitmap=bitmap) for lent, bitmap in pairs)
    return msgspec.structs.replace(ticket, sets=sets)


def entries(path: str) -> tuple[TicketEntry, ...]:
    """The entries of the ticket at a path; empty: there is no ticket. Raises BadTicket."""
    return read(path).sets if os.path.exists(path) and os.path.getsize(path) else ()


def with_imports(lent: TicketEntry, known: Iterable[TicketEntry]) -> TicketEntry:
    """An entry, with what importers have added to it in the ticket `known`."""
    for old in known:
        names = (old.uuid, old.export_number, old.shadow)
        if names == (lent.uuid, lent.export_number, lent.shadow):
            imports = tuple(dict.fromkeys(old.imports + lent.imports))
            bitmap = lent.bitmap or old.bitmap
            return msgspec.structs.replace(lent, bitmap=bitmap, imports=imports)
    return lent


@contextmanager
def fitting(path: str, lent: TicketEntry, shadow: str) -> Iterator[str]:
    """Yield the path of a ticket in which the service finds `shadow`.

    If the shadow has the name in the ticket, this is the ticket itself. Otherwise it is a temporary
    file with this entry only: a single entry fits every name.
    """
    if shadow == lent.shadow:
        yield path
        return
    try:
        scratch = _scratch(os.path.dirname(path), Ticket((lent,)))
    except OSError as error:
        raise errors.StorageError(path, f"no room beside the ticket ({error.strerror})") from error
    try:
        yield scratch
    finally:
        with suppress(OSError):
            os.unlink(scratch)


def add_map(parser: argparse.ArgumentParser) -> None:
    """Accept `--map OLD=NEW`, also several times. `Names` reads them."""
    parser.add_argument(
        "--map",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="what the ticket calls OLD, a file or a directory, is NEW on this host",
    )


class Names:
    """Maps paths of the ticket to paths on this host. The longest OLD that fits counts."""

    def __init__(self, words: Iterable[str]) -> None:
        """`words`: OLD=NEW. Raises UsageError."""
        pairs = [_pair(word) for word in words]
        self._maps = sorted(pairs, key=lambda pair: len(pair[0]), reverse=True)
        self._unused = {old for old, _ in pairs}

    def here(self, path: str) -> str:
        """The path on this host."""
        for old, new in self._maps:
            if path == old or path.startswith(old.rstrip("/") + "/"):
                self._unused.discard(old)
                return os.path.normpath(new + "/" + path[len(old) :]) if path != old else new
        return path

    def check_used(self) -> None:
        """Raise UsageError for a --map that has fitted no path: probably it is mistyped."""
        for old in sorted(self._unused):
            raise errors.UsageError("", f"--map {old}=...: the ticket has no such path")


def _pair(word: str) -> tuple[str, str]:
    old, equals, new = word.partition("=")
    if not (equals and old and new):
        raise errors.UsageError("", f"--map wants OLD=NEW, not {word}")
    return common.absolute(old), common.absolute(new)
