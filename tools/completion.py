"""The completion of the programs' words for bash and zsh, made from their parsers.

`python -m iitools.completion bash|zsh` prints it, and `make install` installs it. Both shells get
the same tables and the same lines that read them. These lines ask the service for the names of its
sets and groups, without messages and for two seconds at most.
"""

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, distribution
from typing import Final

from iifuse.control import services

from . import verbs
from .completion_text import BASH, ZSH

FILE, SET, GROUP, INSTANCE, NOTHING = "@file", "@set", "@group", "@instance", "@nothing"

_KINDS: Final = {
    "FILE": FILE, "PATH": FILE, "DIR": FILE, "MOUNTPOINT": FILE, "TICKET": FILE, "VOLUME": FILE,
    "BITMAP": FILE, "ARGUMENT": FILE, "SET": SET, "GRP": GROUP, "NAME": INSTANCE,
}  # fmt: skip
"""Word of a usage line -> what it stands for. Nothing is known of other words."""

Table = dict[str, str]


class Tables:
    """The words that may come at each place of a command line. Keys begin with the program.

    `options`: all options of a program. `after`: what may follow an option. `words`: what else may
    come, in general, or after a certain option or first word.
    """

    def __init__(self) -> None:
        self.options: Table = {}
        self.after: Table = {}
        self.words: Table = {}

    def add(self, entry: EntryPoint) -> None:
        """Add a program."""
        if entry.name == "iiadm":
            self._add_iiadm()
            return
        entry.load()
        module = sys.modules[entry.module]
        parser = getattr(module, "_parser", None) or module.parser
        self._add_parser(entry.name, parser())

    def _add_parser(self, program: str, parser: argparse.ArgumentParser) -> None:
        options: list[str] = []
        for action in _actions(parser):
            options += action.option_strings
            for option in action.option_strings if action.nargs != 0 else ():
                self.after[f"{program} {option}"] = _what(action)
        self.options[program] = " ".join(sorted(set(options)))
        words = [_what(action) for action in _positionals(parser)]
        if "[s|m]" in (parser.usage or ""):
            words.append("s m")
        self.words[program] = " ".join(dict.fromkeys(words)) or NOTHING
        for choice in _choices(parser):
            self.words[f"{program} {choice}"] = FILE

    def _add_iiadm(self) -> None:
        self.options["iiadm"] = " ".join(verbs.options())
        for option, modifier in verbs.MODIFIERS.items():
            if modifier.value:
                self.after[f"iiadm {option}"] = _KINDS.get(modifier.value, NOTHING)
        self.after["iiadm -g"] = GROUP
        tunings = re.findall(r"^ {22}(\w+=(?=[A-Z])|[\w=]+)", verbs.HELP, re.MULTILINE)
        self.after["iiadm -o"] = " ".join(tunings)
        for letter, words in verbs.CHOICES.items():
            taken = [*words, SET] if letter == "u" else words  # -u may do without its word
            self.after[f"iiadm -{letter}"] = " ".join(taken)
        self.words["iiadm"] = SET
        for letter, shape in verbs.ACTIONS.items():
            self.words[f"iiadm -{letter}"] = _taken(shape.what)


def _own(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001  # argparse has no public name for this


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All actions of a parser, and of the parsers for its verbs."""
    for action in _own(parser):
        yield action
        below = action.choices if isinstance(action.choices, dict) else {}
        for value in below.values():
            if isinstance(value, argparse.ArgumentParser):
                yield from _actions(value)


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in _own(parser) if not action.option_strings]


def _choices(parser: argparse.ArgumentParser) -> list[str]:
    """The first words of a program that has several verbs."""
    return [str(choice) for action in _positionals(parser) for choice in action.choices or ()]


def _what(action: argparse.Action) -> str:
    """What may be the value of an action."""
    if action.choices is not None:
        return " ".join(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if metavar.startswith("OPT"):
        return " ".join(_listed(action.help or ""))
    return _KINDS.get(metavar, NOTHING)


def _listed(text: str) -> Iterator[str]:
    """`a=SECONDS, b=x|y, c` -> `a=`, `b=x`, `b=y`, `c`."""
    for word in text.split(", "):
        name, equals, value = word.partition("=")
        if not equals or value.isupper():
            yield name + equals
        else:
            yield from (f"{name}={choice}" for choice in value.split("|"))


def _taken(form: str) -> str:
    """What the words of an action of iiadm may be: sets, or files."""
    if not form:
        return NOTHING
    if not form.strip("[").startswith("SET"):
        return FILE
    also = FILE if "BITMAP" in form else verbs.EVERY if verbs.EVERY in form else ""
    return f"{SET} {also}".strip()


def tables() -> Tables:
    """The tables of all programs that are installed."""
    found = Tables()
    for entry in distribution("iifuse").entry_points:
        found.add(entry)
    return found


def _pairs(table: Table) -> str:
    return "\n".join(f"    {shlex.quote(key)} {shlex.quote(table[key])}" for key in sorted(table))


def _assigned(table: Table) -> str:
    return "\n".join(f"    [{shlex.quote(key)}]={shlex.quote(table[key])}" for key in sorted(table))


def bash() -> str:
    """The file for bash, for all programs."""
    return _filled(BASH, tables(), _assigned)


def zsh() -> str:
    """The file for zsh, for all programs. Its name has to be `_iifuse`."""
    return _filled(ZSH, tables(), _pairs)


def _filled(text: str, found: Tables, write: Callable[[Table], str]) -> str:
    return (
        text.replace("@PROGRAMS@", " ".join(sorted(found.options)))
        .replace("@OPTIONS@", write(found.options))
        .replace("@AFTER@", write(found.after))
        .replace("@WORDS@", write(found.words))
        .replace("@RUN@", services.RUN_DIRECTORY)
    )


if __name__ == "__main__":
    print({"bash": bash, "zsh": zsh}[sys.argv[1]](), end="")
