"""What the service says while it runs, to people and to the journal (K14)."""

import errno
import fcntl
import logging
import os
import re
import subprocess
import time
from contextlib import suppress

import pytest
from harness import Service

from iifuse import logs

FOR_PEOPLE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR) .")
FOR_JOURNAL = re.compile(r"<[346]>.")


@pytest.mark.finding("K14.1")
@pytest.mark.parametrize("journal", [False, True])
def test_each_line_has_what_its_reader_needs(place, volume, journal):
    service = Service(place, "app", ("stop_wait=0.1",))
    service.log.touch()
    found = service.log.stat()
    stream = f"{found.st_dev}:{found.st_ino}" if journal else "1:1"
    try:
        service.start(env={"JOURNAL_STREAM": stream})
        master, shadow = volume("m"), place / "s"
        service.enable("ind", master, shadow)
        service.wait(shadow)
        service.flip("s", shadow)
        fd = os.open(service.path(master), os.O_RDONLY)
        assert service.stop() == 3
        with suppress(OSError):  # its file system has gone
            os.close(fd)
    finally:
        service.clean_up()
    lines = service.log.read_text().splitlines()
    assert len(lines) > 5
    form = FOR_JOURNAL if journal else FOR_PEOPLE
    assert all(form.match(line) for line in lines), lines
    said = "\n".join(lines)
    assert "still open" in said
    assert ("<4>" if journal else " WARNING ") in said
    assert "enable, independent (point in time 1)" in said
    assert "update of the shadow (point in time 2)" in said


@pytest.mark.finding("K11.4")
def test_failed_call_is_told_without_its_number():
    error = OSError(errno.ENOSPC, "No space left on device", "/v")
    text = "%s: copy stopped: %s"
    record = logging.LogRecord("x", logging.ERROR, "", 0, text, ("/s", error), None)
    assert logs.in_words(record)
    assert record.getMessage() == "/s: copy stopped: no room on the file system of /v"
    plain = logging.LogRecord("x", logging.INFO, "", 0, "%d sets", (3,), None)
    assert logs.in_words(plain)
    assert plain.getMessage() == "3 sets"


def test_every_line_of_a_traceback_has_its_priority(monkeypatch, capfd):
    """On standard error, which leads to the journal as systemd says it."""
    found, root = os.fstat(2), logging.getLogger()
    with monkeypatch.context() as patch:
        patch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        patch.setattr(root, "handlers", [])
        patch.setattr(root, "level", root.level)
        logs.set_up()
        try:
            raise ValueError("two\nlines")
        except ValueError:
            logs.log.critical("a %s", "defect", exc_info=True)
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "<2>a defect"
    assert lines[-1] == "<2>lines"
    assert all(line.startswith("<2>") for line in lines)


class Unread(Service):
    """A service whose standard error is a pipe of one page, which nobody reads but the test."""

    def _begin(self, more):
        self.said, theirs = os.pipe()
        fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, 4096)
        try:
            return subprocess.Popen(self.command(), stderr=theirs, env={**os.environ, **more})
        finally:
            os.close(theirs)

    def read_on(self, end):
        said = b""
        while end not in said:
            said += os.read(self.said, 1 << 16)
        return said.decode()


@pytest.fixture
def unread(place):
    service = Unread(place, "app", ("stop_wait=0.1",))
    try:
        yield service.start()
    finally:
        service.clean_up()
        os.close(service.said)


@pytest.mark.finding("K8.6")
def test_log_that_nobody_reads_holds_up_no_verb_and_no_file(unread, volume, place):
    master, shadow = volume("m"), place / "s"
    unread.enable("dep", master, shadow)
    for _ in range(60):
        unread.flip("s", shadow)
    unread.write(master, 0, b"written")
    assert unread.read(master)[:7] == b"written"
    said = unread.read_on(b"(point in time 61)")
    found = [int(n) for n in re.findall(r"update of the shadow \(point in time (\d+)\)", said)]
    assert found == list(range(2, 62))
    assert "lost" not in said
    assert unread.stop() == 0


@pytest.mark.finding("K8.6")
def test_service_whose_log_nobody_reads_stops_in_order(unread, volume, place):
    master, shadow = volume("m"), place / "s"
    unread.enable("dep", master, shadow)
    for _ in range(60):
        unread.flip("s", shadow)
    began = time.monotonic()
    assert unread.stop() == 0
    assert time.monotonic() - began < 20
