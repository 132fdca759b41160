"""Failures of one call under the real program: fsync, a short write, a device that vanishes."""

import errno
import os

import pytest
from devices import attach
from fault_service import faulty, outcome, shim, sync
from harness import CHUNK

__all__ = ["attach", "faulty", "shim"]


@pytest.fixture
def made(faulty, volume, place):
    """An independent set that is whole: (faulty, master, shadow)."""
    master, shadow = volume("m"), place / "s"
    faulty.service.enable("ind", master, shadow)
    faulty.service.wait(shadow)
    return faulty, master, shadow


def test_failed_fsync_of_the_master_is_never_forgotten(made):
    """F11: the caller learns of it, again and again; the master stays, and no PIT is made of it."""
    faulty, master, shadow = made
    service, file = faulty.service, faulty.service.path(master)
    service.write(master, 0, b"perhaps lost")
    with faulty.failing("sync", master):
        assert outcome(sync, file) == "EIO"
    assert outcome(sync, file) == "EIO"
    service.write(master, CHUNK, b"goes on")
    assert service.read(master)[CHUNK:].startswith(b"goes on")
    assert service.status(shadow).offline == ()
    done = service.run("iiadm", "-u", "s", shadow)
    assert done.returncode == 2
    assert "earlier sync failed" in done.stderr
    assert str(master) in done.stderr
    faulty.kill_and_start()
    assert outcome(sync, file) == "ok"
    assert service.run("iiadm", "-u", "s", shadow).returncode == 0


@pytest.mark.parametrize("how", ["fsync", "-u m"])
def test_failed_sync_of_a_shadow_takes_it_offline(made, how):
    """F11: nobody knows what it holds, whatever a second sync says."""
    faulty, master, shadow = made
    service = faulty.service
    service.write(shadow, 0, b"perhaps lost")
    with faulty.failing("sync", shadow):
        if how == "fsync":
            assert outcome(sync, service.path(shadow)) == "EIO"
        else:
            assert service.run("iiadm", "-u", "m", "-n", shadow).returncode == 2
    assert service.status(shadow).offline == ("shadow",)
    assert outcome(service.read, shadow) == "EIO"
    faulty.kill_and_start()
    assert service.status(shadow).offline == ("shadow",)
    service.write(master, CHUNK, b"goes on")
    assert service.run("iiadm", "-R", shadow).returncode == 0
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def test_failed_sync_of_a_shadow_is_not_the_masters_business(faulty, volume, place):
    """F7, durability=process: an fsync of the master syncs what first touches have left."""
    service = faulty.service
    service.stop()
    service.options += ("durability=process",)
    faulty.start()
    master, shadow = volume("m"), place / "s"
    service.enable("dep", master, shadow)
    service.write(master, 0, b"first touch")
    with faulty.failing("sync", shadow):
        assert outcome(sync, service.path(master)) == "ok"
    assert service.status(shadow).offline == ("shadow",)
    assert outcome(sync, service.path(master)) == "ok"


@pytest.mark.parametrize("role", ["master", "shadow", "bitmap"])
@pytest.mark.parametrize("operation", ["write", "read"])
def test_short_call_is_not_the_end_of_it(faulty, volume, place, role, operation):
    """F10: every read and write is done in halves of halves, and all is as it should be."""
    service = faulty.service
    master, shadow = volume("m"), place / "s"
    kept = master.read_bytes()
    service.enable("dep", master, shadow)
    new = os.urandom(3 * CHUNK)
    path = {"master": master, "shadow": shadow, "bitmap": place / "s.bmp"}[role]
    with faulty.failing(operation, path, 0):
        service.write(master, CHUNK // 2, new)
        assert outcome(sync, service.path(master)) == "ok"
        expected = kept[: CHUNK // 2] + new + kept[CHUNK // 2 + len(new) :]
        assert service.read(master) == expected
        assert service.read(shadow) == kept
    faulty.kill_and_start()
    assert service.status(shadow).offline == ()
    assert (service.read(master), service.read(shadow)) == (expected, kept)


def test_shrunken_shadow_answers_eio_and_the_master_goes_on(made):
    faulty, master, shadow = made
    service = faulty.service
    os.truncate(shadow, 5 * CHUNK)
    assert outcome(service.read, shadow) == "EIO"
    service.write(master, 7 * CHUNK, b"goes on")
    assert service.read(master)[7 * CHUNK :].startswith(b"goes on")
    faulty.kill_and_start()
    assert service.status(shadow).offline == ("shadow",)
    done = service.run("iiadm", "-R", shadow)
    assert done.returncode == 2
    assert "too small" in done.stderr
    os.truncate(shadow, master.stat().st_size)
    assert service.run("iiadm", "-R", shadow).returncode == 0
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def test_shrunken_master_is_the_readers_error_and_takes_a_dependent_shadow(faulty, volume, place):
    """F9: what cannot be preserved is lost, and said to be; the master is served on."""
    service, master, shadow = faulty.service, volume("m", 40 * CHUNK), place / "s"
    service.enable("dep", master, shadow)
    os.truncate(master, 20 * CHUNK)
    assert outcome(service.read, master) == "EIO"
    service.write(master, 30 * CHUNK, bytes(CHUNK))
    assert "shadow" in service.status(shadow).offline
    assert outcome(service.read, shadow) == "EIO"
    with service.path(master).open("rb") as file:
        assert len(file.read(10 * CHUNK)) == 10 * CHUNK


def test_vanished_device_takes_its_set_and_no_other(faulty, volume, place, attach):
    """Every call on it fails from now on, and it cannot be noted on it."""
    service, master = faulty.service, volume("m", 64 * CHUNK)
    backing = volume("disk", 64 * CHUNK)
    device, other = attach(backing), place / "other"
    service.enable("dep", master, device, place / "b")
    service.enable("dep", master, other)
    kept = service.read(other)
    faulty.fail("any", device, errno.ENXIO)
    service.write(master, 3 * CHUNK, b"goes on")
    assert service.read(master)[3 * CHUNK :].startswith(b"goes on")
    assert "shadow" in service.status(device).offline
    assert service.status(other).offline == ()
    assert service.read(other) == kept
    faulty.repair()
    assert service.run("iiadm", "-R", device).returncode == 0
    assert service.read(device) == service.read(master)


def test_group_with_a_failing_member_moves_the_others(faulty, volume, place):
    """The record is durable, so the group has its PIT; the member that cannot follow is named."""
    service = faulty.service
    pairs = [(volume(f"m{n}"), place / f"s{n}") for n in range(3)]
    for master, shadow in pairs:
        service.enable("dep", master, shadow, group="g")
        service.write(master, 0, b"before the update")
    bad = pairs[1][1]
    with faulty.failing("write", f"{bad}.bmp"):
        done = service.run("iiadm", "-g", "g", "-u", "s")
    assert done.returncode == 2
    assert str(bad) in done.stderr
    for master, shadow in pairs:
        found = service.status(shadow)
        expected = (1, ("shadow", "bitmap")) if shadow == bad else (2, ())
        assert (found.pit, found.offline) == expected
        assert service.read(master).startswith(b"before the update")
    faulty.kill_and_start()
    assert service.status(bad).offline == ("shadow", "bitmap")
    assert service.run("iiadm", "-g", "g", "-u", "s").returncode == 2
    assert service.run("iiadm", "-R", bad).returncode == 0
    done = service.run("iiadm", "-g", "g", "-u", "s")
    assert done.returncode == 0, done.stderr
    assert len({service.status(shadow).pit_id for _, shadow in pairs}) == 1


@pytest.mark.parametrize(("operation", "code"), [("sync", errno.EIO), ("write", errno.ENOSPC)])
def test_group_record_that_fails_changes_nothing_even_later(faulty, volume, place, operation, code):
    """F11: the record may stand on the disk all the same; a start must not follow it."""
    service = faulty.service
    pairs = [(volume(f"m{n}"), place / f"s{n}") for n in range(2)]
    kept = []
    for master, shadow in pairs:
        service.enable("dep", master, shadow, group="g")
        kept.append(service.read(shadow))
        service.write(master, 0, b"after the point in time")
    with faulty.failing(operation, service.state / "transitions", code):
        done = service.run("iiadm", "-g", "g", "-u", "s")
    assert done.returncode == 2
    assert "nothing was changed" in done.stderr
    faulty.kill_and_start()
    for (_, shadow), content in zip(pairs, kept, strict=True):
        assert (service.status(shadow).pit, service.status(shadow).offline) == (1, ())
        assert service.read(shadow) == content
    assert service.run("iiadm", "-g", "g", "-u", "s").returncode == 0


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_state_database_that_fails_refuses_changes_and_serves_on(made, volume, place, code):
    faulty, master, shadow = made
    service, other = faulty.service, volume("m2")
    pit, kept = service.status(shadow).pit, service.read(shadow)
    for name in ("state.db", "state.db-journal"):
        with faulty.failing("any", service.state / name, code):
            done = service.run("iiadm", "-e", "dep", other, place / "s2", place / "b2")
            assert done.returncode == 2, done.stderr
            assert "state.db" in done.stderr
            assert "Traceback" not in done.stderr
            service.write(master, 0, b"goes on")
            done = service.run("iiadm", "-u", "s", shadow)
            assert done.returncode == 2, "its copy could not be noted (K1)"
            assert "state.db" in done.stderr
            assert service.status(shadow).pit == pit
            assert service.read(shadow) == kept
        assert [s.shadow for s in service.client.status()] == [str(shadow)]
    service.flip("s", shadow)
    service.wait(shadow)
    faulty.kill_and_start()
    assert service.read(shadow) == service.read(master)
    assert service.run("iiadm", "-e", "dep", other, place / "s2", place / "b2").returncode == 0
