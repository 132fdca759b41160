"""Progress bars on a terminal, and nothing where stderr is none. What they count are bytes."""

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
    """Bytes a second in binary units, as the sizes beside it; rich knows only decimal ones."""

    def render(self, task: Task) -> Text:
        """Nothing as long as nobody knows."""
        speed = task.finished_speed or task.speed
        return Text(f"{format_size(int(speed))}/s" if speed else "", style="progress.data.speed")


def bars() -> Progress:
    """A display of bars; the caller starts it, or uses it with `with`."""
    columns = (
        "{task.description}", BarColumn(20), TaskProgressColumn(),
        DownloadColumn(binary_units=True), _Speed(), TimeRemainingColumn(),
    )  # fmt: skip
    unseen = not terminal.is_seen(sys.stderr)
    return Progress(*columns, console=Console(stderr=True), disable=unseen)


@contextmanager
def of_copies(rows: Sequence[SetStatus]) -> Iterator[Callable[[Sequence[SetStatus]], None]]:
    """One bar for each running copy that has something to copy; what it gives moves them."""
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
    """Bytes to copy, from the first to the last."""
    chunks = row.copied_chunks + row.copy_bits
    return min(chunks * row.chunk_bytes, row.size_bytes)
