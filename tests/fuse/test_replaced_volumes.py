"""Another file in a volume's place while the service runs: findings K3 (its end)."""

import os
import shutil

import pytest
from harness import CHUNK, Service
from late_sets import until

from iifuse.control import protocol


def replace(path, content=None):
    """As `cp` to another name and `mv` do; where the old file is now."""
    old = os.rename(path, f"{path}.old") or path.with_name(f"{path.name}.old")
    new = path.with_name("new")
    new.write_bytes(old.read_bytes() if content is None else content)
    os.rename(new, path)
    return old


def delete_and_create(path):
    size = path.stat().st_size
    os.link(path, f"{path}.old")
    path.unlink()
    path.write_bytes(bytes(size))
    return path.with_name(f"{path.name}.old")


def delete(path):
    os.link(path, f"{path}.old")
    path.unlink()
    return path.with_name(f"{path.name}.old")


@pytest.fixture
def whole(service, volume, place):
    """(master, paths by role) of an idle independent set."""
    master, shadow = volume("m"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    return {"master": master, "shadow": shadow, "bitmap": place / "s.bmp"}


def volumes(service):
    rows = service.client.call(protocol.Volumes(), list[protocol.VolumeStatus])
    return {row.path: row for row in rows}


@pytest.mark.sampled(3)
@pytest.mark.finding("K3.9")
@pytest.mark.parametrize("how", [replace, delete_and_create, delete])
@pytest.mark.parametrize("role", ["master", "shadow", "bitmap"])
def test_replaced_volume_is_told_of_and_nothing_copies_until_it_is_back(service, whole, role, how):
    master, shadow = whole["master"], whole["shadow"]
    kept = service.read(shadow)
    old = how(whole[role])
    until(lambda: service.status(shadow).replaced == (role,))
    service.write(master, CHUNK, b"goes to the old file")
    assert service.status(shadow).offline == ()
    text = service.run("iiadm", "-i", shadow).stdout
    assert f"the {role} was replaced while in use: {whole[role]}" in text
    for words in (("-u",), ("-u", "m"), ("-c", "s"), ("-E",), ("-o", "limit=5"), ("-R",)):
        done = service.run("iiadm", "-n", *words, shadow)
        assert done.returncode == 2, words
        assert "replaced while in use" in done.stderr
        assert "copy it from the mount" in done.stderr
    assert service.read(shadow) == kept
    os.rename(old, whole[role])
    until(lambda: service.status(shadow).replaced is None)
    log = service.said()
    assert (log.count("was replaced while in use"), log.count(f"its {role} is back")) == (1, 1)
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master) != kept


def test_verb_notices_a_volume_that_was_replaced_this_moment(service, whole):
    replace(whole["master"])
    done = service.run("iiadm", "-u", whole["shadow"])
    assert done.returncode == 2
    assert "the master was replaced" in done.stderr


@pytest.mark.sampled(2)
@pytest.mark.finding("K3.7", "K3.10", "K3.11")
@pytest.mark.parametrize("end", ["stop", "kill"])
@pytest.mark.parametrize("role", ["master", "shadow"])
def test_file_that_took_a_place_while_the_service_ran_is_a_stranger_to_the_next(
    service, whole, role, end
):
    """An empty one above all: no update may zero the good copy, no restore the live master."""
    before = {part: whole[part].read_bytes() for part in ("master", "shadow")}
    old = replace(whole[role], bytes(whole[role].stat().st_size))
    getattr(service, end)()
    service.start()
    assert service.status(whole["shadow"]).replaced == (role,)
    for words in (("-u", "s"), ("-u", "m"), ("-c", "s"), ("-c", "m"), ("-E",)):
        assert service.run("iiadm", "-n", *words, whole["shadow"]).returncode == 2
    other = {"master": "shadow", "shadow": "master"}[role]
    assert whole[other].read_bytes() == before[other]
    assert not any(whole[role].read_bytes())
    os.rename(old, whole[role])
    until(lambda: service.status(whole["shadow"]).offline == ())
    assert service.read(whole["shadow"]) == before["shadow"]
    assert service.read(whole["master"]) == before["master"]


def test_copy_of_a_bitmap_that_took_its_place_in_use_is_not_believed(service, whole):
    """Its header is the same, and it lacks what was marked since."""
    replace(whole["bitmap"])
    service.write(whole["master"], 30 * CHUNK, b"marked in a file without a name")
    service.kill()
    service.start()
    assert "bitmap" in service.status(whole["shadow"]).offline
    assert service.run("iiadm", "-R", whole["shadow"]).returncode == 0
    service.flip("s", whole["shadow"])
    service.wait(whole["shadow"])
    assert service.read(whole["shadow"]) == service.read(whole["master"])


@pytest.mark.sampled(2)
@pytest.mark.parametrize("when", ["before the start", "after it"])
@pytest.mark.parametrize("what", ["directory", "file of size 0"])
def test_what_can_be_no_volume_in_a_bitmaps_place_is_a_stranger_too(service, whole, what, when):
    bitmap, shadow = whole["bitmap"], whole["shadow"]
    service.write(whole["master"], CHUNK, b"marked")
    service.stop()
    bitmap.rename(f"{bitmap}.old")
    if when == "after it":
        service.start()
    bitmap.mkdir() if what == "directory" else bitmap.touch()
    if when == "before the start":
        service.start()
    until(lambda: service.status(shadow).replaced == ("bitmap",))
    assert service.status(shadow).offline == ("bitmap",)
    bitmap.rmdir() if what == "directory" else bitmap.unlink()
    os.rename(f"{bitmap}.old", bitmap)
    until(lambda: service.status(shadow).offline == ())
    assert service.status(shadow).shadow_bits == 1


def test_new_master_of_a_dependent_set_begins_a_new_point_in_time(service, volume, place):
    master, shadow = volume("m"), place / "s"
    service.enable("dep", master, shadow)
    service.stop()
    replace(master, os.urandom(master.stat().st_size))
    new = master.read_bytes()
    service.start()
    assert service.read(master) == new, "it is served meanwhile"
    done = service.run("iiadm", "-n", "-R", shadow)
    assert (done.returncode, "new one begins" in done.stderr) == (0, True)
    service.write(master, CHUNK, b"later")
    assert service.read(shadow) == new
    assert master.read_bytes()[CHUNK : CHUNK + 5] == b"later"
    service.restart()
    assert service.read(shadow) == new


def test_replacement_is_refilled_from_the_shadow_although_it_is_served(service, whole):
    """-R after a question: what stands in the master's place is overwritten."""
    kept = service.read(whole["shadow"])
    service.stop()
    replace(whole["master"], bytes(whole["master"].stat().st_size))
    service.start()
    asked = service.run("iiadm", "-R", whole["shadow"])
    assert (asked.returncode, "overwrite" in asked.stderr) == (1, True)
    assert service.run("iiadm", "-n", "-R", whole["shadow"]).returncode == 0
    assert service.read(whole["master"]) == kept
    service.wait(whole["shadow"])
    service.stop()
    assert whole["master"].read_bytes() == kept


def test_stranger_that_is_mounted_over_the_masters_place_is_taken_off_first(
    new_service, volume, place
):
    """In place, nothing can be put where our own file is mounted; what is said has to work."""
    service = new_service("in-place", "in_place", "stop_wait=2")
    master, shadow = volume("m"), place / "s"
    content = master.read_bytes()
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.stop()
    old = replace(master, bytes(len(content)))
    service.start()
    refused = service.run("iiadm", "-u", shadow)
    assert "is another one than that of this set" in refused.stderr, "and no mount of a service"
    assert f"'svadm -d {master}'" in refused.stderr
    with pytest.raises(OSError, match="busy"):
        os.rename(old, master)
    assert service.run("svadm", "-d", master).returncode == 0
    os.rename(old, master)
    until(lambda: service.status(shadow).replaced is None)
    assert service.read(master) == master.read_bytes() == content
    service.flip("s", shadow)
    assert service.stop() == 0


# -- with no set ----------------------------------------------------------------------------


def test_volume_of_svadm_that_is_late_appears_by_itself(service, volume, place):
    path = volume("v")
    assert service.run("svadm", "-e", path).returncode == 0
    service.stop()
    os.rename(path, place / "away")
    service.start()
    listed = service.run("svadm", "-i", path)
    assert "waiting" in listed.stdout
    assert not service.path(path).exists()
    os.rename(place / "away", path)
    until(service.path(path).exists)
    assert service.read(path) == path.read_bytes()
    assert volumes(service)[str(path)].missing is None


def test_volume_of_svadm_that_was_replaced_is_told_of(service, volume):
    path = volume("v")
    service.run("svadm", "-e", path)
    replace(path)
    until(lambda: volumes(service)[str(path)].missing)
    assert "leads to another file" in service.run("svadm", "-i").stdout
    assert service.said().count("leads to another file") == 1


# -- the mount point ------------------------------------------------------------------------


@pytest.mark.finding("K4.2")
@pytest.mark.parametrize("through", ["name", "link"])
def test_mount_point_above_a_volume_is_refused(service, volume, place, through):
    """The mount would hide it, and the set would wait for ever."""
    above = place / "above"
    shutil.move(volume("m"), above.mkdir() or above / "m")
    master = above / "m"
    if through == "link":
        (place / "link").symlink_to(above)
        master = place / "link" / "m"
    service.enable("ind", master, place / "s")
    service.wait(place / "s")
    service.stop()
    service.mountpoint = above
    with pytest.raises(AssertionError, match="lies above the volume"):
        service.start()


def test_mount_point_above_the_state_is_refused(place):
    service = Service(place)
    service.mountpoint = service.home
    with pytest.raises(AssertionError, match="lies above the state directory"):
        service.start()
