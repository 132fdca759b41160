"""The commands that a message advises: are they whole, and would their programs take them?"""

import re
import shlex
from collections.abc import Callable, Sequence
from importlib import import_module

from iifuse import errors
from iifuse.options import parser
from iitools import grammar, iibitmap

OURS = ("svadm", "iiexport", "iiimport", "iijoin", "iiresync", "iiverify", "iibitmap", "iistat")
OTHERS = ("umount", "losetup", "nsenter", "swapoff", "dmsetup", "mdadm", "mkdir", "rm", "fuser")
_PROGRAMS = "|".join(("iiadm", "iifuse", *OURS, *OTHERS))
_COMMAND = re.compile(rf"'((?:{_PROGRAMS})(?: (?:\\.|\$'[^']*'|[^'\\])*)?)'")
_PART = re.compile(r"'-{1,2}[A-Za-z][^']*'|\(-[A-Za-z]( [sm])?\)")
"""What is left of a command when the program and the names are for the reader to find."""


def commands(said: str) -> list[list[str]]:
    """The words of each, as a shell reads them, in their order."""
    return [_words(found[1]) for found in _COMMAND.finditer(said)]


def _words(text: str) -> list[str]:
    """`shlex` does not know $'...', which is only what cannot be printed here."""
    plain = re.sub(r"\$'((?:\\x[0-9a-f]{2})+)'", "?", text)
    return shlex.split(plain)


def check(said: str) -> None:
    """Every advice in what a program has said on stderr can be typed as it stands."""
    for line in said.splitlines():
        if line.startswith("usage:"):
            continue
        assert not _PART.search(line), f"a part of a command is no advice: {line}"
        for words in commands(line):
            _check(words, line)


def _check(words: Sequence[str], line: str) -> None:
    program, *rest = words
    assert not any(re.fullmatch(r"\[?[A-Z]{2,}[.\]]*", word) for word in rest), f"whose? {line}"
    if program in OTHERS:
        assert rest, line
        return
    try:
        _PARSERS.get(program, _with_parser(program))(rest)
    except (errors.UsageError, SystemExit) as error:
        if error.__class__ is SystemExit and not error.code:
            return  # --help, --version
        raise AssertionError(f"{' '.join(words)}: {error} ({line})") from error


def _with_parser(program: str) -> Callable[[Sequence[str]], object]:
    def parse(words: Sequence[str]) -> None:
        args = import_module(f"iitools.{program}")._parser().parse_intermixed_args(words)
        if hasattr(args, "group"):
            named = args.words[args.words[:1] in (["s"], ["m"]) and program == "iiresync" :]
            assert named or args.group, words

    return parse


def _iibitmap(words: Sequence[str]) -> None:
    args = iibitmap._parser().parse_intermixed_args(words)
    assert len(args.words) >= len(iibitmap.FORMS[args.verb].split()), words


_PARSERS: dict[str, Callable[[Sequence[str]], object]] = {
    "iiadm": grammar.parse,
    "iifuse": lambda words: parser().parse_args(words),
    "iibitmap": _iibitmap,
}
