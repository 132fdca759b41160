"""A log that nobody reads holds up nobody (K8)."""

import io
import logging
import os
import subprocess
import sys
import threading
import time
from logging.handlers import QueueHandler

import pytest

from iifuse import logs

LOG = logging.getLogger("iifuse")
SIX = "\n".join(f"line {n}" for n in range(6)) + "\n"


class Reader(io.StringIO):
    """Takes lines only while somebody reads; of one who does not, `one` by one."""

    def __init__(self):
        super().__init__()
        self.reads = threading.Event()
        self.stands = threading.Event()
        self.one = threading.Semaphore(0)

    def write(self, text):
        self.stands.set()
        while not (self.reads.is_set() or self.one.acquire(timeout=0.001)):
            pass
        return super().write(text)


@pytest.fixture
def reader(monkeypatch):
    """Whoever reads what the root logger writes; what was there before is there again."""
    found = Reader()
    handler = logging.StreamHandler(found)
    handler.setFormatter(logging.Formatter("%(message)s"))
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    monkeypatch.setattr(logging.getLogger(), "level", logging.INFO)
    for where, name in ((threading, "excepthook"), (sys, "unraisablehook")):
        monkeypatch.setattr(where, name, getattr(where, name))
    yield found
    found.reads.set()


@pytest.fixture
def writer(reader):
    """The log with room for four lines, and one line that stands at the reader."""
    made = logs.LogWriter(4)
    made.start()
    LOG.info("line 0")
    assert reader.stands.wait(10)
    return made


def test_lines_are_written_in_their_order_when_somebody_reads_again(writer, reader):
    for n in range(1, 5):
        LOG.info("line %d", n)
    reader.reads.set()
    writer.end()
    assert reader.getvalue() == SIX.replace("line 5\n", "")


def test_lines_without_room_are_counted_and_told_where_they_are_missing(writer, reader):
    for n in range(1, 8):
        LOG.info("line %d", n)
    reader.reads.set()
    while "lost" not in reader.getvalue():
        time.sleep(0.001)
    LOG.info("line 8")
    writer.end()
    lines = reader.getvalue().splitlines()
    assert lines[5] == "3 lines of the log were lost: nobody read them"
    assert lines[:5] + lines[6:] == [f"line {n}" for n in (0, 1, 2, 3, 4, 8)]


def test_lost_line_is_told_once_before_the_next_one_that_has_room(writer, reader):
    for n in range(1, 6):
        LOG.info("line %d", n)
    for _ in range(3):
        reader.stands.clear()
        reader.one.release()
        assert reader.stands.wait(10)
    LOG.info("line 6")
    reader.reads.set()
    writer.end()
    lost = "1 line of the log was lost: nobody read them\n"
    assert reader.getvalue() == SIX.replace("line 5\n", f"{lost}line 6\n")


def test_nobody_waits_for_a_log_that_is_not_read(writer):
    began = time.monotonic()
    for _ in range(1000):
        LOG.error("a line")
    writer.say("last words")
    writer.end()
    assert time.monotonic() - began < 10


def test_what_was_said_is_written_when_the_log_has_settled(writer, reader):
    began = time.monotonic()
    writer.wait_until_written()
    assert 0.5 < time.monotonic() - began < 10, "nobody reads"
    reader.reads.set()
    LOG.info("line 1")
    writer.wait_until_written()
    assert reader.getvalue() == "line 0\nline 1\n"


def test_failed_call_and_traceback_look_as_they_do_without_a_thread(writer, reader):
    error = OSError(28, "No space left on device", "/v")
    LOG.info("%s: copy stopped: %s", "/s", error)
    try:
        raise ValueError("a defect")
    except ValueError:
        LOG.exception("a verb")
    reader.reads.set()
    writer.end()
    said = reader.getvalue()
    assert "/s: copy stopped: no room on the file system of /v\n" in said
    assert "a verb\nTraceback (most recent call last):\n" in said
    assert said.endswith("ValueError: a defect\n")


def test_line_that_is_wrong_is_told_in_the_log(writer, reader, capfd):
    record = LOG.makeRecord("x", logging.INFO, "", 0, "%d sets", ("no number",), None)
    next(h for h in logging.getLogger().handlers if isinstance(h, QueueHandler)).handle(record)
    reader.reads.set()
    writer.end()
    said = reader.getvalue()
    assert said.startswith("line 0\na line of the log is wrong: '%d sets'\nTraceback")
    assert said.endswith("a real number is required, not str\n")
    assert capfd.readouterr().err == ""


def test_defect_of_a_thread_and_of_an_object_that_goes_are_told_in_the_log(writer, reader, capfd):
    class Bad:
        def __del__(self):
            raise ValueError("of an object")

    def fail():
        raise ValueError("of a thread")

    thread = threading.Thread(target=fail, name="worker")
    thread.start()
    thread.join()
    Bad()
    reader.reads.set()
    writer.end()
    said = reader.getvalue()
    assert "the thread worker ends by a defect" in said
    assert "ValueError: of a thread" in said
    assert "ValueError: of an object" in said
    assert capfd.readouterr().err == ""


def test_thread_that_cannot_be_started_is_explained(reader, monkeypatch):
    def none(_self):
        raise RuntimeError("can't start new thread")

    made = logs.LogWriter()
    monkeypatch.setattr(threading.Thread, "start", none)
    with pytest.raises(logs.errors.ServiceError, match="pids"):
        made.start()


_ENDS = """
import logging, os, sys, time
from iifuse import logs, stopping
logs.set_up()
written = logs.LogWriter()
written.start()
for n in range(int(sys.argv[1])):
    logging.info("x" * 1000)
written.say("the last words")
written.end()
stopping.end(3)
"""


@pytest.mark.parametrize("lines", [20, 500])
def test_program_ends_though_nobody_reads_and_says_all_to_who_does(lines):
    """A pipe takes 64 KiB."""
    program = subprocess.Popen([sys.executable, "-c", _ENDS, str(lines)], stderr=subprocess.PIPE)
    assert program.wait(30) == 3
    os.set_blocking(program.stderr.fileno(), False)
    said = program.stderr.read().decode()
    program.stderr.close()
    assert said.endswith("the last words\n") is (lines == 20)
    assert said.count("\n") == 21 or lines == 500
