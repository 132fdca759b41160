"""What `-e`, `-g` and `svadm` refuse: the message helps, and nothing is changed."""

import os
import stat
import subprocess

import pytest
from devices import held_open, opened
from harness import CHUNK

SIZE = 40 * CHUNK + 1000
NEED = 24576 + 2 * 512
ROLES = ["master", "shadow", "bitmap"]


@pytest.fixture
def names(place, volume):
    """The words of an `-e` that would work: the master is there, the rest is made."""
    return {"master": volume("m", SIZE), "shadow": place / "s", "bitmap": place / "b"}


@pytest.fixture
def taken(service, volume, place):
    """A set that is there already."""
    found = {"master": volume("m1", SIZE), "shadow": place / "s1", "bitmap": place / "b1"}
    service.enable("ind", *found.values())
    service.wait(found["shadow"])
    return found


def blank(path, size):
    path.write_bytes(bytes(size))
    return path


def present(names):
    """Make shadow and bitmap beforehand."""
    blank(names["shadow"], SIZE)
    blank(names["bitmap"], NEED)
    return names


# -- names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_one_volume_in_two_parts_is_refused(service, refused, names, kind):
    m, s, b = names.values()
    for words in [(m, m, b), (m, s, s), (m, s, m), (m, m, m)]:
        refused(service, "iiadm", "-e", kind, *words, code=1, says=("three volumes",), todo=False)


@pytest.mark.parametrize("role", ["shadow", "bitmap"])
@pytest.mark.parametrize("link", ["symlink", "link"])
def test_one_volume_under_two_names_is_refused(service, refused, names, place, role, link):
    """F16: symbolic and hard links."""
    present(names)
    other = place / "other name"
    getattr(os, link)(names["master"], other)
    words = {**names, role: other}
    refused(service, "iiadm", "-e", "ind", *words.values(), says=(other, names["master"]))


@pytest.mark.parametrize("how", ["path", "symlink", "link"])
def test_volume_of_another_set_is_refused(service, refused, names, taken, place, how):
    """F18: sets share no shadow, and one's shadow is no other's master."""
    present(names)
    for part, path in taken.items():
        alias = path
        if how != "path":
            alias = place / f"alias of {part}"
            getattr(os, how)(path, alias)
        for role in ROLES:
            if role == part == "master":  # several shadows of one master are welcome
                continue
            words = {**names, role: alias}
            refused(service, "iiadm", "-e", "dep", *words.values(), says=(alias,))


def test_second_set_of_a_master_under_another_name_uses_the_same_file(
    service, names, taken, place
):
    alias = place / "alias"
    alias.symlink_to(taken["master"])
    done = service.run("iiadm", "-e", "dep", alias, names["shadow"], names["bitmap"])
    assert done.returncode == 0, done.stderr
    old = service.read(taken["master"])
    service.write(taken["master"], 0, b"one lock for both")
    assert service.read(names["shadow"]) == service.read(taken["shadow"]) == old


# -- sizes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_bitmap_too_small_is_refused_with_the_size_needed(service, refused, names, kind):
    blank(names["bitmap"], NEED - 1)
    words = ("-e", kind, *names.values())
    refused(service, "iiadm", *words, says=(names["bitmap"], NEED, NEED - 1))
    blank(names["bitmap"], NEED)
    assert service.run("iiadm", *words).returncode == 0


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_shadow_too_small_is_refused_with_the_size_needed(service, refused, names, kind):
    blank(names["shadow"], SIZE - 1)
    words = ("-e", kind, *names.values())
    refused(service, "iiadm", *words, says=(names["shadow"], SIZE))
    blank(names["shadow"], SIZE + 1)
    assert service.run("iiadm", *words).returncode == 0


@pytest.mark.parametrize(("role", "size"), [("shadow", 8 * CHUNK), ("bitmap", 8192)])
def test_device_too_small_is_refused(service, refused, names, attach, place, role, size):
    device = attach(blank(place / "small", size))
    words = {**names, role: device}
    refused(service, "iiadm", "-e", "ind", *words.values(), says=(device, size))


def test_empty_master_is_refused(service, refused, names):
    names["master"].write_bytes(b"")
    refused(service, "iiadm", "-e", "ind", *names.values(), says=(names["master"],))
    refused(service, "svadm", "-e", names["master"], says=(names["master"],))


# -- in use by somebody -----------------------------------------------------------------------


def test_volume_that_a_program_has_open_is_refused(service, refused, names):
    words = ("-e", "ind", *present(names).values())
    for path in names.values():
        with held_open(path):
            refused(service, "iiadm", *words, says=(path, "open"))
        with opened(path, os.O_RDONLY):
            refused(service, "iiadm", *words, says=(path, "open"))
    with held_open(names["master"]):
        refused(service, "svadm", "-e", names["master"], says=(names["master"], "open"))
    assert service.run("iiadm", *words).returncode == 0


@pytest.mark.parametrize("role", ROLES)
def test_volume_below_a_loop_device_is_refused(service, refused, names, attach, role):
    present(names)
    attach(names[role])
    refused(service, "iiadm", "-e", "ind", *names.values(), says=(names[role], "loop device"))


@pytest.mark.parametrize("role", ROLES)
def test_mounted_device_is_refused(service, refused, names, attach, mounted, place, role):
    device = attach(blank(place / "disk", 8 << 20))
    subprocess.run(["mkfs.ext4", "-q", device], check=True)
    mounted(device, "used", "-o", "ro")
    words = {**names, role: device}
    refused(service, "iiadm", "-e", "dep", *words.values(), says=(device,))


def test_device_under_another_node_is_the_same_volume(service, refused, names, attach, place):
    """F16: a device is known by its number."""
    device = attach(blank(place / "disk", SIZE // 512 * 512))
    service.enable("dep", device, place / "s1")
    node = place / "node"
    os.mknod(node, stat.S_IFBLK | 0o600, os.stat(device).st_rdev)
    for role in ("shadow", "bitmap"):
        words = {**names, role: node}
        refused(service, "iiadm", "-e", "dep", *words.values(), says=(node,))


# -- not a volume -----------------------------------------------------------------------------


def test_path_inside_the_mount_is_refused(service, refused, names, taken, place):
    inside = service.path(taken["shadow"])
    link = place / "link into the mount"
    link.symlink_to(inside)
    new = service.mountpoint / "new"
    for role, path in [(r, p) for r in ROLES for p in (inside, link, new)]:
        words = {**names, role: path}
        refused(service, "iiadm", "-e", "ind", *words.values(), says=(path, "mount"))
    refused(service, "svadm", "-e", inside, says=(inside, "mount"))


def test_missing_places_are_refused(service, refused, names, place):
    gone = place / "no" / "such" / "place"
    for role in ROLES:
        words = {**names, role: gone}
        refused(service, "iiadm", "-e", "ind", *words.values(), says=(gone,))
    refused(service, "svadm", "-e", gone, says=(gone,))
    assert not gone.parent.exists()


def test_what_is_no_volume_is_refused(service, refused, names, place):
    """F16: a directory, a fifo, a character device, a link that leads nowhere."""
    (place / "directory").mkdir()
    os.mkfifo(place / "fifo")
    (place / "nowhere").symlink_to(place / "gone")
    paths = (place / "directory", place / "fifo", "/dev/null", place / "nowhere")
    for role, path in [(r, p) for r in ROLES for p in paths]:
        words = {**names, role: path}
        refused(service, "iiadm", "-e", "ind", *words.values(), says=(path,))
    refused(service, "svadm", "-e", place / "fifo", says=(place / "fifo",))


def test_svadm_refuses_shadows_bitmaps_and_members(service, refused, taken):
    for part in ("shadow", "bitmap"):
        if part == "bitmap":
            refused(service, "svadm", "-e", taken[part], says=(taken[part],))
        else:
            done = service.run("svadm", "-e", taken[part])
            assert done.returncode == 0
            assert "already" in done.stderr
    for part in ("master", "shadow"):
        refused(service, "svadm", "-d", taken[part], says=(taken[part], "iiadm -d"))


# -- groups -----------------------------------------------------------------------------------


def test_bad_group_names_are_refused(service, refused, names, taken):
    for group in ("a b", "", "x" * 256, "tab\there", "line\nbreak", "\x1b[31m"):
        words = ("-g", group, "-e", "ind", *names.values())
        refused(service, "iiadm", *words, code=1, todo=False)
        if group:
            words = ("-g", group, "-m", taken["shadow"])
            refused(service, "iiadm", *words, code=1, todo=False)


def test_option_as_a_group_name_is_refused(service, refused, names, taken):
    refused(service, "iiadm", "-g", "-x", "-e", "ind", *names.values(), code=1, todo=False)
    refused(service, "iiadm", "-g", "-m", taken["shadow"], code=1, todo=False)


def test_unknown_sets_and_groups_are_refused(service, refused, taken, place):
    gone = place / "no set"
    for verb in (["-u"], ["-c", "s"], ["-d"], ["-a"], ["-w"], ["-i"], ["-E"]):
        refused(service, "iiadm", *verb, gone, says=(gone, "no such set", "iiadm -l"))
        group = ["-g", "nobody", *verb]
        refused(service, "iiadm", *group, says=("nobody", "no such group", "iiadm -g -L"))
    refused(service, "iiadm", "-n", "-u", "m", gone, says=(gone, "iiadm -l"))
    refused(service, "iiadm", "-J", gone, taken["bitmap"], says=(gone, "iiadm -l"))
    refused(service, "iiadm", "-g", "new", "-m", taken["shadow"], gone, says=(gone,))
    refused(service, "iiadm", "-u", taken["shadow"], gone, says=(gone,))
