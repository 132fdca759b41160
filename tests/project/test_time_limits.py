"""A pause of the service counts against nobody: its time limits are those of `loop.limits`."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BY_THE_CLOCK = {
    "iifuse/control/dispatch.py": "-w --timeout: the user's own time",
    "iifuse/data/copier.py": "a sync is due after it, which may come early",
}
"""Where trio's limits may stand, and why."""
TRIOS = {"move_on_after", "move_on_at", "fail_after", "fail_at"}


def _limits(source: str) -> list[str]:
    """Calls of trio's time limits, and deadlines that are made by hand."""
    return [
        f"line {node.lineno}"
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Attribute) and node.attr in TRIOS and _is_trio(node.value))
        or (isinstance(node, ast.keyword) and node.arg == "deadline")
        or (isinstance(node, ast.BinOp) and _is_clock(node.left) and isinstance(node.op, ast.Add))
    ]


def _is_trio(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "trio"


def _is_clock(node: ast.expr) -> bool:
    call = node.func if isinstance(node, ast.Call) else None
    return isinstance(call, ast.Attribute) and call.attr == "current_time"


@pytest.mark.parametrize("path", sorted((ROOT / "iifuse").rglob("*.py")), ids=lambda p: p.stem)
def test_time_limit_counts_while_the_loop_turns(path):
    """K9."""
    where = str(path.relative_to(ROOT))
    assert where in BY_THE_CLOCK or _limits(path.read_text()) == []


def test_time_limits_of_trio_are_found():
    source = "with trio.move_on_after(3): pass\nend = trio.current_time() + 2\n"
    assert len(_limits(source)) == 2
    assert all(_limits((ROOT / where).read_text()) for where in BY_THE_CLOCK)
