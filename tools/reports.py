"""The reports of iiadm about one service or all: -i, -l, --health, --history, --dry-run."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeVar

import msgspec

from iifuse import __version__, errors
from iifuse.control import protocol, services
from iifuse.control.client import Client
from iifuse.control.protocol import Concern, Cost, HistoryRow, SetStatus
from iifuse.units import count, format_size

from . import common, history, show
from .grammar import Command
from .trackingclient import TrackingClient
from .verbs import EVERY

SOMETHING: Final = 1
"""The exit code of `--health` if something needs attention."""

R = TypeVar("R")


def status(command: Command) -> None:
    """`iiadm -i`."""
    _sets(command, _in_short if show.on_terminal() and not command.long else show.statuses)


def _in_short(rows: list[SetStatus]) -> str:
    from . import brief  # noqa: PLC0415 - rich takes a third of the time of a short command

    return brief.statuses(rows)


def listing(command: Command) -> None:
    """`iiadm -l`."""
    _sets(command, show.listing)


def _sets(command: Command, text: Callable[[list[SetStatus]], str]) -> None:
    def ask(client: Client) -> list[SetStatus]:
        if command.words and command.words != [EVERY]:
            return client.status(common.target(command.words, None))
        return client.status(protocol.Target(group=command.group))

    answers, code = _ask(command, ask)
    if command.json:
        _print_json(command, "sets", answers)
    for place, rows in () if command.json else answers:
        if rows or command.everywhere:
            common.emit(_headed(command, place, text(rows) if rows else "no sets"))
        else:
            common.say("iiadm: no sets")
    _end(code)


def health(command: Command) -> None:
    """`iiadm --health`. Raises SystemExit(1) when something needs attention."""

    def ask(client: Client) -> list[Concern]:
        return [*_of_version(client), *client.call(protocol.Health(), list[Concern])]

    answers, code = _ask(command, ask)
    if command.json:
        _print_json(command, "concerns", answers)
    else:
        for place, concerns in answers:
            for one in concerns:
                where = f"{place}: " if command.everywhere else ""
                common.emit(common.printable(f"{where}{one.subject}: {one.what}; {one.todo}"))
    _end(code or (SOMETHING if any(concerns for _, concerns in answers) else 0))


def _end(code: int) -> None:
    if code:
        raise SystemExit(code)


def _of_version(client: Client) -> Iterator[Concern]:
    running = client.call(protocol.Hello(), protocol.ServiceInfo).version
    if running != __version__:
        yield Concern(
            client.path,
            f"runs version {running}, and {__version__} is installed",
            "restart the service when its files may be closed",
        )


def past(command: Command) -> None:
    """`iiadm --history`."""

    def ask(client: Client) -> list[HistoryRow]:
        everything = not command.words and command.group is None
        target = protocol.Target() if everything else common.target(command.words, command.group)
        rows = history.rows(client, target)
        return rows if command.last is None else rows[-command.last :]

    answers, code = _ask(command, ask)
    if command.json:
        _print_json(command, "history", answers)
    for place, rows in () if command.json else answers:
        where = f"{place}: " if command.everywhere else ""
        for row in rows:
            common.emit(f"{where}{history.line(row)}")
    _end(code)


def _ask(
    command: Command, ask: Callable[[Client], list[R]]
) -> tuple[list[tuple[services.Place, list[R]]], int]:
    """Ask one service, or all services. Returns (answers, exit code).

    With --all, a service that fails sets the exit code, and the others are asked all the same.
    Raises ServiceError if no service runs, and the error of a service that is asked alone.
    """
    if not command.everywhere:
        socket = services.find(command.socket, command.instance)
        return [(services.Place(socket), ask(TrackingClient(socket)))], 0
    places = services.running()
    if not places:
        raise errors.ServiceError(services.RUN_DIRECTORY, "no service answers", "start iifuse")
    answers, code = [], 0
    for place in places:
        try:
            answers.append((place, ask(TrackingClient(place.socket))))
        except errors.IifuseError as error:
            common.say(f"iiadm: {place}: {error}")
            code = error.exit_code
    return answers, code


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
    """Print the result of `-u … --dry-run`."""
    if json:
        common.emit(protocol.to_json({"sets": found}))
        return
    for one in found:
        chunks = f"{count(one.chunks, 'chunk')}, {format_size(one.bytes)}"
        amount = chunks if one.chunks else "nothing"
        common.emit(f"{one.shadow}: would copy {amount} to {one.target}: {one.why}")
