"""The service starts nothing after its nursery: whoever holds volumes would hang with them (K8)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY = {
    "iifuse/background.py": "it holds no volume: it starts the service and ends",
    **dict.fromkeys(
        (str(path.relative_to(ROOT)) for path in (ROOT / "iifuse/nursery").glob("*.py")),
        "it is the nursery",
    ),
}
MODULES = {"subprocess", "multiprocessing", "pty", "popen2", "_posixsubprocess"}
OF_OS = ("fork", "posix_spawn", "spawn", "system", "popen", "exec")
OF_OTHERS = {"run_process", "open_process", "ProcessPoolExecutor", "create_subprocess_exec"}


def starts(source: str) -> list[str]:
    """What a text names that starts a process."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            found += names if (node.module or "").split(".")[0] in MODULES else []
            found += [name for name in names if _starts(node.module or "", name)]
        elif isinstance(node, ast.Attribute) and _starts(ast.unparse(node.value), node.attr):
            found.append(ast.unparse(node))
    return found


def _starts(owner: str, name: str) -> bool:
    return (owner == "os" and name.startswith(OF_OS)) or name in OF_OTHERS


@pytest.mark.parametrize("path", sorted((ROOT / "iifuse").rglob("*.py")), ids=lambda p: p.stem)
def test_module_starts_no_process(path):
    assert str(path.relative_to(ROOT)) in MAY or starts(path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        "import subprocess", "from subprocess import run", "import os\nos.fork()",
        "from os import posix_spawn", "import multiprocessing.pool", "os.execv('/bin/true', [])",
        "await trio.run_process(['true'])", "def f():\n    import subprocess",
    ],
)  # fmt: skip
def test_start_of_a_process_is_found(line):
    assert len(starts(line)) == 1


@pytest.mark.parametrize("line", ["import os\nos.read(0, 1)", "from iifuse import background"])
def test_other_calls_are_none(line):
    assert starts(line) == []


def test_those_who_may_do():
    assert all(starts((ROOT / name).read_text()) for name in list(MAY)[:1])
    assert starts((ROOT / "iifuse/nursery/operations.py").read_text())
