"""iiadm: make, update, lend and watch point-in-time copies."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import Final, Literal, cast

from iifuse import errors
from iifuse.control import protocol, services
from iifuse.control.client import Client
from iifuse.control.protocol import Cost
from iifuse.core.ticket import TicketEntry

from . import ask, common, extents, grammar, reports, show, verbs, waiting
from .grammar import Command
from .trackingclient import TrackingClient

options = verbs.options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    words = sys.argv[1:] if argv is None else argv
    return common.run("iiadm", grammar.usage(words), lambda: _act(grammar.parse(words)))


def _act(command: Command) -> None:
    if command.action in _ALONE:
        _ALONE[command.action]()
    elif command.action in _REPORTS:
        _REPORTS[command.action](command)
    else:
        _VERBS[command.action](_client(command), command)


def _client(command: Command) -> Client:
    return TrackingClient(services.find(command.socket, command.instance))


def _target(command: Command) -> protocol.Target:
    return common.target(command.words, command.group)


def _help() -> None:
    common.emit(verbs.SUMMARY + verbs.HELP, end="")


def _version() -> None:
    common.emit(common.version("iiadm"))


def _enable(client: Client, command: Command) -> None:
    master, shadow, bitmap = map(common.absolute, command.words)
    kind = cast("Literal['ind', 'dep']", command.choice)
    names = (master, shadow, bitmap, command.group)
    how = command.tuning, command.reserve
    _tell(client, command, lambda sure: protocol.Enable(kind, *names, *how, sure))


def _tell(
    client: Client, command: Command, request: Callable[[bool], protocol.AnyRequest]
) -> None:
    """Send a request. The service may answer with a question; then it is sent again."""
    ask.when_asked(lambda sure: common.tell(client, request(sure)), sure=command.sure)


def _disable(client: Client, command: Command) -> None:
    target = _target(command)
    rows = client.status(target) if command.group is not None else []
    _tell(client, command, lambda sure: protocol.Disable(target, sure))
    for row in rows:
        common.say(f"{row.shadow}: disabled")


def _update(client: Client, command: Command) -> None:
    target, full = _target(command), command.action == "c"
    direction = cast("Literal['s', 'm']", command.choice)
    if command.dry_run:
        costs = client.call(protocol.DryRun(direction, full, target), list[Cost])
        reports.costs(costs, json=command.json)
        return

    def update(sure: bool) -> None:
        request = protocol.Update(direction, full, target, sure)
        rows = client.call(request, list[protocol.SetStatus])
        common.say_unjoined(rows)
        if command.group is not None and direction == "m":
            for row in rows:
                common.say(f"{row.shadow}: {row.master} is restored from it, {show.amount(row)}")

    ask.when_asked(update, sure=command.sure)


def _abort(client: Client, command: Command) -> None:
    common.tell(client, protocol.Abort(_target(command)))


def _wait(client: Client, command: Command) -> None:
    target = _target(command)
    waiting.watch(client, target, command.timeout)
    common.tell(client, protocol.Wait(target, command.timeout))


def _export(client: Client, command: Command) -> None:
    target = _target(command)
    before = client.status(target)
    again = target.group is not None or len(before) > 1
    client.call(protocol.Export(target, again), list[TicketEntry])
    done = {row.shadow for row in before if row.custody == "exported"}
    for row in client.status(target):
        if row.shadow in done:
            common.say(f"{row.shadow}: was exported already, ticket {row.ticket}")
        else:
            common.emit(f"{row.shadow}: exported, ticket {row.ticket}")


def _import(client: Client, command: Command) -> None:
    shadow, bitmap, *ticket = map(common.absolute, command.words)
    path = ticket[0] if ticket else None
    _tell(client, command, lambda sure: protocol.Import(shadow, bitmap, path, sure))


def _join(client: Client, command: Command) -> None:
    shadow, bitmap = map(common.absolute, command.words)

    def join(accept: bool) -> None:
        common.tell(client, protocol.Join(shadow, bitmap, accept))

    ask.unless_closed(join, sure=command.sure)


def _reset(client: Client, command: Command) -> None:
    target = _target(command)
    _tell(client, command, lambda sure: protocol.Reset(target, sure))


def _give_up(client: Client, command: Command) -> None:
    """Give a restore up. Its list is written first, as the service does not have it afterwards."""
    shadow = common.absolute(command.words[0])
    path = None if command.extents is None else common.absolute(command.extents)

    def end(sure: bool) -> None:
        if sure:
            text = extents.text(extents.not_restored(client, shadow), json=command.json)
            if path is None:
                extents.show(text)
            else:
                extents.keep(path, text)
        try:
            common.tell(client, protocol.GiveUp(shadow, sure))
        except (errors.Busy, errors.CopyRunning, errors.Refused):  # the restore goes on
            if sure and path is not None:
                os.unlink(path)
            raise

    ask.when_asked(end, sure=command.sure)


def _tune(client: Client, command: Command) -> None:
    common.tell(client, protocol.Tune(_target(command), command.tuning))


def _attach(client: Client, command: Command) -> None:
    bitmaps = common.volumes(command.words)
    if not bitmaps:
        raise errors.UsageError("", "--attach needs the names of bitmap volumes")
    common.tell(client, protocol.Attach(bitmaps, command.group))


def _move(client: Client, command: Command) -> None:
    group, sets = command.group or "", common.volumes(command.words)
    if not sets:
        raise errors.UsageError("", "-m needs the names of sets")
    common.tell(client, protocol.Move(group, sets))


def _groups(client: Client, command: Command) -> None:
    names = client.call(protocol.Groups(), list[str])
    if command.json:
        common.emit(protocol.to_json({"groups": names}))
    elif names:
        common.emit("\n".join(names))


_VERBS: Final[dict[str, Callable[[Client, Command], None]]] = {
    "e": _enable,
    "d": _disable,
    "u": _update,
    "c": _update,
    "a": _abort,
    "w": _wait,
    "E": _export,
    "I": _import,
    "J": _join,
    "R": _reset,
    "o": _tune,
    "-attach": _attach,
    "-give-up": _give_up,
    "m": _move,
    "L": _groups,
}
_REPORTS: Final[dict[str, Callable[[Command], None]]] = {
    "i": reports.status,
    "l": reports.listing,
    "-health": reports.health,
    "-history": reports.past,
}
"""The actions that may ask several services."""
_ALONE: Final = {"h": _help, "v": _version}
