"""iijoin: takes back the shadows of a ticket, and merges the bitmaps of the other host."""

import argparse
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.core.ticket import TicketEntry
from iifuse.units import command

from . import ask, common, ticketfile


@dataclass(frozen=True)
class Pair:
    """A shadow and its secondary bitmap.

    `unclosed`: the bitmap was not closed, and is merged all the same. `done`: an earlier run has
    merged it.
    """

    shadow: str
    bitmap: str
    unclosed: bool = False
    done: bool = False


def _parser() -> common.Parser:
    about = "Check every bitmap of a ticket, then join all its sets."
    parser = common.Parser("iijoin", "TICKET", about)
    parser.add_argument("ticket", metavar="TICKET", help="the ticket, as iiimport left it")
    parser.add_no_question()
    ticketfile.add_map(parser)
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_join_all, argv)


def _join_all(args: argparse.Namespace) -> None:
    client, path = common.client(args), common.absolute(args.ticket)
    names = ticketfile.Names(args.map)
    pairs = [_pair(client, path, lent, names) for lent in ticketfile.read(path).sets]
    names.check_used()
    pairs = [_checked(client, pair, sure=args.sure) for pair in pairs]
    common.one_by_one("joined", pairs, lambda pair: pair.shadow, lambda pair: _join(client, pair))
    _report(args, pairs)


def _pair(client: Client, path: str, lent: TicketEntry, names: ticketfile.Names) -> Pair:
    shadow = names.here(lent.shadow)
    if lent.bitmap is not None:
        return Pair(shadow, names.here(lent.bitmap))
    noted = [names.here(bitmap) for bitmap in _noted(lent, shadow)]
    left = noted if len(noted) < 2 else [b for b in noted if not _is_joined(client, shadow, b)]
    if not noted:
        raise errors.BadTicket(
            path,
            f"names no bitmap for {shadow}",
            "take the ticket that iiimport left; if nobody has imported the shadow, or its "
            f"importer is lost, take it back with {command('iiadm -R', shadow)}",
        )
    if len(left) > 1:
        each = ", ".join(command("iiadm -J", shadow, bitmap) for bitmap in left)
        raise errors.BadTicket(path, f"{len(left)} imports of {shadow} are not joined", each)
    return Pair(shadow, (left or noted)[-1])


def _noted(lent: TicketEntry, shadow: str) -> list[str]:
    """The bitmaps of imports that have added themselves to a ticket, as `iiadm -I` does."""
    known: tuple[TicketEntry, ...] = ()
    with suppress(errors.BadTicket):
        known = ticketfile.entries(f"{shadow}{ticketfile.SUFFIX}")
    return [made.bitmap for made in ticketfile.with_imports(lent, known).imports]


def _is_joined(client: Client, shadow: str, bitmap: str) -> bool:
    try:
        client.notes(protocol.CheckJoin(shadow, bitmap, accept_unclosed=True))
    except errors.AlreadyJoined:
        return True
    except errors.IifuseError:
        return False
    return False


def _checked(client: Client, pair: Pair, *, sure: bool) -> Pair:
    """Let the service check a pair. Returns it, perhaps with `unclosed` or `done`.

    Raises the errors of the service, or Declined.
    """

    def check(accept: bool) -> None:
        common.tell(client, protocol.CheckJoin(pair.shadow, pair.bitmap, accept))

    try:
        _, unclosed = ask.unless_closed(check, sure=sure)
    except errors.AlreadyJoined:
        return replace(pair, done=True)
    return replace(pair, unclosed=unclosed)


def _join(client: Client, pair: Pair) -> None:
    if pair.done:
        common.say(f"{pair.shadow}: was joined already, bitmap {pair.bitmap}")
        return
    common.tell(client, protocol.Join(pair.shadow, pair.bitmap, pair.unclosed))


def _report(args: argparse.Namespace, pairs: Sequence[Pair]) -> None:
    if args.json:
        common.emit(protocol.to_json({"sets": pairs}))
        return
    for pair in pairs:
        if not pair.done:  # the others were reported before
            common.emit(f"{pair.shadow}: joined, bitmap {pair.bitmap}")
