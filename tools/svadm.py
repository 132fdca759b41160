"""svadm: puts volumes on the mount that belong to no set."""

import argparse
from collections.abc import Sequence

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import VolumeStatus
from iifuse.units import command, format_size

from . import ask, common


def _parser() -> common.Parser:
    parser = common.Parser(
        "svadm", "-e|-d|-i [VOLUME...]", "Put volumes on the mount with no set, or take them off."
    )
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("-e", dest="control", action="store_true", help="put volumes on the mount")
    action.add_argument("-d", dest="release", action="store_true", help="take volumes off")
    action.add_argument("-i", dest="list", action="store_true", help="list them; all with no name")
    parser.add_no_question()
    parser.add_argument("words", metavar="VOLUME", nargs="*", help="path of a volume")
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_act, argv)


def _act(args: argparse.Namespace) -> None:
    client, paths = common.client(args), common.volumes(args.words)
    if args.list:
        _list(client, paths, json=args.json)
        return
    if not paths:
        raise errors.UsageError("", "name at least one volume")
    if args.control:
        notes = common.tell(client, protocol.Control(paths))
    else:
        notes = ask.when_asked(
            lambda sure: common.tell(client, protocol.Release(paths, sure)), sure=args.sure
        )
    if args.json:
        common.emit(protocol.to_json({"notes": notes}))


def _list(client: Client, paths: tuple[str, ...], *, json: bool) -> None:
    rows = client.call(protocol.Volumes(), list[VolumeStatus])
    if paths:
        rows = _only(rows, paths)
    if json:
        common.emit(protocol.to_json({"volumes": rows}))
    else:
        for row in rows:
            common.emit(_line(row))


def _only(rows: list[VolumeStatus], paths: tuple[str, ...]) -> list[VolumeStatus]:
    known = {row.path: row for row in rows}
    for path in paths:
        if path not in known:
            control = command("svadm -e", path)
            raise errors.NotFound(path, "not under control", f"{control} puts it on the mount")
    return [known[path] for path in paths]


def _line(row: VolumeStatus) -> str:
    role = "pass-through" if row.role == "none" else row.role
    told = f", {row.missing}" if row.missing else ""
    if row.missing and not row.size_bytes:
        return f"{row.path}: {role}{told}"
    return f"{row.path}: {role}, {format_size(row.size_bytes)}, open {row.opens}, {row.file}{told}"
