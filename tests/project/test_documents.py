"""ARCHITECTURE.md is the map by which a newcomer finds where a change belongs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
PACKAGES = sorted(p.parent.name for p in (ROOT / "iifuse").glob("*/__init__.py"))


def rows_of(package: str) -> str:
    """The rows of the map that speak of a package's modules."""
    found = re.findall(rf"^\| `{package}/\w+`.*$", TEXT, flags=re.MULTILINE)
    return "\n".join(row.split("|")[1] for row in found)


@pytest.mark.parametrize("package", PACKAGES)
def test_architecture_names_every_module(package):
    named = set(re.findall(r"\w+", rows_of(package)))
    there = {p.stem for p in (ROOT / "iifuse" / package).glob("*.py")} - {"__init__"}
    told_before = {"client", "lines", "protocol", "services"} if package == "control" else set()
    assert there - named - told_before == set()
    assert named - there - {package} == set()


def test_architecture_is_a_read_of_ten_minutes():
    assert len(TEXT.splitlines()) <= 240


def test_every_decision_is_listed():
    listed = set(re.findall(r"docs/decisions/([\w-]+)\.md", TEXT))
    assert listed == {p.stem for p in (ROOT / "docs" / "decisions").glob("*.md")}
