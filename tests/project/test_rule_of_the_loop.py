"""On the event loop there are only reads and writes of volumes: all else may hang (K8)."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCKING = {
    "access", "chmod", "close", "data_from", "drop_cache", "exists", "fallocate", "fdatasync",
    "file_at", "find_mount", "free_bytes", "fstat", "fstatvfs", "fsync", "identify", "is_sparse",
    "isdir", "isfile", "islink", "listdir", "lstat", "number_at", "open", "open_volume",
    "percent_used", "probe", "quiet_stamp", "readlink", "realpath", "rename", "reserve", "samefile",
    "scandir", "stamp", "standing_at", "stat", "statvfs", "sync", "sync_anew", "sync_times",
    "truncate", "unlink", "written_meanwhile", "written_since",
}  # fmt: skip
MAY = {
    "iifuse/control/server.py": {
        "listener.close()", "self._listener.close()", "os.close(self._spare)",
    },
    "iifuse/verbs/recovery.py": {"instance.standing_at(path)"},
    "iifuse/verbs/replacing.py": {"instance.standing_at(family.path)"},
    # Before the first volume is open, and after the last one has been closed.
    "iifuse/service.py": {
        "TransitionFile.open(self.state)", "db.close()", "transitions.close()",
        "self._server.open()", "self._server.close()",
        "self.mount.open()",
    },
}  # fmt: skip
"""Of sockets and registries, and of what no volume waits for."""


class OnTheLoop(ast.NodeVisitor):
    """The calls that may block, and that the body of a coroutine makes itself."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._is_coroutine = False

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._visit_body(node, True)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._visit_body(node, False)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._visit_body(node, False)

    def _visit_body(self, node: ast.AST, is_coroutine: bool) -> None:
        before, self._is_coroutine = self._is_coroutine, is_coroutine
        self.generic_visit(node)
        self._is_coroutine = before

    def visit_Await(self, node: ast.Await) -> None:
        """What is awaited is a coroutine of ours; its arguments are evaluated here."""
        for part in ast.iter_child_nodes(node.value):
            self.visit(part)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)
        if self._is_coroutine and name in BLOCKING:
            self.found.append(ast.unparse(node))
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        """A stack that is left closes what stands on it."""
        for item in node.items:
            if self._is_coroutine and re.search(r"\bundo\b|ExitStack", ast.unparse(item)):
                self.found.append(ast.unparse(item))
        self.generic_visit(node)


def blocking(source: str) -> list[str]:
    visitor = OnTheLoop()
    visitor.visit(ast.parse(source))
    return visitor.found


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize("path", sorted((ROOT / "iifuse").rglob("*.py")), ids=lambda p: p.stem)
def test_coroutines_of_a_module_leave_what_may_block_to_threads(path):
    allowed = MAY.get(str(path.relative_to(ROOT)), set())
    assert set(blocking(path.read_text())) <= allowed


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("volume.close()", True), ("os.stat(path)", True), ("x = [open(p) for p in paths]", True),
        ("with undo:\n  pass", True), ("await go(os.stat(path))", True),
        ("await loop.blocking(volume.close)", False), ("await server.open()", False),
        ("await loop.blocking(lambda: os.stat(path))", False), ("volume.read(0, 1)", False),
    ],
)  # fmt: skip
def test_what_may_block_is_found(line, is_wrong):
    body = "\n  ".join(line.split("\n"))
    assert bool(blocking(f"async def run():\n  {body}")) is is_wrong
    assert blocking(f"def run():\n  {body}") == []
