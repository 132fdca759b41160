"""Explains wrong words on a command line better than argparse does."""

import argparse
import re
from collections.abc import Iterable, Sequence

from iifuse.units import nearest


def explained(parser: argparse.ArgumentParser, message: str, given: Sequence[str]) -> str:
    """The message of argparse about the words `given`, with a similar word that is right.

    An unknown option is reported first. argparse often complains about a missing word instead.
    """
    known = options(parser)
    unknown = next((word for word in _options_in(given) if not _is_known(word, known)), "")
    if unknown and ("required" in message or message.startswith("unrecognized")):
        return f"unknown option {unknown}{_near(unknown.partition('=')[0], known)}"
    wrong = re.search(r"invalid choice: '(.*?)'", message)
    choices = [str(one) for action in parser._actions for one in action.choices or ()]  # noqa: SLF001
    return f"{message}{_near(wrong[1], choices)}" if wrong else message


def options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of a parser."""
    actions = parser._actions  # noqa: SLF001  # argparse has no public name for this
    return sorted(word for action in actions for word in action.option_strings)


def _options_in(given: Sequence[str]) -> Iterable[str]:
    end = given.index("--") if "--" in given else len(given)
    return (word for word in given[:end] if word.startswith("-") and word != "-")


def _is_known(word: str, known: Sequence[str]) -> bool:
    return (word.partition("=")[0] if word.startswith("--") else word[:2]) in known


def _near(word: str, known: Sequence[str]) -> str:
    other = word.swapcase() if len(word) == 2 else ""
    found = other if other in known else nearest(word, known)
    return f" (did you mean {found}?)" if found and len(word) > 1 else ""
