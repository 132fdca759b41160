"""All that is measured: the groups, their rows, and how a group is run."""

import importlib
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from .figures import Case
from .place import Place, Scale, place

ROWS: Final = range(1, 15)


@dataclass(frozen=True)
class Group:
    """Rows that are measured in one place, by one function: `name` is module.function here.

    A module is imported only when its rows are run, so that one that fails fails alone.
    """

    rows: tuple[int, ...]
    name: str

    def function(self) -> Callable[[Place], list[Case]]:
        """What makes the cases. Raises ImportError, AttributeError."""
        module, _, name = self.name.rpartition(".")
        found = importlib.import_module(f"bench_lib.{module}")
        function: Callable[[Place], list[Case]] = getattr(found, name)
        return function


GROUPS: Final = (
    Group((1, 2, 3, 7), "marked.in_memory"),
    Group((4,), "buffered.on_disk"),
    Group((5, 7), "touches.process"),
    Group((6,), "touches.ordered"),
    Group((8,), "held.updates"),
    Group((9,), "copies.resync"),
    Group((10,), "copies.full_copy"),
    Group((11,), "database.pgbench"),
    Group((12,), "many.huge"),
    Group((13,), "many.idle"),
    Group((14,), "many.crowd"),
)


@dataclass
class Outcome:
    """What a group has come to: cases that were measured or failed, or its own failure."""

    group: Group
    cases: list[Case] = field(default_factory=list)
    failure: str | None = None


def chosen(rows: Iterable[int]) -> list[Group]:
    """The groups that measure any of these rows; all without rows."""
    wanted = set(rows) or set(ROWS)
    return [group for group in GROUPS if wanted & set(group.rows)]


def measure(
    group: Group, scale: Scale, rows: Iterable[int], tell: Callable[[str], None]
) -> Outcome:
    """Set a group up, and measure its cases of these rows (all without rows) round by round."""
    outcome, wanted = Outcome(group), set(rows)
    tell(f"{_names(group.rows)}: preparing")
    try:
        with place(scale) as here:
            cases = group.function()(here)
            outcome.cases = [case for case in cases if not wanted or wanted & case.rows()]
            for turn in range(scale.rounds):
                for case in outcome.cases:
                    _round(case, f", round {turn + 1} of {scale.rounds}", tell)
            tell(f"{_names(group.rows)}: cleaning up")
    except Exception as error:  # noqa: BLE001 - the others go on, whatever it is
        outcome.failure = _reason(error)
    return outcome


def _round(case: Case, which: str, tell: Callable[[str], None]) -> None:
    """A case that has failed is left alone; the others go on."""
    if case.failure is not None:
        return
    try:
        case.measure(lambda name: tell(f"row {case.row}: {case.work}{which}: {name}"))
    except Exception as error:  # noqa: BLE001 - the others go on, whatever it is
        case.failure = _reason(error)


def _names(rows: tuple[int, ...]) -> str:
    return f"row{'s' * (len(rows) > 1)} {', '.join(map(str, rows))}"


def _reason(error: Exception) -> str:
    """One line for people; what a program said last stands in it."""
    said = str(error) or type(error).__name__
    if isinstance(error, subprocess.CalledProcessError):
        words = error.cmd if isinstance(error.cmd, list) else [error.cmd]
        said = f"{words[0]} failed ({error.returncode}): {_text(error.stderr or error.stdout)}"
    return " ".join(said.split())[-500:]


def _text(said: str | bytes | None) -> str:
    return said.decode(errors="replace") if isinstance(said, bytes) else said or ""
