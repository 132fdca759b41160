"""Breaks messages between words on a terminal. In a pipe each message stays one line."""

import os
import re
import textwrap
from typing import Final, TextIO

_QUOTED: Final = re.compile(r"(?<!\w)'(?:\\.|[^'\\])*'(?!\w)")
_BLANK: Final = "\0"


def fitted(text: str, stream: TextIO) -> str:
    """The text in lines that fit the terminal behind `stream`. Without a terminal it is unchanged.

    A path or a command in quotes is not broken, so that it can be copied. If it is too long, the
    terminal breaks it.
    """
    width = _columns(stream)
    return "\n".join(_wrapped(line, width) for line in text.split("\n")) if width else text


def is_seen(stream: TextIO | None) -> bool:
    """Is this stream a terminal? (rich would also say so of a log with FORCE_COLOR.)"""
    return stream is not None and stream.isatty()


def _columns(stream: TextIO) -> int:
    """The width of the terminal in columns; 0: it is not known, or this is no terminal."""
    try:
        return os.get_terminal_size(stream.fileno()).columns if stream.isatty() else 0
    except (OSError, ValueError):
        return 0


def _wrapped(line: str, width: int) -> str:
    if len(line) < width:
        return line
    whole = _QUOTED.sub(lambda found: found[0].replace(" ", _BLANK), line)
    broken = textwrap.fill(
        whole, width - 1, break_long_words=False, break_on_hyphens=False, replace_whitespace=False
    )
    return broken.replace(_BLANK, " ")
