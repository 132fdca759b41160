"""The command line of `iifuse`."""

import argparse
import os
import re
import sys
from dataclasses import dataclass, field
from typing import Final, NoReturn

from iifuse import __version__, arguments, errors, logs
from iifuse.control.protocol import DEFAULT_SOCKET, SOCKET_VARIABLE
from iifuse.store.transport import DeclaredPlaces

DEFAULT_STATE: Final = "/var/lib/iifuse"
_OPTIONS: Final = (
    "stop_wait=SECONDS, durability=ordered|process, writeback_cache, in_place, local=PATH, "
    "remote=PATH"
)


@dataclass(frozen=True)
class Options:
    """The options of `-o`. `stop_wait`: seconds that SIGTERM waits for open files."""

    stop_wait: float = 30.0
    ordered: bool = True
    writeback_cache: bool = False
    in_place: bool = False
    declared: DeclaredPlaces = field(default_factory=DeclaredPlaces)


def parse_options(words: list[str]) -> Options:
    """Read the words of `-o`, such as `a,b=c`. Raises UsageError."""
    found: dict[str, float | bool] = {}
    declared: dict[str, list[str]] = {"local": [], "remote": []}
    for word in ",".join(words).split(",") if words else []:
        name, _, value = word.partition("=")
        if name == "stop_wait" and re.fullmatch(r"\d+(\.\d+)?", value):
            found["stop_wait"] = float(value)
        elif name == "durability" and value in ("ordered", "process"):
            found["ordered"] = value == "ordered"
        elif name in ("writeback_cache", "in_place") and not value:
            found[name] = True
        elif name in ("local", "remote") and value.startswith("/"):
            declared[name].append(os.path.normpath(value))
        else:
            raise errors.UsageError(
                f"-o {word}",
                "is not an option of the mount",
                _OPTIONS,
            )
    places = DeclaredPlaces(tuple(declared["local"]), tuple(declared["remote"]))
    return Options(**found, declared=places)  # type: ignore[arg-type]


class _Parser(argparse.ArgumentParser):
    """A parser that raises UsageError for wrong words."""

    def error(self, message: str) -> NoReturn:
        if sys.stderr is not None:
            self.print_usage(sys.stderr)
        text = arguments.explained(self, message, sys.argv[1:])
        raise errors.UsageError("", text, "see iifuse --help")


def parser() -> argparse.ArgumentParser:
    """The parser for the command line of `iifuse`."""
    p = _Parser(
        prog="iifuse",
        description="Present volumes and their point-in-time copies as files under MOUNTPOINT.",
        epilog="Runs in the foreground; SIGTERM stops it. See iifuse(8) and iifuse(7).",
    )
    p.add_argument("mountpoint", metavar="MOUNTPOINT", help="an existing directory")
    p.add_argument("--state", metavar="DIR", default=DEFAULT_STATE, help="default: %(default)s")
    p.add_argument(
        "--socket",
        metavar="PATH",
        default=os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET,
        help="control socket; default: %(default)s",
    )
    p.add_argument(
        "-o", metavar="OPT,...", dest="options", action="append", default=[], help=_OPTIONS
    )
    p.add_argument("--daemon", action="store_true", help="run in the background; return when ready")
    p.add_argument(
        "--log",
        metavar="FILE",
        help=f"where the log goes, or '{logs.SYSLOG}'; default: standard error, "
        f"with --daemon {logs.SYSLOG}, or DIR/log where there is none",
    )
    p.add_argument("--version", action="version", version=f"iifuse {__version__}")
    return p
