"""A volume that was replaced in use is held by us alone: nothing begins on it or ends unasked."""

import os

import pytest
from late_sets import until

from iifuse.control import protocol

CONTENT = b"written after it had lost its name"


def replace(path):
    """As an editor does: nothing has the old file any more but who has it open."""
    new = path.with_name("new")
    new.write_bytes(bytes(path.stat().st_size))
    os.rename(new, path)


@pytest.fixture
def whole(service, volume, place):
    """(master, shadow) of an idle independent set."""
    master, shadow = volume("m"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    return master, shadow


def held(service, path):
    """Replace a volume and write to the old one, which only the mount shows."""
    replace(path)
    service.write(path, 0, CONTENT)


def is_on_mount(service, path):
    rows = service.client.call(protocol.Volumes(), list[protocol.VolumeStatus])
    return str(path) in {row.path for row in rows}


@pytest.mark.parametrize("kept", ["by a set", "by svadm"])
def test_new_set_does_not_begin_on_a_master_whose_path_leads_elsewhere(
    service, volume, place, kept
):
    master = volume("m")
    if kept == "by a set":
        service.enable("ind", master, place / "first")
        service.wait(place / "first")
    else:
        service.run("svadm", "-e", master)
    replace(master)
    for words in (
        ("iiadm", "-n", "-e", "ind", master, place / "s", place / "s.bmp"),
        ("svadm", "-e", master),
    ):
        done = service.run(*words)
        assert done.returncode == 2
        assert "it was replaced while in use" in done.stderr
        assert ("svadm -d" in done.stderr) == (kept == "by svadm")
    assert not (place / "s").exists()


def test_name_that_the_old_master_has_now_is_no_way_to_it(service, whole, place):
    """The set would say that its master is where another file stands."""
    master, _ = whole
    os.link(master, place / "kept")
    replace(master)
    done = service.run("iiadm", "-e", "ind", place / "kept", place / "t", place / "t.bmp")
    assert (done.returncode, "replaced while in use" in done.stderr) == (2, True)


@pytest.mark.parametrize("role", [0, 1], ids=["master", "shadow"])
def test_disable_asks_before_it_closes_the_last_that_holds_a_volume(service, whole, role):
    shadow, lost = whole[1], whole[role]
    held(service, lost)
    asked = service.run("iiadm", "-d", shadow)
    assert asked.returncode == 1
    assert f"{lost}: this would close the file that the mount shows" in asked.stderr
    assert "copy it from the mount" in asked.stderr
    assert service.read(lost).startswith(CONTENT)
    assert service.run("iiadm", "-n", "-d", shadow).returncode == 0
    assert not is_on_mount(service, lost)


def test_disable_does_not_ask_about_a_master_that_stays(service, whole, place):
    """While another set has it, or svadm: then nothing is closed."""
    master, shadow = whole
    service.enable("ind", master, place / "t")
    service.run("svadm", "-e", master)
    held(service, master)
    assert service.run("iiadm", "-d", shadow).returncode == 0
    assert service.read(master).startswith(CONTENT)


def test_release_asks_before_it_closes_the_last_that_holds_a_volume(service, volume):
    path = volume("v")
    service.run("svadm", "-e", path)
    held(service, path)
    asked = service.run("svadm", "-d", path)
    assert asked.returncode == 1
    assert f"{path}: this would close the file that the mount shows" in asked.stderr
    assert service.read(path).startswith(CONTENT)
    assert service.run("svadm", "-n", "-d", path).returncode == 0
    assert service.run("svadm", "-e", path).returncode == 0, "what stands there now"
    until(lambda: service.read(path) == path.read_bytes())
