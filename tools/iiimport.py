"""iiimport: imports the shadows of a ticket from another host."""

import argparse
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus
from iifuse.core.geometry import Geometry
from iifuse.core.sector import bitmap_bytes
from iifuse.core.ticket import Ticket, TicketEntry
from iifuse.units import format_size

from . import ask, common, ticketfile

BITMAP_SUFFIX: Final = ".iibm"


@dataclass(frozen=True)
class Loan:
    """An entry of the ticket, and the paths of its volumes on this host.

    `here`: an earlier run has imported it already. `sure`: the user has agreed to what its bitmap
    overwrites.
    """

    lent: TicketEntry
    shadow: str
    bitmap: str
    here: bool
    sure: bool = False


def _parser() -> common.Parser:
    about = "Import all shadows of a ticket, each with a new bitmap, and put them into their group."
    parser = common.Parser("iiimport", "TICKET", about)
    parser.add_argument("ticket", metavar="TICKET", help="file that iiexport or 'iiadm -E' wrote")
    parser.add_argument("--bitmaps", metavar="DIR", help="make the bitmaps in this directory")
    ticketfile.add_map(parser)
    parser.add_no_question()
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_import_all, argv)


def _import_all(args: argparse.Namespace) -> None:
    client, path = common.client(args), common.absolute(args.ticket)
    ticket = ticketfile.read(path)
    loans = _loans(args, ticket, client.status())
    _check_room_for_all(loans)
    ticketfile.check_place(path)
    loans = [_checked(client, path, loan, sure=args.sure) for loan in loans]
    # The ticket comes first, so that it always names every bitmap that may hold changes.
    ticketfile.write(path, ticketfile.with_bitmaps(ticket, [loan.bitmap for loan in loans]))
    common.one_by_one(
        "imported", loans, lambda loan: loan.shadow, lambda loan: _take(client, path, loan)
    )
    if ticket.group:
        names = tuple(loan.shadow for loan in loans)
        common.tell(client, protocol.Move(ticket.group, names))
    _report(args, ticket, loans)


def _loans(args: argparse.Namespace, ticket: Ticket, rows: Sequence[SetStatus]) -> list[Loan]:
    """All entries of the ticket, checked. Raises UsageError, BadVolume, Refused."""
    folder = None if args.bitmaps is None else common.absolute(args.bitmaps)
    names = ticketfile.Names(args.map)
    loans = [_loan(lent, names.here(lent.shadow), folder, rows) for lent in ticket.sets]
    names.check_used()
    _check_distinct([loan.shadow for loan in loans], "two sets of the ticket map to this shadow")
    _check_distinct([loan.bitmap for loan in loans], "two sets would share this bitmap")
    return loans


def _check_distinct(paths: Sequence[str], why: str) -> None:
    for path in paths:
        if paths.count(path) > 1:
            raise errors.UsageError(path, why)


def _loan(lent: TicketEntry, shadow: str, folder: str | None, rows: Sequence[SetStatus]) -> Loan:
    for row in rows:
        if row.shadow == shadow and _same(row, lent):
            return Loan(lent, shadow, row.bitmap, here=True)
    _check_shadow(shadow, lent.size_bytes)
    return Loan(lent, shadow, _bitmap(lent, shadow, folder), here=False)


def _same(row: SetStatus, lent: TicketEntry) -> bool:
    """Is this set an import of this export?"""
    identity = (row.custody, row.uuid, row.export_number)
    return identity == ("imported", lent.uuid, lent.export_number)


def _check_shadow(path: str, size_bytes: int) -> None:
    try:
        found = _size(path)
    except OSError as error:
        why = f"the shadow cannot be opened ({error.strerror})"
        raise errors.BadVolume(
            path, why, "if it has another name here, say --map OLD=NEW"
        ) from error
    if found < size_bytes:
        raise errors.BadVolume(
            path, f"has {format_size(found)}, less than the {format_size(size_bytes)} of the ticket"
        )


def _size(path: str) -> int:
    """Bytes of a file or block device. Raises OSError, BadVolume."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
            raise errors.BadVolume(path, "is neither a regular file nor a block device")
        return os.lseek(descriptor, 0, os.SEEK_END)
    finally:
        os.close(descriptor)


def _bitmap(lent: TicketEntry, shadow: str, folder: str | None) -> str:
    """The path of the bitmap. Raises Refused if the ticket names another one."""
    stem = shadow if folder is None else os.path.join(folder, os.path.basename(shadow))
    bitmap = stem + BITMAP_SUFFIX
    if lent.bitmap not in (None, bitmap):
        # Two bitmaps for one export: iijoin would merge the second and lose the first. And the
        # ticket alone must not choose which file becomes a bitmap.
        raise errors.Refused(
            shadow,
            f"its bitmap would be {bitmap}, but the ticket names {lent.bitmap}",
            "name the directory of that one with --bitmaps",
        )
    _check_room(shadow, bitmap)
    return bitmap


def _check_room(shadow: str, bitmap: str) -> None:
    if os.path.lexists(bitmap):
        return
    if not os.path.isdir(os.path.dirname(bitmap)):
        raise errors.BadVolume(
            os.path.dirname(bitmap), "there is no such directory for the bitmaps"
        )
    if stat.S_ISBLK(os.stat(shadow).st_mode) and os.path.dirname(bitmap) == os.path.dirname(shadow):
        # A file among device nodes is gone after a reboot, and the changes with it.
        raise errors.BadVolume(bitmap, "no place for a bitmap beside a device", "say --bitmaps DIR")


def _check_room_for_all(loans: Sequence[Loan]) -> None:
    """Raise BadVolume if there is no room for all bitmaps together, before any is made.

    The service checks only the room for each bitmap alone.
    """
    wanted: dict[int, int] = {}
    for loan in loans:
        if loan.here or os.path.lexists(loan.bitmap):
            continue
        folder = os.path.dirname(loan.bitmap)
        device, found = os.stat(folder).st_dev, os.statvfs(folder)
        wanted[device] = wanted.get(device, 0) + _bitmap_bytes(loan.lent)
        free = found.f_bavail * found.f_frsize
        if found.f_blocks and wanted[device] > free:
            raise errors.BadVolume(
                folder,
                f"there is no room for the bitmaps: they take {format_size(wanted[device])} and "
                f"more, and {format_size(free)} are free",
                "make room there, or say --bitmaps DIR",
            )


def _bitmap_bytes(lent: TicketEntry) -> int:
    return bitmap_bytes(Geometry(lent.size_bytes).chunks)


def _checked(client: Client, path: str, loan: Loan, *, sure: bool) -> Loan:
    """Let the service check a loan. Returns it, perhaps with `sure`.

    Raises the errors of the service, or Declined.
    """
    if loan.here:
        return loan
    with ticketfile.fitting(path, loan.lent, loan.shadow) as ticket:

        def check(yes: bool) -> Loan:
            common.tell(client, protocol.CheckImport(loan.shadow, loan.bitmap, ticket, yes))
            return replace(loan, sure=yes)

        return ask.when_asked(check, sure=sure)


def _take(client: Client, path: str, loan: Loan) -> None:
    if loan.here:
        common.say(f"{loan.shadow}: imported already")
        return
    with ticketfile.fitting(path, loan.lent, loan.shadow) as ticket:
        common.tell(client, protocol.Import(loan.shadow, loan.bitmap, ticket, loan.sure))


def _report(args: argparse.Namespace, ticket: Ticket, loans: Sequence[Loan]) -> None:
    if args.json:
        sets = [{"shadow": loan.shadow, "bitmap": loan.bitmap} for loan in loans]
        common.emit(protocol.to_json({"sets": sets, "group": ticket.group}))
        return
    for loan in loans:
        common.emit(f"{loan.shadow}: imported, bitmap {loan.bitmap}")
    if ticket.group:
        common.emit(f"group: {ticket.group}")
