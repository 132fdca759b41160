"""Units: names for numbers, runs of chunks, and how people read sizes, times and commands."""

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, NewType

import msgspec

ByteOffset = NewType("ByteOffset", int)
"""Bytes from the start of a volume."""

ChunkIndex = NewType("ChunkIndex", int)
"""Number of a chunk, counted from 0."""

Run = tuple[int, int]
"""(first chunk, number of chunks). A run has one chunk at least."""

def stop_of(run: Run) -> int:
    """Where a run ends: the number of the first chunk after it."""
    first, chunks = run
    return first + chunks


def chunks_in(runs: Iterable[Run]) -> int:
    """How many chunks some runs have together."""
    return sum(chunks for _, chunks in runs)


def ceil_div(number: int, step: int) -> int:
    """Divide and round up: how many steps are needed for `number`."""
    return (number + step - 1) // step


Path = Annotated[str, msgspec.Meta(pattern=r"\A/[^\0]*\Z", max_length=4095)]
"""A path in a message or a ticket: absolute, and not longer than the kernel allows."""

KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_UNSAFE: Final = re.compile(r"[^\w@%+=:,./-]", re.ASCII)
_SIZE: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*([kmgtpe]?)(?:i?b)?\s*$", re.IGNORECASE)


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """The known word that is most similar; empty: none is. `likeness`: 0 to 1, as of difflib."""
    return next(iter(difflib.get_close_matches(word, list(known), 1, likeness)), "")


def format_size(size_bytes: int) -> str:
    """Write a size for people: 1536 -> '1.5 KiB'."""
    value, unit = float(size_bytes), 0
    while value >= KIB and unit < len(_UNITS) - 1:
        value, unit = value / KIB, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if value == int(value) else f"{value:.1f} {_UNITS[unit]}"


def count(number: int, what: str) -> str:
    """A number of things in words: '1 chunk', '2 chunks'."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def format_time(time_ns: int) -> str:
    """Write a time for people, in the zone of this machine."""
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC).astimezone():%a %b %e %H:%M:%S %Y %Z}"


def command(program: str, *words: str) -> str:
    """A command for a message, in single quotes, that the user can type: 'iiadm -R /srv/vol01'.

    `program`: the program with its options; this is not escaped. `words`: in these, characters that
    have a meaning for a shell are escaped.
    """
    return f"'{' '.join((program, *map(_escaped, words)))}'"


def _escaped(word: str) -> str:
    return _UNSAFE.sub(lambda found: _sign(found[0]), word)


def _sign(sign: str) -> str:
    if not sign.isprintable():  # a shell removes a backslash together with the line's end
        return "$'" + "".join(f"\\x{byte:02x}" for byte in sign.encode(errors="replace")) + "'"
    return f"\\{sign}" if sign.isascii() else sign


def parse_size(text: str) -> int:
    """Read a size with an optional binary unit: '1.5G' -> 1610612736 bytes.

    Raises ValueError when the text is not a size.
    """
    match = _SIZE.match(text)
    if not match:
        raise ValueError(f"{text!r} is not a size; write for example 512M or 10GiB")
    power = " kmgtpe".index(match[2].lower()) if match[2] else 0
    try:
        return int(float(match[1]) * KIB**power)
    except OverflowError as error:
        raise ValueError(f"{text[:20]!r}... is too large for a size") from error
