"""Progress bars on a terminal, and nothing where stderr is none. What they count are bytes."""

import sys

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from iifuse.units import format_size


class _Speed(ProgressColumn):
    """Bytes a second in binary units, as the sizes beside it; rich knows only decimal ones."""

    def render(self, task: Task) -> Text:
        """Nothing as long as nobody knows."""
        speed = task.finished_speed or task.speed
        return Text(f"{format_size(int(speed))}/s" if speed else "", style="progress.data.speed")


def seen() -> bool:
    """Is there a terminal to show them on? Not what rich takes for one: FORCE_COLOR in a log."""
    return sys.stderr is not None and sys.stderr.isatty()


def bars() -> Progress:
    """A display of bars; the caller starts it, or uses it with `with`."""
    columns = (
        "{task.description}", BarColumn(20), TaskProgressColumn(),
        DownloadColumn(binary_units=True), _Speed(), TimeRemainingColumn(),
    )  # fmt: skip
    return Progress(*columns, console=Console(stderr=True), disable=not seen())
