"""Version 0.1.0 of the program, out of the project's history, to make what its users have."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Service

COMMIT = "7d7e438"
ROOT = Path(__file__).parents[3]


def unpack(target: Path) -> Path:
    """The old code below `target`, to be put on PYTHONPATH."""
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", COMMIT, "iifuse", "tools"], capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"the history that holds version 0.1.0 is not here: {archive.stderr.decode()}")
    target.mkdir()
    subprocess.run(["tar", "-x", "-C", target], input=archive.stdout, check=True)
    (target / "iitools").symlink_to("tools")
    env = {**os.environ, "PYTHONPATH": str(target)}
    show = "import iifuse.core.header as h; print(h.__file__, h.VERSION)"
    call = [sys.executable, "-P", "-c", show]
    found = subprocess.run(call, env=env, capture_output=True, text=True, check=True).stdout
    assert found == f"{target}/iifuse/core/header.py 1\n", "the present code would be tested"
    return target


class OldService(Service):
    """A service of version 0.1.0. `code`: what `unpack` has made."""

    def __init__(self, root: Path, code: Path, options: tuple[str, ...] = ("stop_wait=2",)) -> None:
        super().__init__(root, "app", options)
        self.code = code

    def command(self) -> list[str]:
        return [sys.executable, "-P", "-m", "iifuse.service", *super().command()[1:]]

    def start(self, **options: object) -> Service:
        return super().start(env={"PYTHONPATH": str(self.code)}, **options)

    def run(self, program: str, *words: object, **options: object) -> subprocess.CompletedProcess:
        return run_old(self.code, program, *words, socket=self.socket, **options)


def run_old(
    code: Path, program: str, *words: object, socket: object = "/nowhere", **options: object
) -> subprocess.CompletedProcess:
    """One of the old tools, as its users ran it."""
    call = f"import sys; from iitools.{program} import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-P", "-c", call, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(code), "IIFUSE_SOCKET": str(socket)},
        capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False, timeout=120,
        **options,
    )  # fmt: skip
