"""The words of iiadm. Pure: words in, a Command or a UsageError out.

By hand, because `-u` may be followed by s, m or the first set, and `-g` by a group or by -L.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from iifuse import errors
from iifuse.control.protocol import LIMIT_S_MAX, Tuning

SUMMARY: Final = """\
usage: iiadm -e ind|dep MASTER SHADOW BITMAP
       iiadm -u [s|m] SET... | -c s|m SET... | -d SET | -a SET | -w SET
       iiadm -i [SET|all] | -l
       iiadm -E SET | -I SHADOW BITMAP [TICKET] | -J SET BITMAP
       iiadm -R SET | --give-up [--extents FILE] SET | -o OPT,... SET... | --attach BITMAP...
       iiadm -g GRP -e|-u|-c|-d|-a|-w|-i|-l|-E|-R|-o ... | -g GRP -m SET... | -g -L
       iiadm -h | -v
"""

HELP: Final = """\

Administers point-in-time copies. A set is named by its shadow's path. With no words: -l.

  -e ind|dep M S B  make a set of master, shadow and bitmap: independent or dependent
  -u [s|m] SET...   update the shadow (s; s without a letter too) or the master (m): a new
                    point in time, common to all; only chunks that differ are copied
  -c s|m SET...     the same, copying every chunk
  -d SET            disable: take the set apart
  -a SET            abort the running copy
  -w SET            wait for the running copy
  -i [SET|all]      status
  -l                list the sets
  -E SET            export the shadow to another host
  -I S B [TICKET]   import a shadow, tracking its changes in bitmap B
  -J SET B          join: take the shadow back and merge the other host's bitmap
  -R SET            reset: bring back what is offline, or a shadow whose importer is lost
  --give-up SET     end an aborted restore that cannot be finished; prints what was not restored
  -o OPT,... SET... what a failing shadow means; also together with -e:
                      break=shadow   it goes offline and the write goes on (as it is at first)
                      break=write    the write to the master fails, the shadow stays good
                      limit=SECONDS  give a slow shadow up after so long; limit=none: never
                      reserve        with -e: allocate all of the shadow's space now
  --attach BITMAP...  bring back the sets of these bitmap volumes, unknown to the service
  -g GRP            act on all sets of a group; with -e: make the set in the group
  -g GRP -m SET...  put sets into a group; an empty GRP takes them out of theirs
  -g -L             list the groups
  -n                do not ask, go ahead
  --extents FILE    with --give-up: write what was not restored to this new file
  --timeout S       with -w: wait at most S seconds
  --json            with -i, -l, -g -L and --give-up: print JSON
  --socket PATH     control socket of the service (else IIFUSE_SOCKET)
  -h, --help        this text
  -v, --version     version

exit codes: 0 done; 1 wrong words, a no, a copy that runs or stopped; 2 failed
"""

MANY: Final = 1 << 30

Count = tuple[int, int]
"""How many words an action takes: at least, at most."""


@dataclass(frozen=True)
class Shape:
    """What an action takes with no group (`alone`) and in a group; None: not possible."""

    alone: Count | None
    grouped: Count | None
    what: str


ACTIONS: Final = {
    "e": Shape((3, 3), (3, 3), "MASTER SHADOW BITMAP"),
    "d": Shape((1, 1), (0, 0), "SET"),
    "u": Shape((1, MANY), (0, 0), "SET..."),
    "c": Shape((1, MANY), (0, 0), "SET..."),
    "a": Shape((1, 1), (0, 0), "SET"),
    "w": Shape((1, 1), (0, 0), "SET"),
    "i": Shape((0, 1), (0, 0), "[SET|all]"),
    "l": Shape((0, 0), (0, 0), ""),
    "E": Shape((1, 1), (0, 0), "SET"),
    "I": Shape((2, 3), None, "SHADOW BITMAP [TICKET]"),
    "J": Shape((2, 2), None, "SET BITMAP"),
    "R": Shape((1, 1), (0, 0), "SET"),
    "o": Shape((1, MANY), (0, 0), "SET..."),
    "-attach": Shape((1, MANY), (1, MANY), "BITMAP..."),
    "-give-up": Shape((1, 1), None, "SET"),
    "m": Shape(None, (1, MANY), "SET..."),
    "L": Shape((0, 0), None, ""),
    "h": Shape((0, 0), None, ""),
    "v": Shape((0, 0), None, ""),
}
"""Letter -> shape."""

CHOICES: Final = {"e": ("ind", "dep"), "c": ("s", "m"), "u": ("s", "m")}
"""The word that has to follow some letters; for -u it may be left out."""

_LONG: Final = (
    "--socket", "--timeout", "--extents", "--json", "--help", "--version", "--attach", "--give-up",
)  # fmt: skip
_REPORTS: Final = ("i", "l", "L", "-give-up")


def options() -> list[str]:
    """Every option, for the comparison with the man page."""
    letters = (*(letter for letter in ACTIONS if not letter.startswith("-")), "g", "n")
    return sorted([*(f"-{letter}" for letter in letters), *_LONG])


@dataclass
class Command:
    """One call of iiadm. `action` is its letter, L for `-g -L`.

    `choice`: ind or dep for e, s or m for u and c. `words`: as typed. `timeout`: seconds.
    """

    action: str = ""
    choice: str = ""
    words: list[str] = field(default_factory=list)
    group: str | None = None
    sure: bool = False
    json: bool = False
    timeout: float | None = None
    extents: str | None = None
    socket: str | None = None
    tuning: Tuning = field(default_factory=Tuning)
    reserve: bool = False


def parse(argv: Sequence[str]) -> Command:
    """Raises UsageError."""
    reader = _Reader(argv)
    reader.read()
    command = reader.command
    if reader.tunings:
        _tune(command, reader.tunings)
    if not command.action:
        _check_bare(command)
        command.action = "l"
    _check(command)
    return command


def _tune(command: Command, words: list[str]) -> None:
    """`-o` goes with -e, or is an action of its own."""
    if command.action not in ("", "e"):
        raise _wrong(f"-o is for -e or by itself, not for -{command.action}")
    found = dict(_tuning(word) for word in words)
    command.reserve = bool(found.pop("reserve", False))
    if command.reserve and not command.action:
        raise _wrong("reserve is for -e")
    command.tuning = Tuning(**found)
    command.action = command.action or "o"


def _tuning(word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    if word == "reserve":
        return "reserve", True
    if name == "break" and value in ("shadow", "write"):
        return "break_write", value == "write"
    if name == "limit" and value == "none":
        return "limit_s", 0
    if name == "limit" and re.fullmatch(r"[1-9][0-9]{0,8}", value) and int(value) <= LIMIT_S_MAX:
        return "limit_s", int(value)
    raise _wrong(f"-o knows break=shadow|write, limit=SECONDS|none and reserve, not {word!r}")


def _wrong(text: str) -> errors.UsageError:
    return errors.UsageError("", text)


def _check_bare(command: Command) -> None:
    modified = command.sure or command.group is not None or command.timeout is not None
    if command.words or modified:
        raise _wrong("no action: say what to do")


def _check(command: Command) -> None:
    letter, shape = command.action, ACTIONS[command.action]
    grouped = command.group is not None
    if command.group == "" and letter != "m":
        raise _wrong("an empty group name is for -m only")
    count = shape.grouped if grouped else shape.alone
    if count is None:
        raise _wrong(f"-{letter} is not for groups" if grouped else f"-{letter} needs -g GRP")
    if not count[0] <= len(command.words) <= count[1]:
        form = f"-{letter} takes {shape.what if count[1] else 'no volume'}"
        raise _wrong(f"{form} with -g" if grouped else form)
    if command.json and letter not in _REPORTS:
        raise _wrong("--json is for -i, -l, -g -L and --give-up")
    if command.extents is not None and letter != "-give-up":
        raise _wrong("--extents is for --give-up")
    if command.timeout is not None and letter != "w":
        raise _wrong("--timeout is for -w")


class _Reader:
    """Reads the words from left to right into a command."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.rest = list(argv)
        self.command = Command()
        self.tunings: list[str] = []

    def read(self) -> None:
        while self.rest:
            word = self.rest.pop(0)
            if word == "--":
                self.command.words += self.rest
                return
            if word.startswith("--"):
                self._long(word)
            elif word.startswith("-") and word != "-":
                self._letters(word[1:])
            else:
                self.command.words.append(word)

    def _long(self, word: str) -> None:
        name, equals, value = word.partition("=")
        if name in ("--socket", "--timeout", "--extents"):
            text = value if equals else self._next(name)
            if name == "--socket":
                self.command.socket = text
            elif name == "--extents":
                self.command.extents = text
            else:
                self.command.timeout = _seconds(text)
        elif equals or name not in _LONG:
            raise _wrong(f"unknown option {word}")
        elif name == "--json":
            self.command.json = True
        else:
            self._action({"--help": "h", "--version": "v"}.get(name, name[1:]))

    def _letters(self, letters: str) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter == "n":
                self.command.sure = True
            elif letter == "g":
                self._group(letters)
                return
            elif letter == "o":
                self.tunings += (letters or self._next("-o")).split(",")
                return
            elif letter not in ACTIONS:
                raise _wrong(f"unknown option -{letter}")
            elif letter == "L":
                raise _wrong("-L is for -g: 'iiadm -g -L' lists the groups")
            else:
                self._action(letter)
                letters = self._choice(letter, letters)

    def _group(self, attached: str) -> None:
        name = attached or self._next("-g")
        if name == "-L":
            self._action("L")
            return
        if name.startswith("-"):
            raise _wrong(f"-g needs the name of a group, not {name}")
        if self.command.group is not None:
            raise _wrong("one group at a time")
        self.command.group = name

    def _action(self, letter: str) -> None:
        if self.command.action:
            raise _wrong(f"one action at a time, not -{self.command.action} and -{letter}")
        self.command.action = letter

    def _choice(self, letter: str, attached: str) -> str:
        """Take the word that belongs to a letter; the letters that are left."""
        known = CHOICES.get(letter, ())
        if attached in known:
            self.command.choice = attached
            return ""
        if known and not attached and self.rest and self.rest[0] in known:
            self.command.choice = self.rest.pop(0)
        elif letter == "u":
            self.command.choice = "s"
        elif known:
            raise _wrong(f"-{letter} needs {' or '.join(known)}")
        return attached

    def _next(self, option: str) -> str:
        if not self.rest:
            raise _wrong(f"{option} needs a value")
        return self.rest.pop(0)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise _wrong(f"{text!r} is not a number of seconds")
    return seconds
