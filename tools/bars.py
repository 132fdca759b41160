"""Progress bars on a terminal, and nothing where stderr is none. What they count are bytes."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)


def seen() -> bool:
    """Is there a terminal to show them on? Not what rich takes for one: FORCE_COLOR in a log."""
    return sys.stderr is not None and sys.stderr.isatty()


def bars() -> Progress:
    """A display of bars; the caller starts it, or uses it with `with`."""
    columns = (
        "{task.description}", BarColumn(20), TaskProgressColumn(),
        DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), disable=not seen())
