"""What bash and zsh complete for the programs, made from their parsers.

`python -m iitools.completion bash|zsh` prints it; `make install` puts it where the shells look.
Both get the same tables and the same few lines that read them, which ask the service, quietly and
for two seconds at most, for the names of its sets and groups.
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
"""What the word for people stands for. Of any other nothing is known."""

Table = dict[str, str]


class Tables:
    """What may stand where. Keys begin with the program.

    `options`: all of a program. `after`: what follows an option. `words`: what else it takes, in
    general or once an option or a first word was given.
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
    return parser._actions  # noqa: SLF001  # argparse tells no other way


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All of a parser, and of those for its verbs."""
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
    """What may stand for the value of an action."""
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
    """What the words of an action may be: sets, with their own word for all, or files."""
    if not form:
        return NOTHING
    if not form.strip("[").startswith("SET"):
        return FILE
    also = FILE if "BITMAP" in form else verbs.EVERY if verbs.EVERY in form else ""
    return f"{SET} {also}".strip()


def tables() -> Tables:
    """Of all programs that are installed."""
    found = Tables()
    for entry in distribution("iifuse").entry_points:
        found.add(entry)
    return found


def _pairs(table: Table) -> str:
    return "\n".join(f"    {shlex.quote(key)} {shlex.quote(table[key])}" for key in sorted(table))


def _assigned(table: Table) -> str:
    return "\n".join(f"    [{shlex.quote(key)}]={shlex.quote(table[key])}" for key in sorted(table))


def bash() -> str:
    """The file for bash; it completes all programs."""
    return _filled(BASH, tables(), _assigned)


def zsh() -> str:
    """The file for zsh, which is to be named `_iifuse`."""
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
