"""Progress bars on a terminal, and nothing where stderr is none."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeRemainingColumn


def bars() -> Progress:
    """A display of bars; the caller starts it, or uses it with `with`."""
    # Not what rich takes for a terminal: FORCE_COLOR must not make a log of bars.
    terminal = sys.stderr is not None and sys.stderr.isatty()
    columns = "{task.description}", BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    return Progress(*columns, console=Console(stderr=True), disable=not terminal)
