"""A file system that is too small is noticed before anything is written, and said in words."""

import contextlib
import os
import subprocess
import threading

import pytest
from harness import CHUNK

from iifuse.control import protocol
from iifuse.control.protocol import Target
from iifuse.core.ticket import TicketEntry

pytestmark = pytest.mark.finding("K11.4")
HUGE = 1 << 44
"""16 TiB: its bitmap takes 129 MiB."""
LARGE = 1 << 40
"""Its bitmap takes 8.1 MiB."""


@pytest.fixture
def small(place):
    """A file system of 64 MiB in memory."""
    at = place / "small"
    at.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "small", at], check=True)
    yield at
    subprocess.run(["umount", "-l", at], check=True)


@pytest.fixture
def hollow(place):
    """Make a file of holes."""

    def make(name, size):
        path = place / name
        path.touch()
        os.truncate(path, size)
        return path

    return make


def free(at):
    found = os.statvfs(at)
    return found.f_bavail * found.f_frsize


def fill(at, leave):
    (at / "filler").write_bytes(bytes(free(at) - leave))


@contextlib.contextmanager
def untouched(at):
    """Nobody takes a byte of this file system, not even for a moment."""
    before, lowest, done = free(at), [free(at)], threading.Event()

    def watch():
        while not done.wait(0.0005):
            lowest[0] = min(lowest[0], free(at))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    assert lowest == [before]


def test_enable_looks_for_room_for_the_bitmap_before_it_writes(service, refused, hollow, small):
    master = hollow("m", HUGE)
    with untouched(small):
        said = refused(
            service, "iiadm", "-e", "ind", master, small / "s", small / "b",
            says=(f"{small}/b: there is no room for the bitmap", "129", "64 MiB are free"),
        )  # fmt: skip
    assert "make room there, or choose another place" in said
    assert "Errno" not in said


def test_bitmap_and_reserved_shadow_on_one_file_system_are_counted_together(
    service, refused, hollow, small
):
    master = hollow("m", 60 << 20)
    fill(small, 60 << 20)
    with untouched(small):
        refused(
            service, "iiadm", "-o", "reserve", "-e", "ind", master, small / "s", small / "b",
            says=("no room for the whole shadow", "takes 60 MiB, 60", "with what else"),
        )  # fmt: skip
    (small / "filler").unlink()
    done = service.run("iiadm", "-o", "reserve", "-e", "ind", master, small / "s", small / "b")
    assert (done.returncode, done.stderr) == (0, "")


def test_bitmap_of_holes_counts_as_one_that_is_not_there(service, refused, hollow, small):
    """It would be found out in the middle of writing it."""
    bitmap = small / "b"
    bitmap.touch()
    os.truncate(bitmap, 200 << 20)
    with untouched(small):
        refused(
            service, "iiadm", "-e", "dep", hollow("m", HUGE), small / "s", bitmap,
            says=("there is no room for the bitmap",),
        )  # fmt: skip


def lend(service, ticket_of):
    """Export sets from one service; their tickets."""
    service.wait(*ticket_of)
    service.client.call(protocol.Export(Target(tuple(map(str, ticket_of)))), list[TicketEntry])


def test_import_looks_for_room_before_it_writes(new_service, refused, hollow, place, small):
    here, there = new_service("here"), new_service("there")
    shadow = place / "s"
    here.enable("ind", hollow("m", LARGE), shadow)
    lend(here, [shadow])
    fill(small, 5 << 20)
    with untouched(small):
        says = ("there is no room for the bitmap",)
        refused(there, "iiadm", "-I", shadow, small / "b", says=says)
        refused(
            there, "iiimport", f"{shadow}.iiticket", "--bitmaps", small,
            says=("there is no room for the bitmaps", "are free"),
        )  # fmt: skip


def test_iiimport_counts_all_its_bitmaps_together(new_service, refused, hollow, place, small):
    here, there = new_service("here"), new_service("there")
    shadows = [place / "s1", place / "s2"]
    for number, shadow in enumerate(shadows):
        here.enable("ind", hollow(f"m{number}", LARGE), shadow, group="night")
    lend_all = here.run("iiexport", "-g", "night", "--ticket", place / "ticket")
    assert lend_all.returncode == 0, lend_all.stderr
    fill(small, 12 << 20)
    with untouched(small):
        refused(
            there, "iiimport", place / "ticket", "--bitmaps", small,
            says=("there is no room for the bitmaps: they take 16.",),
        )  # fmt: skip
    (small / "filler").unlink()
    assert there.run("iiimport", place / "ticket", "--bitmaps", small).returncode == 0


def test_reset_looks_for_room_for_a_new_bitmap(service, hollow, place, small):
    master, shadow, bitmap = hollow("m", LARGE), place / "s", small / "b"
    service.enable("ind", master, shadow, bitmap)
    service.wait(shadow)
    service.stop()
    bitmap.unlink()
    fill(small, 5 << 20)
    service.start()
    with untouched(small):
        done = service.run("iiadm", "-n", "-R", shadow)
    assert done.returncode == 2
    assert "there is no room for the bitmap" in done.stderr
    (small / "filler").unlink()
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_sparse_shadow_that_does_not_fit_is_enabled_and_told_of(
    service, volume, place, small, kind
):
    master = volume("m", 40 * CHUNK)
    fill(small, 20 * CHUNK)
    done = service.run("iiadm", "-e", kind, master, small / "s", place / "b")
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{small}/s: the shadow is sparse: ")
    assert "1.2 MiB, and" in line
    assert "are free on its file system; when it is full, it goes offline" in line
    assert "-o reserve" in line


def test_shadow_that_fits_is_not_told_of(service, volume, place, small):
    """Nor is one of a master whose holes alone do not fit."""
    master = volume("m", 40 * CHUNK)
    os.truncate(master, LARGE)
    done = service.run("iiadm", "-e", "ind", master, small / "s", place / "b")
    assert (done.returncode, done.stderr) == (0, "")


def test_full_file_system_is_said_in_words(service, volume, place, small):
    master, shadow = volume("m", 40 * CHUNK), small / "s"
    fill(small, 20 * CHUNK)
    service.run("iiadm", "-e", "ind", master, shadow, place / "b")
    assert service.run("iiadm", "-w", shadow).returncode == 1
    status = service.status(shadow)
    assert status.offline_reason == f"no room on the file system of {shadow}"
    assert "Errno" not in service.said()


def test_export_whose_ticket_has_no_room_leaves_nothing_of_it(service, volume, place, small):
    master, shadow = volume("m", 40 * CHUNK), small / "s"
    done = service.run("iiadm", "-o", "reserve", "-e", "ind", master, shadow, place / "b")
    assert (done.returncode, done.stderr) == (0, "")
    service.wait(shadow)
    fill(small, 0)
    done = service.run("iiadm", "-E", shadow)
    assert done.returncode == 2
    assert "No space left" in done.stderr or "no room" in done.stderr
    assert sorted(path.name for path in small.iterdir()) == ["filler", "s"]
    assert service.status(shadow).custody == "local"


def test_list_of_what_was_not_restored_is_whole_or_not_there(service, volume, place, small):
    """Else the next try would be refused for the half one."""
    master, shadow = volume("m", 64 << 20), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.leave_restore_aborted(shadow)
    fill(small, 0)
    done = service.run("iiadm", "-n", "--give-up", "--extents", small / "list", shadow)
    assert done.returncode == 2
    assert "nothing was given up" in done.stderr
    assert not (small / "list").exists()
    assert service.status(shadow).progress == "to_master"
