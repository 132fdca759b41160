"""iiverify: compares the chunks that the bits call equal, on sets that are in use."""

import argparse
import time
from collections.abc import Sequence
from typing import Final

import msgspec
from rich.markup import escape
from rich.progress import Progress

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import SetStatus
from iifuse.core.geometry import Geometry
from iifuse.units import Run, command, parse_size

from . import common
from .bars import bars

WINDOW_CHUNKS: Final = 1024
"""Chunks that the service is asked about at a time: 32 MiB."""


class Extent(msgspec.Struct, frozen=True):
    """An extent in bytes that differs although the bits say equal."""

    offset: int
    length: int


class Verified(msgspec.Struct):
    """What was found in a set. `marked`: was it marked? `complete`: was everything compared?"""

    shadow: str
    differing: list[Extent]
    marked: bool
    complete: bool = False


def _parser() -> common.Parser:
    about = "Compare master and shadow of idle independent sets where their bits say equal."
    parser = common.Parser("iiverify", "-g GRP | SET...", about)
    parser.add_sets()
    parser.add_argument("--mark", action="store_true", help="count what differs as different")
    parser.add_argument("--rate", metavar="SIZE", help="bytes to compare in a second, at most")
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_verify, argv)


def _verify(args: argparse.Namespace) -> None:
    rate = _rate(args.rate)
    client, target = common.client(args), common.target(args.words, args.group)
    rows = common.members(client, target)
    results: list[Verified] = []
    try:
        with bars() as display:
            for row in rows:
                results.append(Verified(row.shadow, [], args.mark))
                _one(client, row, results[-1], display, rate)
    finally:
        _report(args, results)  # after a failure too: something may have been found before it
    found = sum(len(result.differing) for result in results)
    if found:
        names = [result.shadow for result in results if result.differing]
        heal = command("iiadm -u s", *names)
        mark = f"{command('iiverify --mark', *names)} marks it, and then "
        common.say(f"iiverify: {'' if args.mark else mark}{heal} heals it")
        raise SystemExit(errors.UsageError.exit_code)


def _rate(word: str | None) -> int | None:
    if word is None:
        return None
    try:
        rate = parse_size(word.removesuffix("/s"))
    except (ValueError, OverflowError) as error:
        raise errors.UsageError("", f"--rate: {error}") from error
    if not rate:
        raise errors.UsageError("", "--rate: nothing would be compared")
    return rate


def _one(
    client: Client, row: SetStatus, result: Verified, display: Progress, rate: int | None
) -> None:
    """Compare one set, one window after the other."""
    geometry = Geometry(row.size_bytes)
    window = WINDOW_CHUNKS if rate is None else min(WINDOW_CHUNKS, rate // row.chunk_bytes + 1)
    task = display.add_task(escape(row.shadow), total=row.size_bytes)
    began, done = time.monotonic(), 0
    for first in range(0, row.chunks, window):
        request = protocol.Compare(row.shadow, first, min(window, row.chunks - first))
        runs = client.call(request, protocol.Compared).runs
        if runs and result.marked:
            common.tell(client, protocol.MarkChanged(row.shadow, runs))
        _add(result, geometry, runs)
        done = min((first + window) * row.chunk_bytes, row.size_bytes)
        display.update(task, completed=done)
        if rate is not None:
            time.sleep(max(0.0, began + done / rate - time.monotonic()))
    result.complete = True


def _add(result: Verified, geometry: Geometry, runs: Sequence[Run]) -> None:
    """Add extents to the result, and join those that touch."""
    for offset, length in map(geometry.extent, runs):
        last = result.differing[-1] if result.differing else None
        if last is not None and last.offset + last.length == offset:
            result.differing[-1] = Extent(last.offset, last.length + length)
        else:
            result.differing.append(Extent(offset, length))


def _report(args: argparse.Namespace, results: Sequence[Verified]) -> None:
    if args.json:
        common.emit(protocol.to_json({"sets": results}))
        return
    for result in results:
        for extent in result.differing:
            common.emit(f"{result.shadow}: {extent.offset} {extent.length}")
