"""What a person at a terminal of 80 columns sees of messages and questions."""

import os
import pty
import signal
import subprocess
import termios
import time
from fcntl import ioctl
from struct import pack

import pytest
from fake_service import row
from hang import PATIENCE_SECONDS
from harness import BIN

from iifuse import errors, terminal
from iifuse.control import protocol

LONG = (
    "/srv/backup/vol01: has lost its bitmap volume, and what differs is unknown until "
    "'iiadm -R /srv/backup/vol01' makes another one; the master-to-shadow copy begins anew"
)


@pytest.fixture
def narrow():
    """A terminal of 40 columns: (our end, the program's end as a stream)."""
    outer, inner = pty.openpty()
    ioctl(inner, termios.TIOCSWINSZ, pack("4H", 24, 40, 0, 0))
    with os.fdopen(inner, "w") as stream:
        yield outer, stream
    os.close(outer)


def test_message_on_a_terminal_breaks_between_words(narrow):
    lines = terminal.fitted(LONG, narrow[1]).split("\n")
    assert " ".join(lines) == LONG
    assert max(map(len, lines)) < 40


def test_command_and_path_stay_whole_on_a_terminal(narrow):
    command = "'iiadm -R /srv/a/path/that/is/longer/than/the/terminal/is/wide'"
    lines = terminal.fitted(f"the set's volume is gone; {command} brings it back", narrow[1])
    assert command in lines.split("\n")


def test_short_message_and_its_lines_stay(narrow):
    assert terminal.fitted("usage: x\n  y  z", narrow[1]) == "usage: x\n  y  z"


def test_message_in_a_pipe_is_one_line(run, service):
    service.on(protocol.Abort, errors.Refused("/s", LONG))
    assert run("iiadm", "-a", "/s").err == f"iiadm: /s: {LONG}\n"


def _interrupted(outer, stream, *words, until):
    """What the program says that is interrupted once `until` is there to be read."""
    with subprocess.Popen([BIN / "iiadm", *words], stdin=stream, stderr=stream) as process:
        _read(outer, until)
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_SECONDS) == 130
    return _read(outer, b"done").decode()


def _read(outer, until):
    """A terminal gives what was written in parts."""
    shown, end = b"", time.monotonic() + PATIENCE_SECONDS
    while until not in shown and time.monotonic() < end:
        shown += os.read(outer, 4096)
    return shown


@pytest.mark.parametrize("words", ["-u m /s", "-J /s /b"])
def test_interrupt_at_a_question_says_that_nothing_was_done(narrow, service, words):
    service.rows = [row("/s")]
    why = errors.Question("/s", "this would overwrite a master", "a yes or -n goes ahead")
    service.on(protocol.Update, why)
    service.on(protocol.Join, errors.NotClosed("/b", "was not closed", "disable it there"))
    said = _interrupted(*narrow, *words.split(), until=b"(yes/no) ")
    assert "\niiadm: interrupted; nothing was done" in said.replace("\r", "")


def test_question_on_a_terminal_breaks_between_words(narrow, service):
    service.on(protocol.Disable, errors.Question("/s", LONG, "a yes or -n goes ahead"))
    outer, stream = narrow
    process = subprocess.Popen([BIN / "iiadm", "-d", "/s"], stdin=stream, stderr=stream)
    shown = _read(outer, b"(yes/no) ")
    os.write(outer, b"no\n")
    assert process.wait(PATIENCE_SECONDS) == 1
    lines = shown.decode().replace("\r", "").split("\n")
    assert len(lines) > 3
    assert max(map(len, lines)) < 40
