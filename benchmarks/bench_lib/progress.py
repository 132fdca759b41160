"""What is being measured now: a line that renews itself on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """A function that is told what is done next."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        yield from _renewed(console)
    else:
        began = time.monotonic()
        yield lambda what: print(
            f"[{time.monotonic() - began:6.1f} s] {what}", file=sys.stderr, flush=True
        )


def _renewed(console: Console) -> Iterator[Callable[[str], None]]:
    columns = (SpinnerColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    # Twice a second: what draws it shares the cores with what is measured.
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as shown:
        task = shown.add_task("", total=None)
        yield lambda what: shown.update(task, description=what)
