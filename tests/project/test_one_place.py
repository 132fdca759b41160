"""What may be done in one place only: each of these was done in several, and they disagreed."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = [path for part in ("iifuse", "tools") for path in sorted((ROOT / part).rglob("*.py"))]

PLACES = {
    "write_header": ("iifuse/store/headerlog.py",),
    "write_anew": ("iifuse/store/headerlog.py", "iifuse/data/volumeset.py"),
    "open_volume": (
        "iifuse/host/instance.py", "iifuse/store/transitions.py", "tools/iibitmap_read.py",
    ),
    "replace_lost_bits": ("iifuse/host/trust.py", "tools/iibitmap_repair.py"),
}  # fmt: skip
"""Name of a function -> who may call it. Of open_volume: who may call that of store.volume; all
others ask their instance, which knows what the administrator has said of volumes."""


def calls(source: str, name: str) -> list[int]:
    """Lines on which a function is called, or handed on to be called; not as `instance.name`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        for asked in (node.func, *node.args)
        if (isinstance(asked, ast.Name) and asked.id == name)
        or (isinstance(asked, ast.Attribute) and asked.attr == name and not _asks_instance(asked))
    ]


def _asks_instance(node: ast.Attribute) -> bool:
    return node.attr == "open_volume" and ast.unparse(node.value) in ("instance", "self._instance")


@pytest.mark.parametrize("name", PLACES)
def test_one_place_does_what_others_must_not(name):
    found = {str(path.relative_to(ROOT)) for path in FILES if calls(path.read_text(), name)}
    own = {"open_volume": {"iifuse/store/presence.py"}}.get(name, set())
    assert found - own == set(PLACES[name])


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("volume = open_volume(path)", True),
        ("await blocking(partial(open_volume, path))", True),
        ("volume = instance.open_volume(path)", False),
        ("volume = volumes.open_volume(path)", True),
    ],
)
def test_one_place_is_found_out(line, found):
    assert bool(calls(f"async def f():\n    {line}", "open_volume")) is found
