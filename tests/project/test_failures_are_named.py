"""Each failure that has to be answered, F1 to F32, is named by a test that causes it."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FAILURES = [f"F{number}" for number in range(1, 33)]
RANGE = re.compile(r"\bF(\d+)(?: to F(\d+))?\b")


def named(docstring: str) -> set[str]:
    """The failures in a text; 'F1 to F3' are three."""
    return {
        f"F{number}"
        for first, last in RANGE.findall(docstring)
        for number in range(int(first), int(last or first) + 1)
    }


def namings(source: str) -> dict[str, set[str]]:
    """Test -> what it names: in its own docstring or in that of its module."""
    tree = ast.parse(source)
    common = named(ast.get_docstring(tree) or "")
    return {
        node.name: common | named(ast.get_docstring(node) or "")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


@pytest.fixture(scope="module")
def namers():
    """Failure -> the tests that name it."""
    found = {failure: [] for failure in FAILURES}
    for path in TESTS.rglob("test_*.py"):
        if path == Path(__file__):
            continue
        for test, failures in namings(path.read_text()).items():
            for failure in failures:
                found[failure].append(f"{path.relative_to(TESTS)}::{test}")
    return found


@pytest.mark.parametrize("failure", FAILURES)
def test_failure_is_named_by_a_test(namers, failure):
    assert namers[failure]


def test_names_are_found_in_docstrings_and_nowhere_else():
    source = (
        '"""F3."""\ndef test_a():\n    """F1 to F2, F32"""\n    "F9"\n'
        "def test_b():\n    assert F8  # F7\ndef help():\n    'F6'\n"
    )
    assert namings(source) == {"test_a": {"F1", "F2", "F3", "F32"}, "test_b": {"F3"}}
