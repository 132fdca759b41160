"""Progress bars on a terminal; without a terminal there are none. They count bytes."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
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

from iifuse import terminal
from iifuse.control.protocol import SetStatus
from iifuse.units import format_size


class _Speed(ProgressColumn):
    """Bytes per second in binary units, like the sizes beside it; rich has only decimal units."""

    def render(self, task: Task) -> Text:
        """The text for a task; empty: its speed is not known yet."""
        speed = task.finished_speed or task.speed
        return Text(f"{format_size(int(speed))}/s" if speed else "", style="progress.data.speed")


def bars() -> Progress:
    """A display of bars. The caller starts it, or uses it with `with`."""
    columns = (
        "{task.description}", BarColumn(20), TaskProgressColumn(),
        DownloadColumn(binary_units=True), _Speed(), TimeRemainingColumn(),
    )  # fmt: skip
    unseen = not terminal.is_seen(sys.stderr)
    return Progress(*columns, console=Console(stderr=True), disable=unseen)


@contextmanager
def of_copies(rows: Sequence[SetStatus]) -> Iterator[Callable[[Sequence[SetStatus]], None]]:
    """Show a bar for each copy that runs. Yields a function that moves the bars to new rows."""
    with bars() as display:
        tasks = {
            row.shadow: display.add_task(escape(row.shadow), total=_total(row))
            for row in rows
            if row.copying and _total(row)
        }

        def move(rows: Sequence[SetStatus]) -> None:
            for row in rows:
                if row.shadow in tasks:
                    total, left = _total(row), row.copy_bits * row.chunk_bytes
                    done = max(0, total - left)
                    display.update(tasks[row.shadow], total=total, completed=done)

        yield move


def _total(row: SetStatus) -> int:
    """Bytes of the whole copy, with those that are copied already."""
    chunks = row.copied_chunks + row.copy_bits
    return min(chunks * row.chunk_bytes, row.size_bytes)
