"""iibitmap: works on bitmap volumes while the service is stopped."""

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Final

from iifuse import errors
from iifuse.control import protocol
from iifuse.core import loss, sector
from iifuse.core.geometry import CHUNK_BYTES, Geometry
from iifuse.core.state import Progress
from iifuse.units import command, count, format_size, parse_size

from . import ask, common, iibitmap_changed, iibitmap_dump, iibitmap_finish, iibitmap_repair
from .iibitmap_check import Checked, check
from .iibitmap_read import reading, size_of

UNKNOWN: Final = 3
"""The exit code of `changed` when it is not known what has changed."""

CODES: Final = (
    "exit codes: 0 done; 1 wrong words, or check has found something wrong; 2 failed, or check "
    "could not read a bitmap; 3 changed does not know"
)
FORMS: Final = {
    "size": "VOLUME|SIZE...",
    "check": "BITMAP...",
    "dump": "BITMAP",
    "repair": "BITMAP NEW",
    "changed": "BITMAP",
    "finish": "BITMAP MASTER SHADOW",
}
"""First word -> the words after it."""

_SIZE_MAX: Final = 1 << 60


def _parser() -> common.Parser:
    about = "Look into bitmap volumes, mend them and use them. The service must not be using them."
    parser = common.Parser("iibitmap", "VERB ARGUMENT...", about, codes=CODES, asks=False)
    forms = "; ".join(f"{verb} {form}" for verb, form in FORMS.items())
    parser.add_argument("verb", metavar="VERB", choices=FORMS, help=forms)
    parser.add_argument("words", metavar="ARGUMENT", nargs="*", help="what the verb takes")
    parser.add_argument("--bits", action="store_true", help="with dump: the bits as extents too")
    parser.add_no_question()
    return parser


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    return _parser().options()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program. Returns its exit code."""
    return _parser().main(_act, argv)


def _act(args: argparse.Namespace) -> None:
    form = FORMS[args.verb]
    wanted, given = len(form.split()), len(args.words)
    if given < wanted or (given > wanted and not form.endswith("...")):
        raise errors.UsageError("", f"{args.verb} takes {form}")
    if args.bits and args.verb != "dump":
        raise errors.UsageError("", "--bits is for dump")
    if args.sure and args.verb != "finish":
        raise errors.UsageError("", "-n is for finish")
    _VERBS[args.verb](args)


def _put(args: argparse.Namespace, result: object, lines: Iterable[str]) -> None:
    """Print a result as JSON or as text."""
    if args.json:
        common.emit(protocol.to_json(result))
    else:
        for line in lines:
            common.emit(line)


# -- size -----------------------------------------------------------------------------------


def _size(args: argparse.Namespace) -> None:
    rows = [_sizes(word) for word in args.words]
    _put(args, {"volumes": rows}, (str(row["bitmap_bytes"]) for row in rows))


def _sizes(word: str) -> dict[str, object]:
    size = size_of(word) if os.path.exists(word) else _parsed(word)
    if not 0 < size < _SIZE_MAX:
        raise errors.UsageError(word, f"no volume has {size} bytes")
    chunks = Geometry(size).chunks
    return {
        "volume": word,
        "size_bytes": size,
        "chunks": chunks,
        "bitmap_bytes": sector.bitmap_bytes(chunks),
    }


def _parsed(word: str) -> int:
    try:
        return parse_size(word)
    except (ValueError, OverflowError) as error:
        raise errors.UsageError(word, "is neither a volume nor a size such as 100G") from error


# -- looking --------------------------------------------------------------------------------


def _check(args: argparse.Namespace) -> None:
    rows = [_checked(path) for path in args.words]
    _put(args, {"bitmaps": rows}, (line for row in rows for line in _findings(row)))
    if not all(row.readable for row in rows):
        raise SystemExit(errors.BadBitmap.exit_code)
    if any(row.wrong for row in rows):
        raise SystemExit(errors.UsageError.exit_code)


def _checked(path: str) -> Checked:
    try:
        with reading(path) as found:
            return check(found)
    except errors.IifuseError as error:
        return Checked(path, (f"{error.why}; {error.todo}".rstrip("; "),), readable=False)


def _findings(row: Checked) -> list[str]:
    name = common.printable(row.bitmap)
    lines = [f"{name}: {text}" for text in (*row.wrong, *row.notes)]
    return lines if row.wrong else [f"{name}: fine", *lines]


def _dump(args: argparse.Namespace) -> None:
    with reading(args.words[0]) as found:
        result = iibitmap_dump.dump(found, bits=args.bits)
    _put(args, result, [iibitmap_dump.text(result)])


def _changed(args: argparse.Namespace) -> None:
    with reading(args.words[0]) as found:
        reason = iibitmap_changed.unknown(found)
        extents = [] if reason else iibitmap_changed.extents(found)
    if reason:
        _put(args, {"known": False, "reason": reason, "extents": None}, ["unknown"])
        common.say(f"iibitmap: {args.words[0]}: what has changed is unknown: {reason}")
        raise SystemExit(UNKNOWN)
    rows = [{"offset": offset, "length": length} for offset, length in extents]
    lines = (f"{offset} {length}" for offset, length in extents)
    _put(args, {"known": True, "reason": None, "extents": rows}, lines)


# -- mending --------------------------------------------------------------------------------


def _repair(args: argparse.Namespace) -> None:
    old, new = args.words
    with reading(old) as found:
        for number, why in enumerate(found.slots):
            if why:
                common.say(f"iibitmap: {old}: header slot {number}: {why}; the other one counts")
        result = iibitmap_repair.repair(found, new)
        reset = command("iiadm -R", found.header.shadow)
    lines = [f"{new}: {count(result.damaged_sectors, 'damaged sector')}"]
    if result.different_chunks:
        kept = f"counted as different: {count(result.different_chunks, 'chunk')}"
        lines.append(f"{new}: {kept} ({format_size(result.different_chunks * CHUNK_BYTES)})")
    lines += [
        f"{new}: the {role} is marked offline; start the service, then {reset} brings it back"
        for role in result.offline
    ]
    _put(args, result, map(common.printable, lines))


def _finish(args: argparse.Namespace) -> None:
    bitmap, master, shadow = args.words
    with ExitStack() as stack:
        parts = iibitmap_finish.open_parts(bitmap, master, shadow, stack)
        if parts.found.header.progress is not Progress.IDLE:
            lost = iibitmap_finish.losses(parts)
            ask.when_asked(lambda sure: loss.check(lost, sure=sure), sure=args.sure)
        result = iibitmap_finish.finish(parts)
    line = f"{bitmap}: {count(result.chunks, 'chunk')} copied, {format_size(result.bytes)} of data"
    _put(args, result, [common.printable(line)])


_VERBS: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "size": _size,
    "check": _check,
    "dump": _dump,
    "repair": _repair,
    "changed": _changed,
    "finish": _finish,
}
