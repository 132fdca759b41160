"""Reads the words of iiadm into a Command.

argparse cannot do this: `-u` may be followed by s, by m or by the first set, and `-g` may be
followed by a group or by -L.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from iifuse import errors
from iifuse.control.protocol import LIMIT_S_MAX, Tuning
from iifuse.units import nearest

from .verbs import ACTIONS, CHOICES, EVERY, LONG_ACTIONS, MODIFIERS

_LETTERS: Final = (*ACTIONS, "g", "n")
_WORDS: Final = {
    shape.word: f"-{letter}" if letter != "L" else "-g -L" for letter, shape in ACTIONS.items()
} | {"info": "-i", "group": "-g", "snapshot": "-u", "restore": "-u m", "resync": "-u"}
"""Word -> the action that a user may mean by it."""
_BEHIND: Final = {"o": "OPT,...", "w": "[--timeout S]", "-history": "[--last N]"}
"""Action -> what its usage line shows before the words."""


@dataclass
class Command:
    """One call of iiadm. `action`: its letter, or L for `-g -L`.

    `choice`: ind or dep after -e; s or m after -u and -c. `words`: the other words, as typed.
    `timeout`: in seconds. `everywhere`: ask every service that runs.
    """

    action: str = ""
    choice: str = ""
    words: list[str] = field(default_factory=list)
    group: str | None = None
    sure: bool = False
    json: bool = False
    long: bool = False
    dry_run: bool = False
    everywhere: bool = False
    timeout: float | None = None
    last: int | None = None
    extents: str | None = None
    socket: str | None = None
    instance: str | None = None
    tuning: Tuning = field(default_factory=Tuning)
    reserve: bool = False


def parse(argv: Sequence[str]) -> Command:
    """The command that the words of a call mean. Raises UsageError."""
    reader = _Reader(argv)
    reader.read()
    command = reader.command
    if reader.tunings:
        _tune(command, reader.tunings)
    if not command.action:
        _check_bare(command)
        command.action = "l"
    _check(command)
    _check_modifiers(command, reader.modifiers)
    return command


def usage(argv: Sequence[str]) -> str:
    """A line about the usage of the action in these words, or of iiadm if there is none."""
    for word in argv:
        letter = LONG_ACTIONS.get(word) or (word[1:2] if word.startswith("-") else "")
        if letter in ACTIONS and letter != "L":
            choice = "|".join(CHOICES.get(letter, ()))
            choice = f"[{choice}]" if letter == "u" else choice or _BEHIND.get(letter, "")
            form = f"-{letter} {choice} {ACTIONS[letter].what}"
            return f"usage: iiadm {' '.join(form.split())}; 'iiadm -h' explains all"
    return "usage: iiadm -ACTION [option...] [SET...]; 'iiadm -h' explains all"


def _tune(command: Command, words: list[str]) -> None:
    """Read the words of `-o`, which goes with -e or is an action of its own. Raises UsageError."""
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
    if name == "limit":
        raise _wrong(f"limit= takes 1 to {LIMIT_S_MAX} (seconds) or none, not {value!r}")
    raise _wrong(f"-o knows break=shadow|write, limit=SECONDS|none and reserve, not {word!r}")


def _wrong(text: str, todo: str = "") -> errors.UsageError:
    return errors.UsageError("", text, todo)


def _near(word: str, known: Sequence[str]) -> str:
    """'did you mean X?' with a similar word; empty: none is similar."""
    found = nearest(word, known)
    return f"did you mean {found}?" if found else ""


def _unknown(option: str) -> errors.UsageError:
    """The error for an unknown option. It names a similar one."""
    if not option.startswith("--"):
        other = option.swapcase()
        near = f"did you mean {other}?" if other[1:] in _LETTERS else ""
        return _wrong(f"unknown option {option}", near)
    by_word = _WORDS.get(option[2:])
    near = f"did you mean {by_word}?" if by_word else _near(option, [*LONG_ACTIONS, *MODIFIERS])
    return _wrong(f"unknown option {option}", near)


def _check_bare(command: Command) -> None:
    modified = command.sure or command.group is not None or command.timeout is not None
    if command.words or modified:
        word = command.words[0] if command.words else ""
        known = _WORDS.get(word) or _WORDS.get(nearest(word, _WORDS))
        raise _wrong("no action: say what to do", f"did you mean {known}?" if known else "")


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
    if letter == "i" and EVERY in command.words[:1] and len(command.words) > 1:
        raise _wrong(f"-i takes names of sets or '{EVERY}', not both")
    if letter == "u" and len(command.words) > 1:
        _check_direction(command.words[0])


def _check_direction(word: str) -> None:
    """Raise UsageError if the first set looks like a direction, since probably that was meant."""
    if word in CHOICES["u"]:
        raise _wrong(
            f"{word} has to stand right behind -u: -u {word}", f"a set of this name is ./{word}"
        )
    if re.fullmatch(r"\w", word):
        raise _wrong(
            f"{word} is no direction: s is to the shadow, m to the master",
            f"a set of this name is ./{word}",
        )


def _check_modifiers(command: Command, given: Sequence[str]) -> None:
    for option in given:
        actions = MODIFIERS[option].actions
        if actions and command.action not in actions:
            raise _wrong(f"{option} is for {_listed([_shown(action) for action in actions])}")
    if command.json and command.action in ("u", "c") and not command.dry_run:
        raise _wrong(f"--json is for -{command.action} together with --dry-run")
    if command.everywhere and (command.socket or command.instance or command.words):
        raise _wrong("--all asks every service about all its sets: name none of them")


def _shown(action: str) -> str:
    return "-g -L" if action == "L" else f"-{action}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


class _Reader:
    """Reads the words from left to right into a command."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.rest = list(argv)
        self.command = Command()
        self.tunings: list[str] = []
        self.modifiers: list[str] = []

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
        known = MODIFIERS.get(name)
        if known is not None and known.value:
            text: Any = value if equals else self._next(name)
        elif equals or (known is None and name not in LONG_ACTIONS):
            raise _unknown(word)
        elif known is None:
            self._action(LONG_ACTIONS[name])
            return
        else:
            text = True
        self.modifiers.append(name)
        assert known is not None
        setattr(self.command, known.name, _READ[name](text) if name in _READ else text)

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
                raise _unknown(f"-{letter}")
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
        """Take the word that belongs to a letter. Returns the letters that are left."""
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


def _count(text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,8}", text):
        raise _wrong(f"{text!r} is not a number of lines")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise _wrong(f"{text!r} is not a number of seconds")
    return seconds


_READ: Final = {"--timeout": _seconds, "--last": _count}
"""Option -> the function that reads its value, if the value is not just text."""
