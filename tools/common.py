"""What all programs share: how they end, print, read their words and name sets."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NoReturn, TypeVar

from iifuse import __version__, arguments, errors, streams, terminal
from iifuse.control import protocol, services
from iifuse.control.client import Client
from iifuse.core import state

from .trackingclient import TrackingClient

INTERRUPTED: Final = 130
"""Exit code after Ctrl-C: 128 + SIGINT, as shells count."""

PIPE_CLOSED: Final = 141
"""Exit code when nobody reads our output: 128 + SIGPIPE."""

EXIT_CODES: Final = "exit codes: 0 done; 1 wrong words, a no, a copy that runs or stopped; 2 failed"

T = TypeVar("T")
R = TypeVar("R")


class OutputClosed(Exception):  # no IifuseError, because the program has to end quietly
    """Nobody reads our output any more."""


def run(program: str, summary: str, body: Callable[[], None], *, asks: bool = True) -> int:
    """Run a program's body. Returns the exit code. An exception becomes one line on stderr.

    `summary`: how to call the program; it is printed after a UsageError without a remedy. `asks`:
    does the program ask the service?
    """
    streams.hold_places()
    TrackingClient.begun = False
    try:
        body()
    except SystemExit as done:  # how argparse ends after --help and --version
        return done.code if isinstance(done.code, int) else 0
    except errors.IifuseError as error:
        say(f"{program}: {error}")
        if isinstance(error, errors.UsageError) and not error.todo:
            say(summary.rstrip())
        return error.exit_code
    except KeyboardInterrupt:
        say(f"{program}: interrupted{_what_goes_on() if asks else ''}")
        return INTERRUPTED
    except OutputClosed:
        _forget_output()
        return PIPE_CLOSED
    except Exception as error:  # noqa: BLE001  # a user never sees a traceback
        defect = errors.InternalError("", f"unexpected {type(error).__name__} ({error})")
        say(f"{program}: {defect}")
        return defect.exit_code
    return 0


def _what_goes_on() -> str:
    return "; what the service has begun goes on" if TrackingClient.begun else "; nothing was done"


def _forget_output() -> None:
    # Otherwise the interpreter writes the rest of its buffer at exit, and reports an error.
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
    os.close(sink)


def emit(text: str, end: str = "\n") -> None:
    """Print a result on stdout at once.

    Raises OutputClosed if nobody reads it, and StorageError if it cannot be written.
    """
    if sys.stdout is None:
        raise errors.StorageError("standard output", "is closed")
    try:
        print(text, end=end, flush=True)
    except BrokenPipeError as error:
        raise OutputClosed from error
    except OSError as error:
        _forget_output()
        raise errors.StorageError("standard output", f"{error.strerror}") from error


def say(text: str) -> None:
    """Print a message for the user on stderr. If that is not possible, it is left out."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(terminal.fitted(text, sys.stderr), file=sys.stderr, flush=True)


def client(args: argparse.Namespace) -> Client:
    """A client for the service that the user means. Raises ServiceError, UsageError."""
    return TrackingClient(services.find(args.socket, args.instance))


def tell(client: Client, request: protocol.AnyRequest) -> tuple[str, ...]:
    """Send a request that is answered with remarks. Print them on stderr, and return them."""
    notes = client.notes(request)
    for note in notes:
        say(note)
    return notes


def say_unjoined(rows: Iterable[protocol.SetStatus]) -> None:
    """Say why an update copies everything, if an import is not joined."""
    for row in rows:
        for bitmap in row.unjoined:
            say(f"{row.shadow}: everything is copied: the import with {bitmap} is not joined")


class Parser(argparse.ArgumentParser):
    """A parser with the options that every program has. It raises UsageError for wrong words."""

    def __init__(
        self, program: str, form: str, about: str, *, codes: str = EXIT_CODES, asks: bool = True
    ) -> None:
        """`form`: the words after the options, for the usage line. `asks`: see `run`."""
        super().__init__(
            program,
            usage=f"{program} [option...] {form}",
            description=about,
            epilog=codes,
            allow_abbrev=False,
        )
        self._asks, self._given = asks, list[str]()
        if asks:
            self.add_argument("--socket", metavar="PATH", help="control socket of the service")
            self.add_argument("--instance", metavar="NAME", help="the service iifuse@NAME")
        self.add_argument("--json", action="store_true", help="print the result as JSON")
        self.add_argument("--version", action="version", version=version(program))

    def error(self, message: str) -> NoReturn:
        """Raise UsageError, where argparse would exit with 2. The message names a similar word."""
        raise errors.UsageError("", arguments.explained(self, message, self._given))

    def _print_message(self, message: str, _file: object = None) -> None:
        # For --help and --version. argparse's own function ignores an error of the output.
        emit(message, end="")

    def add_sets(self) -> None:
        """Accept `-g GRP` or the names of sets; target() reads them."""
        self.add_argument("-g", dest="group", metavar="GRP", help="all sets of this group")
        self.add_argument("words", metavar="SET", nargs="*", help="a set, named by its shadow")

    def add_no_question(self) -> None:
        """Accept `-n`."""
        self.add_argument("-n", dest="sure", action="store_true", help="do not ask, go ahead")

    def options(self) -> list[str]:
        """All options, for the test that compares them with the man page."""
        return arguments.options(self)

    def main(self, body: Callable[[argparse.Namespace], None], argv: Sequence[str] | None) -> int:
        """Read the words and run the body. Returns the exit code."""
        self._given = list(sys.argv[1:] if argv is None else argv)

        def words() -> None:
            body(self.parse_intermixed_args(self._given))

        return run(self.prog, self.format_usage(), words, asks=self._asks)


def version(program: str) -> str:
    """The text for --version."""
    return f"{program} (iifuse) {__version__}"


@contextmanager
def removed_on_error(path: str) -> Iterator[None]:
    """Remove a new file after an error: half a file could be taken for a whole one."""
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.unlink(path)
        raise


def printable(text: str) -> str:
    """A text with all unprintable characters escaped, which a terminal could obey."""
    return "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text)


def absolute(word: str) -> str:
    """An absolute path for a word. Links stay. Raises UsageError for a name that is no path."""
    if not word:
        raise errors.UsageError("", "an empty name is not a path")
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise errors.UsageError(ascii(word), "the name is not UTF-8") from error
    return os.path.abspath(word)


def volumes(words: Iterable[str]) -> tuple[str, ...]:
    """The absolute paths in some words, without repetition. A word may be a list with commas."""
    paths = [absolute(name) for word in words for name in _names(word)]
    return tuple(dict.fromkeys(paths))


def _names(word: str) -> list[str]:
    # A comma is legal in a file's name: a word that is the name of a file is one name.
    if "," not in word or os.path.lexists(word):
        return [word]
    return [name.strip() for name in word.split(",") if name.strip()]


def target(words: Iterable[str], group: str | None) -> protocol.Target:
    """The target: sets by name, or a group. Raises UsageError unless it is exactly one of them."""
    sets = volumes(words)
    if group == "":
        raise errors.UsageError("", "the name of the group is empty")
    if bool(sets) == (group is not None):
        raise errors.UsageError("", "name either sets or a group (-g GRP)")
    return protocol.Target(sets, group)


def members(client: Client, wanted: protocol.Target) -> list[protocol.SetStatus]:
    """The sets of a target. Raises NotFound when there are none."""
    rows = client.status(wanted)
    if not rows:
        raise errors.NotFound(wanted.group or "", "no sets")
    return rows


def state_of(row: protocol.SetStatus) -> state.SetState:
    """The state of a set, for the state table.

    Volumes that are missing do not count as offline, because they may be back when the verb comes.
    """
    awaited = (*(row.waiting or ()), *(row.replaced or ()))
    offline = state.NOTHING_OFFLINE
    for role in row.offline:
        offline |= state.NOTHING_OFFLINE if role in awaited else state.Role[role.upper()]
    whole = row.kind == "independent"
    return state.SetState(
        kind=state.Kind.INDEPENDENT if whole else state.Kind.DEPENDENT,
        progress=state.Progress[row.progress.upper()],
        copying=row.copying,
        custody=state.Custody[row.custody.upper()],
        offline=offline,
    )


def one_by_one(
    done: str, items: Sequence[T], name: Callable[[T], str], act: Callable[[T], R]
) -> list[R]:
    """Act on each item. At the first error say how far this came, and stop.

    `done`: the word for an item that was finished, such as 'exported'.
    """
    results: list[R] = []
    try:
        for item in items:
            results.append(act(item))  # noqa: PERF401  # the error has to know how far we came
    except (errors.IifuseError, KeyboardInterrupt):
        names = [name(item) for item in items]
        at = len(results)
        say(f"{done}: {', '.join(names[:at]) or 'none'}")
        say(f"stopped at: {names[at]}")
        say(f"not tried: {', '.join(names[at + 1 :]) or 'none'}")
        raise
    return results
