"""Who may import whom. The layers are worth nothing unless a program checks them."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WORDS = ("iifuse.errors", "iifuse.units")
DATA = (*WORDS, "iifuse.core", "iifuse.store", "iifuse.loop", "iifuse.data")
VERBS = (*DATA, "iifuse.host", "iifuse.verbs")
SERVED = (*VERBS, "iifuse", "iifuse.control")
TOOLS = (
    *WORDS, "iifuse", "iifuse.core", "iifuse.control.client", "iifuse.control.protocol",
    "iifuse.control.services", "iifuse.arguments", "iifuse.streams",
    "iifuse.terminal", "iitools",
)  # fmt: skip
OFFLINE = [f"iitools.{path.stem}" for path in sorted((ROOT / "tools").glob("iibitmap*.py"))]
MAY_IMPORT = {
    "iifuse": (),
    "iifuse.errors": (),
    "iifuse.arguments": ("iifuse.units",),
    "iifuse.background": (),
    "iifuse.logs": (*WORDS, "iifuse.store.names"),
    "iifuse.options": (
        *WORDS, "iifuse", "iifuse.arguments", "iifuse.logs", "iifuse.control.protocol",
        "iifuse.store",
    ),
    "iifuse.stopping": (*VERBS, "iifuse.fuse"),
    "iifuse.streams": (),
    "iifuse.terminal": (),
    "iifuse.units": (),
    "iifuse.core": (*WORDS, "iifuse.core"),
    "iifuse.store": (*WORDS, "iifuse.core", "iifuse.store"),
    "iifuse.loop": (*WORDS, "iifuse.core", "iifuse.store", "iifuse.loop"),
    "iifuse.data": DATA,
    "iifuse.host": (*DATA, "iifuse.host"),
    "iifuse.verbs": VERBS,
    "iifuse.nursery": (*WORDS, "iifuse.core", "iifuse.store", "iifuse.nursery"),
    "iifuse.fuse": (*DATA, "iifuse.nursery", "iifuse.fuse"),
    "iifuse.control": (*WORDS, "iifuse.core", "iifuse.control.protocol"),
    **dict.fromkeys(
        (
            "iifuse.control.claims", "iifuse.control.dispatch", "iifuse.control.health",
            "iifuse.control.past", "iifuse.control.rows", "iifuse.control.turns",
        ),
        (*WORDS, *SERVED),
    ),
    "iifuse.control.lines": (*WORDS, "iifuse.control.protocol"),
    "iifuse.control.client": (*WORDS, "iifuse.control.lines", "iifuse.control.protocol"),
    "iifuse.control.server": (*WORDS, *SERVED),
    "iifuse.service": (
        *WORDS, *SERVED, "iifuse.fuse", "iifuse.background", "iifuse.logs", "iifuse.nursery",
        "iifuse.stopping", "iifuse.options", "iifuse.streams", "iifuse.surroundings",
        "iifuse.terminal",
    ),
    "iifuse.surroundings": (*WORDS, *SERVED, "iifuse.fuse", "iifuse.nursery"),
    "iitools": TOOLS,
    # Work on the volumes of a service that cannot run: nobody else can open, lock and write them.
    **dict.fromkeys(OFFLINE, (*TOOLS, "iifuse.store")),
}  # fmt: skip
"""Module or package -> what it may import of ours; the longest name that fits counts. A name
stands for all that lies below it, but `iifuse` only for the version in the package itself."""

LOOPS = {"trio", "pyfuse3", "asyncio", "anyio"}
INPUT_OUTPUT = {
    "os", "io", "socket", "sqlite3", "subprocess", "fcntl", "mmap", "ctypes", "threading",
    "pathlib", "shutil", "tempfile", "time", "random", "logging",
}  # fmt: skip
MAY_NOT_IMPORT = {
    "iifuse.errors": LOOPS | INPUT_OUTPUT,
    "iifuse.units": LOOPS | INPUT_OUTPUT,
    "iifuse.core": LOOPS | INPUT_OUTPUT,
    "iifuse.store": LOOPS,
    "iifuse.nursery": LOOPS,
    **dict.fromkeys(
        ("iifuse.loop", "iifuse.data", "iifuse.host", "iifuse.verbs"), LOOPS - {"trio"}
    ),
    "iifuse.control": LOOPS - {"trio"},
    "iifuse.control.protocol": LOOPS | INPUT_OUTPUT,
    "iifuse.control.client": LOOPS,
    "iitools": LOOPS,
}
"""Module or package -> what it may not import of the rest of the world."""


def _module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(("iitools", *parts[1:]) if parts[0] == "tools" else parts)
    return name.removesuffix(".__init__")


MODULES = {_module(p): p for d in ("iifuse", "tools") for p in sorted((ROOT / d).rglob("*.py"))}


def _is_package(module: str, path: Path) -> bool:
    return path.name == "__init__.py"


def imports(module: str, source: str, *, package: bool = False) -> set[str]:
    """Full names of all modules and names that a source text imports, wherever it does so."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(module, node, package=package)
            found.update(f"{base}.{alias.name}".strip(".") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.add(ast.literal_eval(node.args[0]))
    return found


def _base(module: str, node: ast.ImportFrom, *, package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".") + ["__init__"] * package
    return ".".join([*parts[: -node.level], *filter(None, [node.module])])


def _within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _rule(rules: dict, module: str):
    fitting = [name for name in rules if _within(module, name)]
    return rules[max(fitting, key=len)] if fitting else ()


def _allowed(name: str, package: str) -> bool:
    if package == "iifuse":  # the version and the names of sub-packages, not what is below them
        return name == "iifuse" or name == "iifuse.__version__"
    if name in ("iifuse", "iitools"):
        return True
    return _within(name, package)


def violations(module: str, source: str, *, package: bool = False) -> list[str]:
    """What a module imports and must not."""
    names = imports(module, source, package=package)
    ours = {n for n in names if _within(n, "iifuse") or _within(n, "iitools")}
    may = _rule(MAY_IMPORT, module)
    upward = {n for n in ours if not any(_allowed(n, p) for p in may)}
    foreign = {n for n in names - ours if n.split(".")[0] in _rule(MAY_NOT_IMPORT, module)}
    return sorted(upward | foreign)


@pytest.mark.parametrize("module", MODULES)
def test_layers_module_imports_downward_only(module):
    path = MODULES[module]
    found = violations(module, path.read_text(), package=_is_package(module, path))
    assert not found, f"{module} must not import {', '.join(found)}"


@pytest.mark.parametrize(
    ("module", "line", "wrong"),
    [
        ("iifuse.core.touch", "import os", True),
        ("iifuse.core.touch", "from trio import Event", True),
        ("iifuse.core.touch", "import numpy", False),
        ("iifuse.core.touch", "from iifuse.store import volume", True),
        ("iifuse.core.touch", "from ..store import volume", True),
        ("iifuse.core.touch", "from .bits import Bits", False),
        ("iifuse.core.touch", "from iifuse import errors", False),
        ("iifuse.core.touch", "def f():\n    import sqlite3", True),
        ("iifuse.store.volume", "import trio", True),
        ("iifuse.store.volume", "from iifuse.data.copier import Copier", True),
        ("iifuse.store.volume", "from iifuse.core.header import Header", False),
        ("iifuse.loop.threads", "from iifuse.data import view", True),
        ("iifuse.data.view", "import pyfuse3", True),
        ("iifuse.data.view", "from iifuse.host import notes", True),
        ("iifuse.host.notes", "from iifuse.verbs import pit", True),
        ("iifuse.host.notes", "from iifuse.data.view import View", False),
        ("iifuse.verbs.pit", "import trio", False),
        ("iifuse.verbs.pit", "from iifuse import fuse", True),
        ("iifuse.verbs.pit", "from iifuse.control import protocol", True),
        ("iifuse.fuse.session", "from iifuse.host.instance import Instance", True),
        ("iifuse.fuse.session", "from iifuse.control.server import Server", True),
        ("iifuse.nursery.process", "import trio", True),
        ("iifuse.nursery.process", "from iifuse.loop import threads", True),
        ("iifuse.store.signature", "from iifuse.nursery.nursery import Nursery", True),
        ("iifuse.verbs.pit", "from iifuse.nursery.nursery import Nursery", True),
        ("iifuse.control.client", "from iifuse.verbs import pit", True),
        ("iifuse.control.server", "from iifuse.verbs import pit", False),
        ("iifuse.control.server", "from iifuse.fuse import session", True),
        ("iifuse.service", "from iifuse.fuse import session", False),
        ("iifuse.service", "from iitools import common", True),
        ("iitools.iiadm", "from iifuse.control.client import Client", False),
        ("iitools.iiadm", "from iifuse import __version__", False),
        ("iitools.iiadm", "from iifuse.control import server", True),
        ("iitools.iiadm", "from iifuse.store import volume", True),
        ("iitools.iiadm", "import iifuse.service", True),
        ("iitools.iibitmap_read", "from iifuse.store import volume", False),
        ("iitools.iibitmap_read", "from iifuse.verbs import pit", True),
        ("iitools.iibitmap_read", "import trio", True),
    ],
)
def test_layers_rule_tells_right_from_wrong(module, line, wrong):
    assert bool(violations(module, line)) is wrong


def test_layers_every_module_has_a_rule():
    assert not [m for m in MODULES if not any(_within(m, name) for name in MAY_IMPORT)]
    for package in ("core", "store", "nursery", "loop", "data", "host", "verbs", "control"):
        assert f"iifuse.{package}" in MODULES


@pytest.mark.parametrize("tool", ["iiadm", "svadm", "iiexport", "iijoin", "iiresync"])
@pytest.mark.parametrize("slow", ["numpy", "rich", "sqlite3"])
def test_layers_short_command_loads_nothing_slow(tool, slow):
    """Each took longer to load than all the rest of the program together."""
    look = f"import sys, iitools.{tool}; sys.exit({slow!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", look], check=False).returncode == 0
