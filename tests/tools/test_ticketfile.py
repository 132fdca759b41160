"""A ticket is on the disk, whole, before anybody is told so."""

import os
import stat

import pytest
from fake_service import lent

from iifuse import errors
from iifuse.core.ticket import Ticket
from iitools import ticketfile

OLD, NEW = Ticket((lent("/old"),)), Ticket((lent("/new"),), "night")


@pytest.fixture
def path(tmp_path):
    path = str(tmp_path / "ticket")
    ticketfile.write(path, OLD)
    return path


def test_what_is_written_is_read(path):
    ticketfile.write(path, NEW)
    assert ticketfile.read(path) == NEW


def test_file_is_synced_then_renamed_then_its_directory_synced(path, monkeypatch):
    done = []
    sync, rename = os.fsync, os.rename

    def fsync(descriptor):
        done.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        sync(descriptor)

    def renamed(*names):
        done.append("rename")
        rename(*names)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    ticketfile.write(path, NEW)
    assert done == ["file", "rename", "directory"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_failure_leaves_the_old_ticket_and_no_scratch(path, monkeypatch, step):
    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(errors.StorageError, match="No space left"):
        ticketfile.write(path, NEW)
    assert ticketfile.read(path) == OLD
    assert os.listdir(os.path.dirname(path)) == ["ticket"]


def test_bitmaps_are_added_in_order_and_nothing_else_changes():
    ticket = Ticket((lent("/a"), lent("/b")), "night")
    added = ticketfile.with_bitmaps(ticket, ["/x", "/y"])
    assert added == Ticket((lent("/a", bitmap="/x"), lent("/b", bitmap="/y")), "night")
