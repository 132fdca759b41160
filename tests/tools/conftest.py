import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from dataclasses import dataclass
from importlib import import_module

import advice
import pytest
from bitmaps import SHADOW, make_bitmap
from fake_service import CHUNK, CHUNKS, FakeService, lent, row
from hang import PATIENCE_SECONDS
from harness import BIN

from iifuse.control import protocol
from iifuse.core import ticket as tickets
from iifuse.core.ticket import Ticket


@pytest.fixture
def service(tmp_path, monkeypatch):
    """A service that every program finds by itself."""
    fake = FakeService(tmp_path / "control.sock")
    monkeypatch.setenv(protocol.SOCKET_VARIABLE, fake.path)
    yield fake
    fake.stop()


@pytest.fixture
def bitmap(tmp_path):
    """Make `b`; its path."""

    def make(**fields):
        make_bitmap(tmp_path / "b", **{"marked": SHADOW, **fields})
        return tmp_path / "b"

    return make


@pytest.fixture
def checked(run):
    """Call `iibitmap check` of one bitmap; (exit code, what it found)."""

    def call(path):
        ended = run("iibitmap", "--json", "check", str(path))
        (row,) = json.loads(ended.out)["bitmaps"]
        return ended.code, row

    return call


@dataclass
class Stage:
    """Two shadows that are sets of group `night`, and a ticket for both."""

    shadows: list[str]
    ticket: str

    def write_ticket(self, *, bitmaps=True, group="night", **fields):
        sets = tuple(
            lent(shadow, bitmap=f"{shadow}.iibm" if bitmaps else None, **fields)
            for shadow in self.shadows
        )
        with open(self.ticket, "wb") as file:
            file.write(tickets.encode(Ticket(sets, group)))

    def read_ticket(self):
        with open(self.ticket, "rb") as file:
            return tickets.decode(self.ticket, file.read())


@pytest.fixture
def stage(tmp_path, service):
    shadows = [str(tmp_path / name) for name in ("vol01", "vol02")]
    for shadow in shadows:
        with open(shadow, "wb") as file:
            file.truncate(CHUNK * CHUNKS)
    service.rows = [row(shadow, group="night") for shadow in shadows]
    stage = Stage(shadows, str(tmp_path / "night.iiticket"))
    stage.write_ticket()
    return stage


@dataclass
class Ended:
    code: int
    out: str
    err: str


@pytest.fixture
def run(capfd, monkeypatch):
    """Call a program in this process, with no terminal. Checks what holds for every end."""

    def call(program, *argv):
        with open(os.devnull) as nothing:
            monkeypatch.setattr(sys, "stdin", nothing)
            code = import_module(f"iitools.{program}").main(list(argv))
        ended = Ended(code, *capfd.readouterr())
        assert "Traceback" not in ended.err
        advice.check(ended.err)
        return ended

    return call


@pytest.fixture
def on_terminal():
    """Start a program with some of its three streams on a terminal, and type into it."""

    def call(program, *argv, typed="", streams=("stdin",), columns=255):
        outer, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
        os.write(outer, typed.encode())
        plain = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        env = {**os.environ, "TERM": "xterm"}
        env.pop("COLUMNS", None)  # some libraries set it, and it would beat the terminal's own size
        process = subprocess.Popen(
            [BIN / program, *argv],
            **{**plain, **dict.fromkeys(streams, inner)},
            text=True,
            env=env,
        )
        os.close(inner)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        shown = _rest(outer)
        return Ended(
            process.returncode,
            shown if "stdout" in streams else out,
            shown if "stderr" in streams else err,
        )

    return call


def _rest(outer):
    shown = b""
    try:
        while part := os.read(outer, 65536):
            shown += part
    except OSError:  # so a terminal says that its last writer has gone
        pass
    finally:
        os.close(outer)
    return shown.decode()
