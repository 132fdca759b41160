"""The demonstration (`make demo`) beside others: what it mounts is nobody else's."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.finding("K15.12")
def test_demonstration_cannot_be_held_by_another_mount_namespace():
    """One that is made in the middle has none of its mounts, so it cannot keep them."""
    words = [sys.executable, "-u", ROOT / "examples/demo.py"]
    hold = ["unshare", "-m", "sh", "-c", "echo; exec sleep 600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert any("mount /dev/loop" in line for line in demo.stdout)
            with subprocess.Popen(hold, stdout=subprocess.PIPE) as other:
                assert other.stdout.readline() == b"\n"
                root = _root(demo.pid)
                seen = Path(f"/proc/{other.pid}/mountinfo").read_text()
                other.kill()
            assert root in Path(f"/proc/{demo.pid}/mountinfo").read_text()
            assert root not in seen
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.stdout.read()
    assert demo.returncode == 128 + signal.SIGTERM
    assert not os.path.exists(root)


def _root(pid):
    """The directory below which it mounts: that of its services' mounts."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    ours = Path("/proc/self/mountinfo").read_text()
    own = [line.split()[4] for line in lines if "fuse.iifuse" in line and line not in ours]
    return next(p for p in own if p.endswith("/app/mnt") and p not in ours).removesuffix("/app/mnt")


def test_summary_of_the_demonstration_keeps_its_times_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.syspath_prepend(ROOT / "examples")
    stage = importlib.import_module("demo_lib.stage").Stage()
    stage.console.width = 60
    with stage.step("a step whose name is longer than the terminal is wide, " * 2):
        pass
    capsys.readouterr()
    stage.summary()
    shown = capsys.readouterr().out
    assert "0.00 s" in shown
    assert max(map(len, shown.splitlines())) <= 60
