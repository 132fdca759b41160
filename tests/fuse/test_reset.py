"""`iiadm -R` by the real programs: what was lost comes back, and every byte is right after it."""

import os

import pytest
from harness import CHUNK


def reset(service, shadow, *words):
    done = service.run("iiadm", "-R", shadow, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr


def offline(service, shadow):
    return set(service.status(shadow).offline)


def assert_equal_when_copied(service, master, shadow):
    """The raw volumes too, once the service has given them up."""
    service.wait(shadow)
    status = service.status(shadow)
    assert (status.progress, status.shadow_bits, status.copy_bits) == ("idle", 0, 0)
    assert service.read(shadow) == service.read(master)
    assert service.stop() == 0
    size = master.stat().st_size
    assert shadow.read_bytes()[:size] == master.read_bytes()


@pytest.fixture
def whole(service, volume, place):
    """An independent set that is whole and then changed on both sides: (master, shadow)."""
    master, shadow = volume("m", 300 * CHUNK + 1000), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 7 * CHUNK, b"new on the master")
    service.write(shadow, 299 * CHUNK, b"new on the shadow")
    return master, shadow


# -- nothing lost -----------------------------------------------------------------------------


def test_reset_with_nothing_offline_does_nothing(service, whole):
    _, shadow = whole
    before = service.status(shadow)
    assert "nothing is offline" in reset(service, shadow)
    assert service.status(shadow) == before


def test_reset_of_an_unknown_set_fails(service):
    assert service.run("iiadm", "-R", "/gone").returncode == 2


# -- the shadow -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_shadow_without_room_comes_back_when_there_is_room(service, volume, small_place, kind):
    directory, enlarge = small_place
    master, shadow = volume("m", 200 * CHUNK), directory / "s"
    service.enable(kind, master, shadow, master.with_name("b"))
    for chunk in range(200):
        service.write(master, chunk * CHUNK, b"written %d" % chunk)
    assert "shadow" in offline(service, shadow)
    enlarge()
    said = reset(service, shadow)
    assert offline(service, shadow) == set()
    if kind == "ind":
        assert "whole master is copied" in said
        assert_equal_when_copied(service, master, shadow)
        return
    assert "old point in time is lost" in said
    kept = service.read(master)
    assert service.read(shadow) == kept
    service.write(master, 0, b"later")
    assert service.read(shadow) == kept


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_shadow_lost_while_the_service_was_down_is_made_anew(service, whole, how):
    master, shadow = whole
    getattr(service, how)()
    shadow.unlink()
    service.start()
    assert offline(service, shadow) == {"shadow"}
    assert not service.path(shadow).exists()
    service.write(master, 8 * CHUNK, b"while it was offline")
    assert "whole master is copied" in reset(service, shadow)
    frozen = service.read(master)
    service.write(master, 9 * CHUNK, b"after the reset")
    assert service.read(shadow) == frozen
    service.wait(shadow)
    service.flip("s", shadow)
    assert_equal_when_copied(service, master, shadow)


def test_dependent_shadow_lost_begins_a_new_point_in_time(service, volume, place):
    master, shadow = volume("m"), place / "s"
    pit = service.enable("dep", master, shadow).pit
    service.write(master, 3 * CHUNK, b"preserved once")
    service.stop()
    shadow.unlink()
    service.start()
    assert "shadow" in offline(service, shadow)
    assert "old point in time is lost" in reset(service, shadow, "-n")
    status = service.status(shadow)
    assert (status.pit, status.offline, status.shadow_bits) == (pit + 1, (), 0)
    kept = service.read(master)
    service.write(master, 4 * CHUNK, b"after the reset")
    assert service.read(shadow) == kept


def test_shadow_that_is_too_small_stays_offline(service, whole):
    _, shadow = whole
    service.stop()
    os.truncate(shadow, 5 * CHUNK)
    service.start()
    assert offline(service, shadow) == {"shadow"}
    done = service.run("iiadm", "-R", shadow)
    assert done.returncode == 2
    assert "too small" in done.stderr
    assert offline(service, shadow) == {"shadow"}


def test_open_shadow_is_not_reset_under_its_reader(service, volume, small_place):
    directory, enlarge = small_place
    master, shadow = volume("m", 200 * CHUNK), directory / "s"
    service.enable("ind", master, shadow, master.with_name("b"))
    service.run("iiadm", "-w", shadow)
    assert "shadow" in offline(service, shadow)
    enlarge()
    with service.path(shadow).open("rb"):
        done = service.run("iiadm", "-R", shadow)
    assert done.returncode == 2
    assert str(os.getpid()) in done.stderr
    assert "shadow" in offline(service, shadow)
    reset(service, shadow)
    assert_equal_when_copied(service, master, shadow)


# -- the bitmap -------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["gone", "zeros", "foreign"])
def test_bitmap_lost_makes_all_chunks_differ(service, whole, volume, place, how):
    master, shadow = whole
    service.enable("ind", volume("m2", 300 * CHUNK + 1000), place / "s2")
    service.wait(place / "s2")
    pit = service.read(shadow)
    service.stop()
    bitmap = place / "s.bmp"
    size = bitmap.stat().st_size
    bitmap.unlink()
    if how != "gone":
        foreign = (place / "s2.bmp").read_bytes()
        bitmap.write_bytes(bytes(size) if how == "zeros" else foreign)
    service.start()
    assert offline(service, shadow) == {"bitmap"}
    assert service.read(shadow) == pit
    service.write(master, 20 * CHUNK, b"while it was offline")
    words = ["-n"] if how == "foreign" else []  # another set may need that one
    assert "count as different" in reset(service, shadow, *words)
    status = service.status(shadow)
    assert (status.offline, status.shadow_bits) == ((), status.chunks)
    assert service.read(shadow) == pit
    service.flip("s", shadow)
    assert_equal_when_copied(service, master, shadow)


def test_bitmap_of_a_dependent_set_lost_takes_the_point_in_time(service, volume, place):
    master, shadow = volume("m"), place / "s"
    service.enable("dep", master, shadow)
    service.write(master, 3 * CHUNK, b"preserved once")
    live = service.read(master)
    service.stop()
    (place / "s.bmp").unlink()
    service.start()
    assert offline(service, shadow) == {"bitmap"}
    assert service.read(master) == live
    assert "old point in time is lost" in reset(service, shadow, "-n")
    service.write(master, 4 * CHUNK, b"after the reset")
    assert service.read(shadow) == live


def test_reset_survives_a_restart(service, whole, place):
    master, shadow = whole
    service.stop()
    (place / "s.bmp").unlink()
    service.start()
    reset(service, shadow)
    service.kill()
    service.start()
    status = service.status(shadow)
    assert (status.offline, status.shadow_bits) == ((), status.chunks)
    service.flip("s", shadow)
    assert_equal_when_copied(service, master, shadow)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["gone", "damaged", "one damaged"])
@pytest.mark.parametrize("full", [True, False])
def test_bitmap_lost_in_a_restore_leaves_the_shadow_its_truth(
    new_service, volume, place, how, full
):
    """The point in time is whole on an independent shadow, and on the master it is a mixture."""
    service = new_service()
    master, shadow = volume("m", 64 << 20), place / "s"
    kept = master.read_bytes()
    service.enable("ind", master, shadow)
    service.wait(shadow)
    for chunk in range(0, 2000, 3):
        service.write(master, chunk * CHUNK, b"a mistake")
    service.flip("m", shadow, full=full)
    service.abort(shadow)
    assert service.status(shadow).progress == "to_master"
    service.kill()
    bitmap = place / "s.bmp"
    if how == "gone":
        bitmap.unlink()
    else:
        damage(bitmap, bitmap.stat().st_size - 5)
    if how == "damaged":
        damage(bitmap, 24 * 1024)
    service.start()
    reset(service, shadow)
    assert (service.read(master), service.read(shadow)) == (kept, kept)
    service.flip("m", shadow)
    service.wait(shadow)
    assert (service.read(master), service.read(shadow)) == (kept, kept)
    assert service.stop() == 0
    assert master.read_bytes() == shadow.read_bytes()[: len(kept)] == kept


# -- the master -------------------------------------------------------------------------------


def lose_master(service, master):
    """The disk is gone, the service starts without it, an empty one takes its place."""
    size = master.stat().st_size
    service.stop()
    master.unlink()
    service.start()
    return size


def test_master_destroyed_is_refilled_and_usable_at_once(service, whole):
    master, shadow = whole
    pit = service.read(shadow)
    size = lose_master(service, master)
    assert offline(service, shadow) == {"master"}
    assert service.read(shadow) == pit
    master.touch()
    os.truncate(master, size)
    assert "copied back" in reset(service, shadow, "-n")
    assert service.read(master) == pit
    service.write(master, 5 * CHUNK, b"at once")
    service.wait(shadow)
    assert service.read(shadow) == pit
    expected = pit[: 5 * CHUNK] + b"at once" + pit[5 * CHUNK + 7 :]
    assert service.read(master) == expected
    service.flip("s", shadow)
    assert_equal_when_copied(service, master, shadow)


@pytest.mark.parametrize("size", [CHUNK, 301 * CHUNK])
def test_master_of_another_size_is_refused(service, whole, size):
    master, shadow = whole
    lose_master(service, master)
    master.touch()
    os.truncate(master, size)
    done = service.run("iiadm", "-R", shadow, "-n")
    assert done.returncode == 2
    assert "same size" in done.stderr
    assert offline(service, shadow) == {"master"}


def test_master_still_missing_is_said(service, whole):
    master, shadow = whole
    lose_master(service, master)
    done = service.run("iiadm", "-R", shadow, "-n")
    assert done.returncode == 2
    assert str(master) in done.stderr
    assert not master.exists()


def test_master_destroyed_leaves_its_other_sets_right(service, whole, place):
    master, shadow = whole
    other, dependent = place / "other", place / "dep"
    service.enable("ind", master, other)
    service.wait(other)
    service.enable("dep", master, dependent)
    kept = service.read(other)
    pit = service.read(shadow)
    size = lose_master(service, master)
    master.touch()
    os.truncate(master, size)
    reset(service, shadow, "-n")
    service.wait(shadow)
    assert service.read(master) == pit
    assert service.read(other) == kept
    assert "shadow" in offline(service, dependent)
    reset(service, dependent)
    assert service.read(dependent) == pit
    service.flip("s", other)
    service.wait(other)
    assert service.read(other) == pit


# -- another host -----------------------------------------------------------------------------


def test_exported_shadow_is_taken_back_from_a_lost_importer(service, new_service, whole, place):
    master, shadow = whole
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other = new_service("other")
    assert other.run("iiadm", "-I", shadow, place / "second").returncode == 0
    other.write(shadow, 100 * CHUNK, b"noted on a host that is lost")
    other.kill()
    service.write(master, 200 * CHUNK, b"over here")
    refused = service.run("iiadm", "-R", shadow)
    assert refused.returncode == 1
    assert service.status(shadow).custody == "exported"
    assert "taken back" in reset(service, shadow, "-n")
    status = service.status(shadow)
    assert (status.custody, status.shadow_bits) == ("local", status.chunks)
    assert b"noted on a host" in service.read(shadow)
    service.flip("s", shadow)
    assert_equal_when_copied(service, master, shadow)


def test_exported_shadow_that_is_gone_stays_exported(service, whole):
    _, shadow = whole
    assert service.run("iiadm", "-E", shadow).returncode == 0
    shadow.rename(f"{shadow}.away")
    done = service.run("iiadm", "-R", shadow, "-n")
    assert done.returncode == 2
    assert service.status(shadow).custody == "exported"


def test_imported_set_with_a_lost_bitmap_is_joined_as_all_changed(
    service, new_service, whole, place
):
    master, shadow = whole
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other = new_service("other")
    assert other.run("iiadm", "-I", shadow, place / "second").returncode == 0
    other.write(shadow, 100 * CHUNK, b"over there")
    other.stop()
    damage(place / "second", 24 * 1024)
    other.start()
    status = other.status(shadow)
    assert (status.offline, status.shadow_bits) == ((), status.chunks)
    other.disable(shadow)
    assert service.run("iiadm", "-J", shadow, place / "second").returncode == 0
    service.flip("s", shadow)
    assert_equal_when_copied(service, master, shadow)


def damage(path, at):
    """Turn one byte of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0xFF]))


# -- groups -----------------------------------------------------------------------------------


def test_group_is_reset_as_a_whole(service, volume, place):
    masters = [volume("m1"), volume("m2")]
    shadows = [place / "s1", place / "s2"]
    for master, shadow in zip(masters, shadows, strict=True):
        service.enable("ind", master, shadow, group="night")
    service.wait(*shadows)
    service.stop()
    shadows[1].unlink()
    service.start()
    done = service.run("iiadm", "-g", "night", "-R")
    assert done.returncode == 0
    assert "s1: nothing is offline" in done.stderr
    service.wait(*shadows)
    for master, shadow in zip(masters, shadows, strict=True):
        assert service.read(shadow) == service.read(master)
