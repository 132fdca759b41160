"""A lost or outdated state directory: bitmap volumes bring their sets back, or say why not."""

import contextlib
import os
import shutil
import sqlite3
from dataclasses import replace
from uuid import uuid4

import pytest
from harness import CHUNK

from iifuse.control import protocol
from iifuse.core.header import Pit
from iifuse.core.sector import Region
from iifuse.core.state import Change, Role
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import open_volume

SIZE = 50 * CHUNK + 700


@pytest.fixture
def sets(service, volume, place):
    """An independent and a dependent set of one master, changed on both sides."""
    master = volume("m", SIZE)
    shadows = place / "ind", place / "dep"
    service.enable("ind", master, shadows[0], group="night")
    service.enable("dep", master, shadows[1])
    service.wait(*shadows)
    for chunk in (0, 7, 50):
        service.write(master, chunk * CHUNK, b"new")
    service.write(shadows[0], 9 * CHUNK, b"own")
    service.write(shadows[1], 11 * CHUNK, b"own")
    return master, *shadows


def lose_state(service):
    shutil.rmtree(service.state)


def bitmap(shadow):
    return shadow.with_name(shadow.name + ".bmp")


def attach(service, *shadows, group=()):
    return service.run("iiadm", *group, "--attach", *map(bitmap, shadows))


def test_sets_come_back_from_their_bitmaps_alone_after_a_clean_stop(service, sets):
    _, ind, dep = sets
    shown = [service.read(v) for v in sets]
    before = [service.status(s) for s in (ind, dep)]
    service.stop()
    lose_state(service)
    service.start()
    assert service.client.status() == []
    done = attach(service, ind, dep, group=("-g", "night"))
    assert (done.returncode, done.stderr) == (0, "")
    assert [service.read(v) for v in sets] == shown
    for row, old in zip((service.status(ind), service.status(dep)), before, strict=True):
        assert row.group == "night"
        assert (row.uuid, row.pit, row.shadow_bits) == (old.uuid, old.pit, old.shadow_bits)
    service.flip("s", ind, dep)
    service.wait(ind)
    assert service.status(ind).copied_chunks == 4
    assert service.read(ind) == service.read(dep) == service.read(sets[0])
    service.kill()
    service.start()
    assert {row.shadow for row in service.client.status()} == {str(ind), str(dep)}
    assert all(not row.offline for row in service.client.status())


def test_after_a_crash_no_bit_is_believed(service, sets):
    """F15: who wrote the master since, and whether a group command was cut short, nobody knows."""
    master, ind, dep = sets
    shown = [service.read(v) for v in (master, ind)]
    service.kill()
    lose_state(service)
    service.start()
    done = attach(service, ind, dep)
    assert done.returncode == 0
    for shadow in (ind, dep):
        assert f"{shadow}: offline, it was not stopped cleanly" in done.stderr
    assert service.status(ind).offline == ("bitmap",)
    assert set(service.status(dep).offline) == {"shadow", "bitmap"}
    assert [service.read(v) for v in (master, ind)] == shown
    service.restart()
    for shadow in (ind, dep):
        assert service.run("iiadm", "-R", shadow).returncode == 0
    assert service.status(ind).percent == 100
    service.flip("s", ind)
    service.wait(ind)
    assert service.read(ind) == service.read(dep) == service.read(master)


def test_copy_bits_of_a_restore_that_failed_as_it_began_do_not_outlive_a_reset(service, sets):
    """They would show old chunks of the shadow as the new point in time."""
    master, _ind, dep = sets
    service.stop()
    file = BitmapFile(open_volume(str(bitmap(dep))))
    header = file.read_header()
    bits, _ = file.read_bits(header, Region.SHADOW)
    file.write_region(header, Region.COPY, bits)
    file.write_header(
        replace(
            header, clean=False, offline=Role.SHADOW, offline_reason="planted",
            pending=Change.MERGE_TO_MASTER, pending_pit=Pit(2, uuid4(), 1),
        )
    )  # fmt: skip
    file.volume.close()
    service.start()
    assert service.status(dep).offline == ("shadow",)
    assert service.run("iiadm", "-R", dep).returncode == 0
    assert service.read(dep) == service.read(master)
    assert service.status(dep).copy_bits == 0


def history(service, shadow):
    with contextlib.closing(sqlite3.connect(service.state / "state.db")) as db:
        rows = db.execute("SELECT event, why FROM history WHERE shadow = ?", (str(shadow),))
        return [f"{event}: {why}" for event, why in rows]


def test_what_a_start_had_to_do_stands_in_the_history(service, sets):
    """F15, F17: a point in time completed, a volume written behind our back."""
    _, ind, dep = sets
    service.stop()
    file = BitmapFile(open_volume(str(bitmap(dep))))
    header = replace(file.read_header(), pending=Change.CLEAR, pending_pit=Pit(2, uuid4(), 1))
    file.write_header(header)
    file.volume.close()
    os.utime(ind)
    service.start()
    assert "start: point in time 2, which was cut short, is completed" in history(service, dep)
    assert any("was written or replaced" in event for event in history(service, ind))
    assert service.read(dep) == service.read(sets[0])


def test_set_without_its_bitmap_keeps_what_the_database_knows_of_it(service, sets):
    """A stand-in for the header must not make a copy that was cut short look finished."""
    _, ind, _ = sets
    service.kill()
    bitmap(ind).rename(bitmap(ind).with_name("away"))
    with contextlib.closing(sqlite3.connect(service.state / "state.db")) as db:
        db.execute("UPDATE sets SET progress = 1 WHERE shadow = ?", (str(ind),))
        db.commit()
    for _ in range(2):
        service.start()
        assert service.status(ind).waiting == ("bitmap",)
        with pytest.raises(OSError):
            service.read(ind)
        assert service.run("iiadm", "-o", "limit=9", ind).returncode == 2
        service.kill()


def test_running_copy_goes_on_after_an_attach(service, disk_place):
    master = disk_place / "m"
    master.write_bytes(os.urandom(256 << 20))
    shadow = disk_place / "s"
    service.enable("ind", master, shadow)
    service.stop()
    lose_state(service)
    service.start()
    assert attach(service, shadow).returncode == 0
    service.write(master, 5, b"later")
    service.wait(shadow)
    assert service.status(shadow).progress == "idle"
    assert service.read(shadow)[10:] == service.read(master)[10:]


def test_exported_and_imported_sets_can_be_attached_and_joined(service, new_service, sets, place):
    master, ind, _ = sets
    other = new_service("backup")
    second = place / "second"
    assert service.run("iiadm", "-E", ind).returncode == 0
    assert other.run("iiadm", "-I", ind, second).returncode == 0
    other.write(ind, 20 * CHUNK, b"there")
    for one in (service, other):
        one.stop()
        lose_state(one)
        one.start()
    assert attach(service, ind).returncode == 0
    assert other.run("iiadm", "--attach", second).returncode == 0
    assert service.status(ind).custody == "exported"
    assert other.status(ind).custody == "imported"
    other.write(ind, 21 * CHUNK, b"again")
    other.disable(ind)
    assert service.run("iiadm", "-J", ind, second).returncode == 0
    service.flip("s", ind)
    service.wait(ind)
    assert service.read(ind) == service.read(master)


def test_bitmap_that_was_moved_is_attached_where_it_is(service, sets):
    _, ind, _ = sets
    service.stop()
    lose_state(service)
    moved = ind.with_name("moved.bmp")
    bitmap(ind).rename(moved)
    service.start()
    assert service.run("iiadm", "--attach", moved).returncode == 0
    assert service.status(ind).bitmap == str(moved)
    service.restart()
    assert service.status(ind).offline == ()


def test_attach_refuses_what_it_should_and_changes_nothing(service, sets, place, refused):
    master, ind, dep = sets
    refused(service, "iiadm", "--attach", bitmap(ind), says=("already",))
    refused(service, "iiadm", "--attach", master, todo=False)
    service.stop()
    lose_state(service)
    service.start()
    twin = place / "twin"
    shutil.copy(bitmap(ind), twin)
    words = ("--attach", bitmap(ind), twin)
    refused(service, "iiadm", *words, code=1, says=("one set",), todo=False)
    cut = place / "cut"
    cut.write_bytes(bitmap(dep).read_bytes()[:-512])
    refused(service, "iiadm", "--attach", bitmap(ind), cut, says=(cut,), todo=False)
    assert attach(service, ind, dep).returncode == 0
    service.disable(dep)
    refused(service, "iiadm", "--attach", bitmap(dep), says=("disabled",))


def test_service_says_that_its_state_database_is_missing(service, sets):
    service.stop()
    (service.state / "state.db").unlink()
    service.start()
    assert "state.db is missing" in service.log.read_text()
    assert "iiadm --attach" in service.log.read_text()


def test_older_copy_of_a_bitmap_is_not_believed(service, sets):
    """F14: the same set, the same point in time, fewer bits."""
    master, ind, dep = sets
    old = {s: bitmap(s).read_bytes() for s in (ind, dep)}
    service.restart()
    service.write(master, 30 * CHUNK, b"not in the older bitmaps")
    service.stop()
    for shadow, blob in old.items():
        bitmap(shadow).write_bytes(blob)
    service.start()
    assert service.status(ind).offline == ("bitmap",)
    assert set(service.status(dep).offline) == {"shadow", "bitmap"}
    assert "is not as this service left it" in service.status(ind).offline_reason
    for shadow in (ind, dep):
        assert service.run("iiadm", "-R", shadow).returncode == 0
    service.flip("s", ind)
    service.wait(ind)
    assert service.read(ind) == service.read(dep) == service.read(master)


def test_group_name_of_an_attach_is_checked(service, sets):
    request = protocol.Attach((str(bitmap(sets[1])),), "a b")
    with pytest.raises(Exception, match="not a group name"):
        service.client.notes(request)


def test_dependent_restore_whose_bitmap_is_lost_shows_no_mixture(service, sets, refused):
    """F4, F13: which chunks of the master are right, nobody knows; the way out is said."""
    master, _, dep = sets
    service.kill()
    bitmap(dep).unlink()
    with contextlib.closing(sqlite3.connect(service.state / "state.db")) as db:
        # A restore of a few chunks is over before anybody can kill it.
        db.execute("UPDATE sets SET progress = 2 WHERE shadow = ?", (str(dep),))
        db.commit()
    service.start()
    with pytest.raises(OSError):
        service.read(master)
    with pytest.raises(OSError):
        service.write(master, 3 * CHUNK, b"x")
    refused(service, "iiadm", "-n", "-R", dep, says=("nobody knows which chunks", "-d"))
    refused(service, "iiadm", "-d", dep, code=1, says=("wipe", "not finished"))
    assert service.run("iiadm", "-n", "-d", dep).returncode == 0
    assert service.read(master) == master.read_bytes()
