"""Messages on a terminal: broken between words. In a pipe each stays one line, for scripts."""

import os
import re
import textwrap
from typing import Final, TextIO

_QUOTED: Final = re.compile(r"(?<!\w)'(?:\\.|[^'\\])*'(?!\w)")
_BLANK: Final = "\0"


def fitted(text: str, stream: TextIO) -> str:
    """The text as lines that fit the terminal behind `stream`; where there is none, as it is.

    A path or a command in quotes stays in one piece, so that it can be copied: one that is too long
    the terminal breaks itself.
    """
    width = _columns(stream)
    return "\n".join(_wrapped(line, width) for line in text.split("\n")) if width else text


def is_seen(stream: TextIO | None) -> bool:
    """Does a person see what goes there? Not what rich takes for that: FORCE_COLOR in a log."""
    return stream is not None and stream.isatty()


def _columns(stream: TextIO) -> int:
    """0 where it is no terminal, or one that does not know."""
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
