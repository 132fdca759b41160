"""What the audience sees: steps, commands, claims, figures."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

WIDTH: Final = 100
"""Columns where the output is no terminal, and at most where it is one."""


class Untrue(Exception):
    """Something that the demonstration claims does not hold."""


class Stage:
    """The console, and how long each step took."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal or self.console.width > WIDTH:
            self.console.width = WIDTH
        self.began = time.monotonic()
        self.claims = 0
        self._steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One step of the procedure: its heading, and its time in the summary."""
        self.console.print()
        self.console.print(Rule(Text(title, "bold cyan"), align="left", style="cyan"))
        began = time.monotonic()
        yield
        self._steps.append((title, time.monotonic() - began))

    def explain(self, text: str) -> None:
        """A sentence about what follows."""
        self.console.print(Text(text, "italic"))

    @contextmanager
    def command(self, prompt: str, command: str) -> Iterator[None]:
        """A command as a person types it, and how long it takes. Lines are not wrapped."""
        line = Text.assemble((prompt, "green"), " ", (command, "bold"))
        self.console.print(line, end="", soft_wrap=True)
        began = time.monotonic()
        try:
            yield
        finally:
            seconds = time.monotonic() - began
            self.console.print(Text(f"   # {seconds:.2f} s", "dim"), soft_wrap=True)

    def output(self, text: str) -> None:
        """What a command has printed."""
        for line in text.rstrip("\n").splitlines():
            self.console.print(Text(f"    {line}", "dim"), soft_wrap=True)

    def claim(self, truth: bool, text: str, otherwise: str = "") -> None:
        """State something that was checked. Raises Untrue if it is not so."""
        if not truth:
            raise Untrue(f"{text}: {otherwise}" if otherwise else text)
        self.claims += 1
        self.console.print(Text.assemble(("  ✓ ", "bold green"), text))

    def remark(self, text: str) -> None:
        """A figure or an observation that is no claim."""
        self.console.print(Text(f"  · {text}", "yellow"))

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Figures; all columns but the first stand at the right, and are never cut."""
        table = Table(box=None, padding=(0, 3, 0, 0), header_style="bold", pad_edge=False)
        for index, heading in enumerate(headings):
            table.add_column(heading, justify="right" if index else "left", no_wrap=index > 0)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(Padding(table, (0, 0, 0, 4)))

    def failed(self, text: str) -> None:
        """Why the demonstration ends here."""
        self.console.print()
        self.console.print(Text.assemble(("✗ NOT TRUE: ", "bold red"), text), soft_wrap=True)

    def interrupted(self) -> None:
        """Say that a signal has ended it."""
        self.console.print()
        self.console.print(Text("✗ interrupted; everything is cleaned up", "bold red"))

    def summary(self) -> None:
        """All steps with their times."""
        self.console.print()
        self.console.print(Rule(Text("Summary", "bold cyan"), align="left", style="cyan"))
        self.table(("step", "time"), [(t, f"{s:.2f} s") for t, s in self._steps])
        seconds = time.monotonic() - self.began
        verdict = f"{self.claims} claims checked, all true; {seconds:.0f} s"
        self.console.print(Text.assemble(("✓ ", "bold green"), (verdict, "bold")))
