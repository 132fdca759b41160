"""The arithmetic and the report of the benchmarks; what they measure is not measured here."""

import json
import subprocess
from contextlib import nullcontext

import pytest
from bench_lib import rows
from bench_lib.figures import OURS, Case
from bench_lib.place import QUICK
from bench_lib.report import FAILED, MISSED, REACHED_ALL, Report, cells, number, show, write
from bench_lib.rows import GROUPS, ROWS, Group, Outcome, chosen
from rich.console import Console

GROUP = Group((1, 7), "none.at_all")


def case(ours, theirs, **more) -> Case:
    """A case that was measured already, with one peer."""
    more.setdefault("reach", {"qemu": 1.5})
    found = Case(1, "4 KiB random read", "IOPS", {}, **more)
    found.figures = {OURS: ours, "qemu": theirs}
    return found


def report(*cases, failure=None) -> Report:
    return Report([Outcome(GROUP, list(cases), failure)], {"kernel": "6.1"}, quick=True)


# -- figures ------------------------------------------------------------------------------------


def test_benchmarks_ratio_is_the_median_of_the_rounds_ratios():
    """The ratio of the medians would be 2: the machine was slower in two of the rounds."""
    assert case([30.0, 20.0, 100.0], [10.0, 5.0, 100.0]).ratio("qemu") == 3.0


def test_benchmarks_ratio_is_turned_round_where_less_is_better():
    assert case([10.0], [40.0], smaller_is_better=True).ratio("qemu") == 4.0


def test_benchmarks_ratio_of_unequal_rounds_is_refused():
    with pytest.raises(ValueError, match="zip"):
        case([1.0, 2.0], [1.0]).ratio("qemu")


def test_benchmarks_worst_takes_the_largest_of_all_rounds():
    found = case([5.0, 19.0, 6.0], [30.0, 38.0, 31.0], worst=True, smaller_is_better=True)
    assert found.figure(OURS) == 19.0
    assert found.ratio("qemu") == 2.0


@pytest.mark.parametrize(("ours", "met"), [(150.0, True), (149.0, False)])
def test_benchmarks_reach_is_met_from_its_ratio_on(ours, met):
    assert [good for _, good in case([ours], [100.0]).verdicts()] == [met]


@pytest.mark.parametrize(("ours", "met"), [(60.0, True), (70.0, False)])
def test_benchmarks_reach_is_met_in_the_other_direction(ours, met):
    found = case([ours], [100.0], smaller_is_better=True)
    assert [good for _, good in found.verdicts()] == [met]


@pytest.mark.parametrize(("ours", "met"), [(20.0, True), (20.1, False)])
def test_benchmarks_limit_is_met_up_to_itself(ours, met):
    found = case([ours], [1.0], reach={}, at_most=20.0)
    assert [good for _, good in found.verdicts()] == [met]


def test_benchmarks_peer_without_a_reach_is_shown_and_not_judged():
    found = case([1.0], [100.0], reach={})
    assert found.verdicts() == []
    assert [(check.peer, check.met) for check in found.checks()] == [("qemu", None)]


def test_benchmarks_nbd_peers_count_for_row_7():
    found = case([3.0], [2.0], reach={"qemu": 1.0, "nbdfuse": 1.2})
    found.figures["nbdfuse"] = [2.0]
    assert [check.row for check in found.checks()] == [1, 7]
    assert found.rows() == {1, 7}


def test_benchmarks_round_asks_every_contender_once_in_turn():
    asked = []
    contenders = {name: lambda n=name: asked.append(n) or 1.0 for name in (OURS, "qemu")}
    found, told = Case(1, "work", "IOPS", contenders), []
    for _ in range(2):
        found.measure(told.append)
    assert asked == told == [OURS, "qemu"] * 2
    assert found.figures == {OURS: [1.0, 1.0], "qemu": [1.0, 1.0]}


# -- rows ---------------------------------------------------------------------------------------


def test_benchmarks_every_row_is_registered():
    assert {row for group in GROUPS for row in group.rows} == set(ROWS) == set(range(1, 15))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_benchmarks_every_group_has_its_function(group):
    assert callable(group.function())


def test_benchmarks_rows_choose_their_groups():
    assert {group.name for group in chosen([7])} == {"marked.in_memory", "touches.process"}
    assert chosen([]) == list(GROUPS)


def _measured(monkeypatch, function, wanted=()) -> Outcome:
    monkeypatch.setattr(Group, "function", lambda _: function)
    monkeypatch.setattr(rows, "place", nullcontext)
    return rows.measure(GROUP, QUICK, wanted, lambda _: None)


def _fails():
    raise subprocess.CalledProcessError(3, ["fio", "--name"], stderr="no such\nfile")


def test_benchmarks_case_that_fails_leaves_the_others_alone(monkeypatch):
    bad, good = Case(1, "a", "IOPS", {OURS: _fails}), Case(2, "b", "IOPS", {OURS: lambda: 2.0})
    outcome = _measured(monkeypatch, lambda _: [bad, good])
    assert bad.failure == "fio failed (3): no such file"
    assert (good.failure, good.figures) == (None, {OURS: [2.0]})
    assert outcome.failure is None


def test_benchmarks_group_that_fails_says_why(monkeypatch):
    outcome = _measured(monkeypatch, lambda _: _fails())
    assert (outcome.cases, outcome.failure) == ([], "fio failed (3): no such file")


def test_benchmarks_cases_of_other_rows_are_left_out(monkeypatch):
    cases = [Case(row, "work", "IOPS", {OURS: lambda: 1.0}) for row in (1, 2)]
    assert _measured(monkeypatch, lambda _: cases, [2]).cases == cases[1:]


# -- report -------------------------------------------------------------------------------------


def test_benchmarks_exit_code_says_reached_missed_or_failed():
    good, bad = case([2.0], [1.0]), case([1.0], [1.0])
    broken = case([], [], failure="no space")
    assert report(good).exit_code() == REACHED_ALL == 0
    assert report(good, bad).exit_code() == MISSED == 1
    assert report(good, bad, broken).exit_code() == FAILED == 2
    assert report(failure="no space").exit_code() == FAILED


def test_benchmarks_table_shows_what_is_missed():
    met, missed = (cells(case([ours], [1000.0]).checks()[0]) for ours in (1512.3, 1400.0))
    ours = ("1", "4 KiB random read", "1,512 IOPS", "qemu", "1,000 IOPS")
    assert met == (*ours, "1.51", ">= 1.5 x", "met")
    assert missed[-3:] == ("1.40", ">= 1.5 x", "missed")
    with open("/dev/null", "w") as nowhere:
        console = Console(width=132, record=True, file=nowhere)
        show(report(case([1400.0], [1000.0]), failure="no [space]"), console)
    shown = console.export_text()
    assert "missed" in shown
    assert "row 1, 7 failed: no [space]" in shown


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0.01234, "0.0123"), (14.81, "14.8"), (44401.1, "44,401")]
)
def test_benchmarks_numbers_have_the_digits_that_count(value, text):
    assert number(value) == text


def test_benchmarks_results_can_be_read_back(tmp_path):
    measured = case([30.0, 20.0, 100.0], [10.0, 5.0, 100.0])
    measured.notes.append("a note")
    found = report(measured, case([], [], failure="no space"))
    write(found, tmp_path, tmp_path / "LIMITS.md")
    read = json.loads((tmp_path / "results.json").read_text())
    assert read == found.as_json()
    first, second = read["cases"]
    again = Case(first["row"], first["work"], first["unit"], {}, first["reach"])
    again.figures = first["rounds"]
    assert again.checks() == measured.checks()
    assert (first["met"], first["notes"]) == (True, ["a note"])
    assert second["failure"] == "no space"


def test_benchmarks_results_keep_the_words_by_hand(tmp_path):
    limits = tmp_path / "LIMITS.md"
    limits.write_text("## Not reached\n\nRow 1: the speed of light.\n")
    for _ in range(2):
        write(report(case([1.0], [1.0])), tmp_path / "out", limits)
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    assert text.endswith("## Not reached\n\nRow 1: the speed of light.\n")
    assert text.count("speed of light") == 1
    assert "| 1 | 4 KiB random read | 1 IOPS | qemu | 1 IOPS | 1.00 | >= 1.5 x | missed |" in text
    assert "| kernel | 6.1 |" in text
