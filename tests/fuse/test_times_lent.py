"""The times of a shadow that goes to another host and comes back."""

import os
import time

import pytest
from filetimes import moved, times
from harness import CHUNK


class Night:
    """Two hosts and one set; `backup`: the host that imports, with the same bitmap each night."""

    def __init__(self, service, other, master, shadow):
        self.app, self.backup, self.master, self.shadow = service, other, master, shadow
        self.second = f"{shadow}.second"

    def ok(self, host, program, *words):
        done = host.run(program, *words)
        assert done.returncode == 0, done.stderr

    def lend(self):
        """The times that the imported file shows."""
        self.ok(self.app, "iiadm", "-E", self.shadow)
        self.ok(self.backup, "iiadm", "-I", self.shadow, self.second)
        return times(self.backup.path(self.shadow))

    def give_back(self):
        self.ok(self.backup, "iiadm", "-d", self.shadow)
        self.ok(self.app, "iiadm", "-J", self.shadow, self.second)

    def update(self):
        self.app.flip("s", self.shadow)
        self.app.wait(self.shadow)


@pytest.fixture
def night(new_service, volume, place):
    app, backup = new_service("app"), new_service("backup")
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    app.enable("ind", master, shadow)
    app.wait(shadow)
    return Night(app, backup, master, shadow)


def test_times_of_an_import_stay_until_the_content_changes(night):
    before = times(night.app.path(night.shadow))
    first = night.lend()
    assert first == before
    night.give_back()
    assert times(night.app.path(night.shadow)) == before
    night.update()
    assert night.lend() == first, "nothing has changed, so there is nothing to back up"
    night.give_back()
    night.app.write(night.master, 0, b"new")
    night.update()
    assert moved(first, night.lend())


def test_times_of_an_import_that_was_written_are_not_shown_again(night):
    """By nobody: not by the exporter after the join, nor by the next import of other content."""
    first = night.lend()
    night.backup.write(night.shadow, CHUNK, b"over there")
    written = times(night.backup.path(night.shadow))
    assert moved(first, written)
    night.give_back()
    joined = times(night.app.path(night.shadow))
    assert moved(written, joined)
    night.update()
    assert moved(joined, times(night.app.path(night.shadow)))
    assert moved(joined, night.lend())


def test_times_of_an_import_are_above_those_of_a_clock_that_was_ahead(night):
    night.lend()
    ahead = time.time_ns() + 3600 * 10**9
    os.utime(night.backup.path(night.shadow), ns=(ahead, ahead))
    night.backup.write(night.shadow, 0, b"written in an hour")
    shown = times(night.backup.path(night.shadow))
    assert shown[0] > ahead
    night.backup.kill()  # the host is lost with what it wrote
    night.ok(night.app, "iiadm", "-n", "-R", night.shadow)
    night.update()
    night.backup.start()
    night.ok(night.backup, "iiadm", "-d", night.shadow)
    assert moved(shown, night.lend())


def test_times_of_the_imported_file_survive_a_restart(night):
    night.lend()
    night.backup.write(night.shadow, 0, b"x")
    shown = times(night.backup.path(night.shadow))
    night.backup.restart()
    assert times(night.backup.path(night.shadow)) == shown
    night.backup.write(night.shadow, 0, b"y")
    shown = times(night.backup.path(night.shadow))
    night.backup.kill()
    night.backup.start()
    assert moved(shown, times(night.backup.path(night.shadow)))
