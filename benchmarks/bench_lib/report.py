"""What a run has found: a table for the terminal, RESULTS.md and results.json."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from .figures import Case, Check
from .rows import Outcome

COLUMNS: Final = ("row", "work", "iifuse", "peer", "its figure", "ratio", "reach", "")
_RIGHT: Final = {"row", "iifuse", "its figure", "ratio", "reach"}
MET, REACHED_ALL, MISSED, FAILED = "met", 0, 1, 2

HOW_TO_READ: Final = """\
Only ratios within one run count. The contenders of a case do the same work in turn, round by round,
on one machine in one state; a figure of another run, or of another machine, says nothing beside
these. A ratio is the median of the rounds' ratios, and more is always better for iifuse: where less
is better (milliseconds, bytes) the ratio is turned round. A figure is the median of the rounds, or
their worst where the work says so. "reach" is the goal.
"""

BY_HAND: Final = (
    "Written by `make bench`; words by hand belong into `LIMITS.md`, which is repeated at the end."
)


@dataclass(frozen=True)
class Report:
    """The outcomes of a run, `facts` about the machine, and whether it was a quick one."""

    outcomes: Sequence[Outcome]
    facts: dict[str, str]
    quick: bool

    @property
    def cases(self) -> list[Case]:
        """All cases, by row."""
        found = [case for outcome in self.outcomes for case in outcome.cases]
        return sorted(found, key=lambda case: case.row)

    def checks(self) -> list[Check]:
        """The lines of the table, by row."""
        done = [case for case in self.cases if case.failure is None and case.figures]
        return sorted((c for case in done for c in case.checks()), key=lambda check: check.row)

    def failures(self) -> list[tuple[str, str]]:
        """(rows, why) of what could not be measured."""
        groups = [
            (", ".join(map(str, outcome.group.rows)), outcome.failure)
            for outcome in self.outcomes
            if outcome.failure is not None
        ]
        cases = [(f"{c.row} ({c.work})", c.failure) for c in self.cases if c.failure is not None]
        return groups + cases

    def exit_code(self) -> int:
        """0: everything was measured and reached; 1: something was missed; 2: something failed."""
        if self.failures():
            return FAILED
        return MISSED if any(check.met is False for check in self.checks()) else REACHED_ALL

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        return {
            "facts": self.facts,
            "quick": self.quick,
            "cases": [case.as_json() for case in self.cases],
            "failures": [{"rows": rows, "why": why} for rows, why in self.failures()],
        }


def number(value: float | None) -> str:
    """Three digits that count, and no more."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def cells(check: Check) -> tuple[str, ...]:
    """A line of the table."""
    theirs = "" if check.theirs is None else f"{number(check.theirs)} {check.unit}"
    ratio = "" if check.ratio is None else f"{check.ratio:.2f}"
    verdict = "" if check.met is None else MET if check.met else "missed"
    ours = f"{number(check.ours)} {check.unit}"
    return str(check.row), check.work, ours, check.peer, theirs, ratio, check.reach, verdict


def show(report: Report, console: Console) -> None:
    """The table, and what failed."""
    table = Table(title="Benchmarks: only ratios within one run count", title_justify="left")
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in _RIGHT else "left", overflow="fold")
    for _, lines in groupby(report.checks(), key=lambda check: check.row):
        for check in lines:
            style = {True: "green", False: "red", None: None}[check.met]
            table.add_row(*cells(check), style=style)
        table.add_section()
    console.print(table)
    for case in report.cases:
        for note in case.notes:
            console.print(f"row {case.row}: {note}", markup=False, highlight=False)
    for rows, why in report.failures():
        console.print(f"row {rows} failed: {why}", style="red", markup=False, highlight=False)


def markdown(report: Report, limits: str) -> str:
    """RESULTS.md. `limits`: words by hand about what is not reached; may be empty."""
    parts = [
        "# Results of the benchmarks",
        BY_HAND,
        "A quick run: small sizes, one round. Its figures are rough." if report.quick else "",
        _table(COLUMNS, map(cells, report.checks())),
        _failures(report),
        "## How to read it\n\n" + HOW_TO_READ.strip(),
        "## The machine\n\n" + _table(("what", "which"), report.facts.items()),
        _cases(report.cases),
        limits.strip(),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _table(heads: Sequence[str], rows: Any) -> str:
    right = ["---:" if head in _RIGHT else "---" for head in heads]
    lines = [heads, right, *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _failures(report: Report) -> str:
    lines = [f"- row {rows}: {why}" for rows, why in report.failures()]
    return "\n".join(["## What could not be measured", "", *lines]) if lines else ""


def _cases(cases: Sequence[Case]) -> str:
    """What each case is exactly, as its notes say."""
    lines = ["## The cases", ""]
    for case in cases:
        peers = ", ".join(name for name in case.contenders if name in case.reach)
        against = f"; against {peers}" if peers else ""
        lines.append(f"- row {case.row}: {case.work}, in {case.unit}{against}")
        lines += [f"  - {note}" for note in case.notes]
    return "\n".join(lines)


def write(report: Report, directory: Path, limits: Path) -> None:
    """RESULTS.md and results.json in a directory. `limits`: a file of words, maybe missing."""
    directory.mkdir(parents=True, exist_ok=True)
    words = limits.read_text() if limits.exists() else ""
    document = json.dumps(report.as_json(), indent=1)
    (directory / "results.json").write_text(document + "\n")
    (directory / "RESULTS.md").write_text(markdown(report, words))
