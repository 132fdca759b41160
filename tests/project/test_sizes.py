"""Small functions and files: what does not fit on a page does too many things."""

import ast
from pathlib import Path
from statistics import median

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
FUNCTION_LINES_MEDIAN_MAX = 10

PROGRAM = ("iifuse", "tools")
FILES = {
    str(path.relative_to(ROOT)): path
    for directory in (*PROGRAM, "examples", "benchmarks", "tests")
    for path in sorted((ROOT / directory).rglob("*.py"))
}


def functions(source: str) -> dict[str, int]:
    """`name:line` -> lines of each function, its docstring and decorators not counted."""
    return {
        f"{node.name}:{node.lineno}": node.end_lineno - node.lineno + 1 - _docstring(node)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def _docstring(node) -> int:
    if ast.get_docstring(node) is None:
        return 0
    text = node.body[0]
    return text.end_lineno - text.lineno + 1


@pytest.mark.parametrize("name", FILES)
def test_sizes_file_and_its_functions_are_short(name):
    source = FILES[name].read_text()
    assert len(source.splitlines()) <= FILE_LINES_MAX
    long = {f: n for f, n in functions(source).items() if n > FUNCTION_LINES_MAX}
    assert not long


def test_sizes_median_function_fits_a_glance():
    ours = [path for name, path in FILES.items() if name.startswith(PROGRAM)]
    lengths = [n for path in ours for n in functions(path.read_text()).values()]
    assert median(lengths) <= FUNCTION_LINES_MEDIAN_MAX


def test_sizes_count_is_of_lines_without_docstring():
    source = 'async def f():\n    """One.\n\n    Two.\n    """\n    a = 1\n    return a\n'
    assert functions(source) == {"f:1": 3}
