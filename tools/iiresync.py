"""iiresync: updates sets, waits for the copies, and says how much was copied."""

import argparse
import time
from collections.abc import Sequence
from typing import Final, Literal, cast

import msgspec

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import SetStatus
from iifuse.core import state
from iifuse.units import count, format_size

from . import ask, common, waiting
from .waiting import Waited

DIRECTIONS: Final = ("s", "m")


class Resynced(msgspec.Struct, frozen=True):
    """What the update of a set has copied. `percent`: the share of the volume."""

    shadow: str
    chunks: int
    bytes: int
    percent: float
    seconds: float
    stopped: bool


def _parser() -> common.Parser:
    about = "Update the shadows (s) or the masters (m) of some sets and wait until they are whole."
    parser = common.Parser("iiresync", "[s|m] (-g GRP | SET...)", about)
    parser.add_sets()
    parser.add_no_question()
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_resync, argv)


def _resync(args: argparse.Namespace) -> None:
    words = list(args.words)
    direction = words.pop(0) if words and words[0] in DIRECTIONS else "s"
    client, target = common.client(args), common.target(words, args.group)
    to = cast("Literal['s', 'm']", direction)

    def update(sure: bool) -> tuple[float, list[SetStatus]]:
        request = protocol.Update(to, full=False, target=target, sure=sure)
        return time.monotonic(), client.call(request, list[SetStatus])

    began, rows = ask.when_asked(update, sure=args.sure)
    common.say_unjoined(rows)
    ended = waiting.for_copies(client, rows, began)
    _report(args, [_resynced(waited) for waited in ended])
    for waited in ended:
        _check(waited)


def _resynced(waited: Waited) -> Resynced:
    row = waited.row
    copied = min(row.copied_chunks * row.chunk_bytes, row.size_bytes)
    percent = round(100 * row.copied_chunks / row.chunks, 2)
    seconds = round(waited.seconds, 3)
    return Resynced(row.shadow, row.copied_chunks, copied, percent, seconds, waited.stopped)


def _check(waited: Waited) -> None:
    if waited.stopped:
        left = f"still to be copied: {count(waited.row.copy_bits, 'chunk')}"
        why = waited.row.offline_reason or left
        way = state.how_to_end_copy(waited.row.shadow, common.state_of(waited.row))
        raise errors.CopyStopped(waited.row.shadow, f"the copy was aborted or failed, {why}", way)


def _report(args: argparse.Namespace, results: Sequence[Resynced]) -> None:
    if args.json:
        common.emit(protocol.to_json({"sets": results}))
        return
    for one in results:
        size = f"{format_size(one.bytes)}, {one.percent}% of the volume"
        copied = f"{count(one.chunks, 'chunk')}, {size}"
        end = ", stopped" if one.stopped else ""
        common.emit(f"{one.shadow}: {copied}, {one.seconds} s{end}")
