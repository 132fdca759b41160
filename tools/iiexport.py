"""iiexport: exports shadows to another host, all on one ticket."""

import argparse
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import SetStatus
from iifuse.core import state
from iifuse.core.ticket import Ticket, TicketEntry

from . import common, ticketfile, waiting


def _parser() -> common.Parser:
    about = "Wait for the copies of some sets, export their shadows, write one ticket for all."
    parser = common.Parser("iiexport", "(-g GRP | SET...)", about)
    parser.add_sets()
    parser.add_argument("--ticket", metavar="FILE", help="write the ticket for all sets here")
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_export, argv)


def _export(args: argparse.Namespace) -> None:
    client = common.client(args)
    rows = common.members(client, common.target(args.words, args.group))
    folder = os.path.join(client.call(protocol.Hello(), protocol.ServiceInfo).state, "tickets")
    place = _place(args, rows[0], folder)
    if place:
        ticketfile.check_place(place, own_folder=folder)
    done = [row.shadow for row in rows if row.custody == "exported"]
    _check(row for row in rows if row.shadow not in done)
    rows = [waited.row for waited in waiting.for_copies(client, rows)]
    _check(row for row in rows if row.shadow not in done)
    names = tuple(row.shadow for row in rows)
    # Either all are exported or none. Those of an earlier run are on the ticket as well.
    request = protocol.Export(protocol.Target(names), again=True)
    lent = client.call(request, list[TicketEntry])
    for name, entry in zip(names, lent, strict=True):
        if name in done:
            common.say(f"{name}: was exported already, ticket {_own_ticket(entry, folder)}")
    if place:
        known = ticketfile.entries(place)
        lent = [ticketfile.with_imports(entry, known) for entry in lent]
        ticketfile.write(place, Ticket(tuple(lent), args.group))
    _report(args, lent, [_own_ticket(entry, folder) for entry in lent], place)


def _place(args: argparse.Namespace, first: SetStatus, folder: str) -> str | None:
    """The path of the ticket for all sets; None: each shadow's own ticket is enough.

    The ticket of a group is beside its first shadow, or in `folder` if that is a device.
    """
    if args.ticket:
        return common.absolute(args.ticket)
    if args.group is None:
        return None
    if "/" in args.group:
        raise errors.UsageError("", f"{args.group} makes no file name, say --ticket FILE")
    beside = os.path.dirname(first.shadow) if _is_file(first.shadow) else folder
    return os.path.join(beside, args.group + ticketfile.SUFFIX)


def _is_file(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise errors.BadVolume(path, f"cannot be looked at ({error.strerror})") from error


def _own_ticket(lent: TicketEntry, folder: str) -> str:
    """The path of the ticket that the service has written for this shadow alone."""
    if _is_file(lent.shadow):
        return lent.shadow + ticketfile.SUFFIX
    return os.path.join(folder, f"{lent.uuid}.json")


def _check(rows: Iterable[SetStatus]) -> None:
    """Raise what the service would raise for -E, before any set is exported.

    A running copy to the shadow is no obstacle, because iiexport waits for it.
    """
    for row in rows:
        waits = row.copying and row.progress == "to_shadow"
        now = common.state_of(row)
        settled = replace(now, progress=state.Progress.IDLE, copying=False)
        state.check(row.shadow, settled if waits else now, state.Verb.EXPORT, row.ticket)


def _report(
    args: argparse.Namespace, lent: Sequence[TicketEntry], own: Sequence[str], place: str | None
) -> None:
    if args.json:
        common.emit(protocol.to_json({"sets": lent, "tickets": own, "ticket": place}))
        return
    for entry, path in zip(lent, own, strict=True):
        common.emit(f"{entry.shadow}: exported, ticket {path}")
    if place:
        common.emit(f"ticket for all: {place}")
