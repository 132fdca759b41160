"""A table on the terminal that standard output is."""

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
    """None where the terminal is too narrow: it breaks long lines, and leaves paths whole."""
    found = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        found.add_column(heading, no_wrap=True)
    for row in rows:
        found.add_row(*map(Text, row))  # not str: a name may hold what rich takes for markup
    screen = io.StringIO()
    width = os.get_terminal_size(sys.stdout.fileno()).columns
    console = Console(file=screen, force_terminal=True, width=width or None)
    needed = Measurement.get(console, console.options.update(max_width=_WIDE), found).maximum
    if needed > console.width:
        return None
    console.print(found)
    return screen.getvalue().rstrip("\n")
