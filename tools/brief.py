"""`iiadm -i` on a terminal: four lines at most for each set, with the state in colour."""

import io
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.text import Text

from iifuse.control.protocol import SetStatus
from iifuse.units import format_size

from . import show

_WIDTH: Final = 1 << 14
"""The terminal breaks long lines itself, so that a path can be copied in one piece."""


def statuses(rows: Iterable[SetStatus]) -> str:
    """The text for some sets: a few lines for each."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=sys.stdout.isatty(), width=_WIDTH)
    for row in rows:
        for line in _lines(row):
            console.print(line, soft_wrap=True, highlight=False)
    return screen.getvalue().rstrip("\n")


def _lines(row: SetStatus) -> list[Text]:
    lines = [_head(row), Text(f"  {_parts(row)}"), Text(f"  {_point_in_time(row)}")]
    note = _note(row)
    return [*lines, Text(f"  {note}", style=_style(row))] if note else lines


def _head(row: SetStatus) -> Text:
    kind, *words = show.state_words(row)
    state = ", ".join(words) or "idle"
    kind = kind.split()[0].lower()
    head = Text.assemble((row.shadow, "bold"), f"  {kind}, ", (state, _style(row)))
    return head.append(f", group {row.group}") if row.group else head


def _style(row: SetStatus) -> str:
    if row.offline:
        return "red"
    if row.progress != "idle":
        return "yellow" if row.copying else "red"
    attention = row.waiting or row.replaced or row.unjoined or row.fills
    return "yellow" if attention else "cyan" if row.custody != "local" else "green"


def _parts(row: SetStatus) -> str:
    of = f"of {row.master}" if row.master else "from another host"
    return f"{of}, {format_size(row.size_bytes)}, bitmap {row.bitmap}"


def _point_in_time(row: SetStatus) -> str:
    chunks = round(row.percent * row.chunks / 100)
    size = format_size(min(chunks * row.chunk_bytes, row.size_bytes))
    differs = f"{show.percent(row.percent)} differ ({size})" if chunks else "no difference"
    when = f"point in time {row.pit} of {show.short_time(row.pit_time)}" if row.pit else (
        "point in time unknown"
    )  # fmt: skip
    return f"{when}, {differs}"


def _note(row: SetStatus) -> str:
    """What else there is to say about a set, in one line."""
    parts = [row.offline_reason or "", *show.policy(row)]
    if row.progress != "idle":
        parts.insert(0, show.copied(row))
    if row.ticket:
        parts.append(f"ticket {row.ticket}")
    return "; ".join(part for part in parts if part)
