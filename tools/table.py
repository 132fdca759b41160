"""A table on the terminal of standard output."""

import io
import os
import sys
from collections.abc import Iterable
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDE: Final = 1 << 14


def table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str | None:
    """The table; None: the terminal is too narrow for it."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        found.add_column(heading, no_wrap=True)
    for row in rows:
        found.add_row(*map(Text, row))  # rich would take some names for markup if they were str
    screen = io.StringIO()
    width = os.get_terminal_size(sys.stdout.fileno()).columns
    console = Console(file=screen, force_terminal=True, width=width or None)
    needed = Measurement.get(console, console.options.update(max_width=_WIDE), found).maximum
    if needed > console.width:
        return None
    console.print(found)
    return screen.getvalue().rstrip("\n")
