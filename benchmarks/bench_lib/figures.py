"""What is measured, and what comes of it: cases, figures, ratios, verdicts."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Final

OURS: Final = "iifuse"

NBD_ROW: Final = 7
"""What is reached against nbdkit counts for this row, whichever row's work it is."""


@dataclass(frozen=True)
class Check:
    """One line of the report: ours against one peer, or against a limit.

    `ratio`: more is better; None against a limit. `met`: None where nothing has to be reached.
    """

    row: int
    work: str
    unit: str
    ours: float
    peer: str
    theirs: float | None
    ratio: float | None
    reach: str
    met: bool | None


@dataclass
class Case:
    """The same work, done by every contender in turn.

    `contenders`: name -> one measurement, in `unit`. `reach`: name of a peer -> the least ratio of
    ours to it; with `smaller_is_better` the ratio is turned round, so that more is always better.
    `at_most`: what our own figure has to stay below, in `unit`. `notes`: facts found on the way.
    """

    row: int
    work: str
    unit: str
    contenders: dict[str, Callable[[], float]]
    reach: dict[str, float] = field(default_factory=dict)
    at_most: float | None = None
    smaller_is_better: bool = False
    worst: bool = False
    """Our figure is the largest of all rounds, not their median."""
    notes: list[str] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)
    failure: str | None = None
    """Why it could not be measured to the end."""

    def measure(self, tell: Callable[[str], None] = lambda _: None) -> None:
        """One round: every contender once; `tell` hears who is next."""
        for name, contender in self.contenders.items():
            tell(name)
            self.figures.setdefault(name, []).append(contender())

    def figure(self, name: str) -> float:
        """The median of a contender's rounds, or their worst."""
        found = self.figures[name]
        return max(found) if self.worst else median(found)

    def ratio(self, peer: str) -> float:
        """How much better ours is: the median of the rounds' ratios, which no drift spoils."""
        if self.worst:
            ratio = self.figure(OURS) / self.figure(peer)
        else:
            pairs = zip(self.figures[OURS], self.figures[peer], strict=True)
            ratio = median(ours / theirs for ours, theirs in pairs)
        return 1 / ratio if self.smaller_is_better else ratio

    def row_of(self, peer: str) -> int:
        """The row that a peer belongs to."""
        return NBD_ROW if peer.startswith("nbd") else self.row

    def rows(self) -> set[int]:
        """The rows that this case says something about."""
        return {self.row, *map(self.row_of, self.reach)}

    def checks(self) -> list[Check]:
        """Ours against every peer, and against the limit if there is one."""
        what = (self.work, self.unit, self.figure(OURS))
        found = [self._against(peer, what) for peer in self.figures if peer != OURS]
        if self.at_most is not None:
            met = self.figure(OURS) <= self.at_most
            found.append(Check(self.row, *what, "", None, None, f"<= {self.at_most:g}", met))
        return found or [Check(self.row, *what, "", None, None, "", None)]

    def _against(self, peer: str, what: tuple[str, str, float]) -> Check:
        ratio, least = self.ratio(peer), self.reach.get(peer)
        met = None if least is None else ratio >= least
        reach = "" if least is None else f">= {least:g} x"
        return Check(self.row_of(peer), *what, peer, self.figure(peer), ratio, reach, met)

    def verdicts(self) -> list[tuple[str, bool]]:
        """(what is claimed, whether it holds) of everything that this case has to reach."""
        return [
            (
                f"{c.ours:.3g} {c.unit} ({c.reach})"
                if c.ratio is None
                else f"{c.ratio:.2f} x {c.peer} ({c.reach})",
                c.met,
            )
            for c in self.checks()
            if c.met is not None
        ]

    def as_json(self) -> dict[str, Any]:
        """Everything, the single rounds included."""
        found: dict[str, Any] = {
            "row": self.row,
            "work": self.work,
            "unit": self.unit,
            "rounds": self.figures,
            "reach": self.reach,
            "at_most": self.at_most,
            "smaller_is_better": self.smaller_is_better,
            "worst": self.worst,
            "notes": self.notes,
            "failure": self.failure,
        }
        if self.failure is None:
            found["figures"] = {name: self.figure(name) for name in self.figures}
            found["ratios"] = {n: round(self.ratio(n), 3) for n in self.figures if n != OURS}
            found["met"] = all(good for _, good in self.verdicts())
        return found
