"""What iiadm tells of the sets of one service or of all: -i, -l, --health, --dry-run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from iifuse import errors
from iifuse.control import protocol, services
from iifuse.control.client import Client
from iifuse.control.protocol import Concern, Cost, SetStatus
from iifuse.units import format_size

from . import brief, common, show
from .grammar import Command
from .verbs import EVERY

SOMETHING: Final = 1
"""Exit code of `--health` when something needs attention."""

R = TypeVar("R")


def status(command: Command) -> None:
    """`iiadm -i`."""
    text = brief.statuses if show.on_terminal() and not command.long else show.statuses
    _sets(command, text)


def listing(command: Command) -> None:
    """`iiadm -l`."""
    _sets(command, show.listing)


def _sets(command: Command, text: Callable[[list[SetStatus]], str]) -> None:
    def ask(client: Client) -> list[SetStatus]:
        if command.words and command.words != [EVERY]:
            return client.status(common.target(command.words, None))
        return client.status(protocol.Target(group=command.group))

    answers = list(_ask(command, ask))
    if command.json:
        _print_json(command, "sets", answers)
        return
    for place, rows in answers:
        if rows or command.everywhere:
            common.emit(_headed(command, place, text(rows) if rows else "no sets"))
        else:
            common.say("iiadm: no sets")


def health(command: Command) -> None:
    """`iiadm --health`. Raises SystemExit(1) when something needs attention."""

    def ask(client: Client) -> list[Concern]:
        return client.call(protocol.Health(), list[Concern])

    answers = list(_ask(command, ask))
    if command.json:
        _print_json(command, "concerns", answers)
    else:
        for place, concerns in answers:
            for one in concerns:
                where = f"{place}: " if command.everywhere else ""
                common.emit(common.printable(f"{where}{one.subject}: {one.what}; {one.todo}"))
    if any(concerns for _, concerns in answers):
        raise SystemExit(SOMETHING)


def _ask(
    command: Command, ask: Callable[[Client], list[R]]
) -> Iterator[tuple[services.Place, list[R]]]:
    """What one service answers, or all. Raises ServiceError also where none runs."""
    if not command.everywhere:
        socket = services.find(command.socket, command.instance)
        yield services.Place(socket), ask(Client(socket))
        return
    places = services.running()
    if not places:
        raise errors.ServiceError(services.RUN_DIRECTORY, "no service answers", "start iifuse")
    for place in places:
        yield place, ask(Client(place.socket))


def _headed(command: Command, place: services.Place, text: str) -> str:
    return f"service {place}:\n{text}" if command.everywhere else text


def _print_json(
    command: Command, name: str, answers: Sequence[tuple[services.Place, Sequence[Any]]]
) -> None:
    rows = []
    for place, found in answers:
        for one in found:
            row = msgspec.to_builtins(one)
            if command.everywhere:
                row |= {"instance": place.instance, "socket": place.socket}
            rows.append(row)
    common.emit(protocol.to_json({name: rows}))


def costs(found: Sequence[Cost], *, json: bool) -> None:
    """What `-u … --dry-run` has found out."""
    if json:
        common.emit(protocol.to_json({"sets": found}))
        return
    for one in found:
        chunks = "1 chunk" if one.chunks == 1 else f"{one.chunks} chunks"
        amount = f"{chunks}, {format_size(one.bytes)}" if one.chunks else "nothing"
        common.emit(f"{one.shadow}: would copy {amount} to {one.target}: {one.why}")
