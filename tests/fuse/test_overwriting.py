"""K6: what `-e` and `-I` would destroy on a volume that comes in is named and asked about."""

import os
import shutil
import subprocess

import pytest
from filesystems import MOUNT, SIZES, make
from harness import CHUNK

KINDS = ["ext4", "xfs"]


@pytest.fixture
def image(place):
    """Make a file system in a file."""

    def build(name, kind="ext4"):
        path = place / name
        with path.open("wb") as file:
            file.truncate(SIZES[kind])
        make(kind, str(path))
        return path

    return build


def blank(path, size):
    with path.open("wb") as file:
        file.truncate(size)
    return path


def enabled(service, *words):
    done = service.run("iiadm", "-e", "ind", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert service.run("iiadm", "-w", words[1]).returncode == 0


def disabled(service, shadow):
    assert service.run("iiadm", "-d", shadow).returncode == 0


# -- what asks --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_other_file_system_on_the_shadow_is_named(service, refused, image, place, kind):
    master, shadow = image("m", kind), image("s", kind)
    words = ("-e", "ind", master, shadow, place / "b")
    refused(service, "iiadm", *words, code=1, says=(shadow, kind, "no earlier copy", "-n"))
    assert service.run("iiadm", "-n", *words).returncode == 0


@pytest.mark.finding("K6.1")
def test_file_system_in_place_of_a_blank_master_is_asked_about(service, refused, image, place):
    """Words swapped: the new disk is named as the master."""
    prod = image("prod")
    new = blank(place / "new", prod.stat().st_size)
    says = (prod, "ext4", "no earlier copy")
    refused(service, "iiadm", "-e", "ind", new, prod, place / "b", code=1, says=says)


@pytest.mark.finding("K6.2")
@pytest.mark.parametrize("role", ["shadow", "bitmap"])
def test_file_system_is_not_taken_for_a_bitmap_volume(service, refused, image, place, role):
    master, other = image("m"), image("other")
    words = {"shadow": (other, place / "b"), "bitmap": (place / "s", other)}[role]
    refused(service, "iiadm", "-e", "dep", master, *words, code=1, says=(other, "ext4", "-n"))


@pytest.mark.finding("K6.4")
def test_words_swapped_after_a_disable_are_asked_about(service, refused, image, place):
    """The same UUID on both, and the older copy named as the master."""
    prod, shadow, bitmap = image("prod"), place / "s", place / "b"
    enabled(service, prod, shadow, bitmap)
    service.write(prod, 1 << 20, b"newer than the copy")
    disabled(service, shadow)
    says = (prod, f"the master of {shadow} the last time", "MASTER SHADOW")
    refused(service, "iiadm", "-e", "ind", shadow, prod, bitmap, code=1, says=says)
    refused(service, "iiadm", "-e", "ind", shadow, prod, place / "new", code=1, says=says)


def nearly_blank(path, at=5 << 20, size=256 << 20):
    """Some data where a few looks at a volume do not fall."""
    with blank(path, size).open("r+b") as file:
        file.seek(at)
        file.write(os.urandom(1 << 20))
    return path


@pytest.mark.finding("K6.4")
def test_words_swapped_with_data_that_nobody_recognises_are_asked_about(service, refused, place):
    """A young database, say: what it was the last time tells, and its data are found."""
    prod, shadow, bitmap = nearly_blank(place / "prod"), place / "s", place / "b"
    enabled(service, prod, shadow, bitmap)
    disabled(service, shadow)
    service.restart()
    says = (prod, f"the master of {shadow} the last time", "MASTER SHADOW")
    refused(service, "iiadm", "-e", "ind", shadow, prod, bitmap, code=1, says=says)
    enabled(service, prod, shadow, bitmap)


@pytest.mark.finding("K6.1")
def test_data_in_place_of_a_blank_master_is_asked_about(service, refused, place):
    prod, new = nearly_blank(place / "prod", size=64 << 20), blank(place / "new", 64 << 20)
    says = (prod, "holds data", f"{new} is blank", "MASTER SHADOW")
    refused(service, "iiadm", "-e", "ind", new, prod, place / "b", code=1, says=says)
    assert service.run("iiadm", "-n", "-e", "ind", new, prod, place / "b").returncode == 0


def test_former_volume_that_looks_blank_becomes_no_bitmap_volume_unasked(service, refused, place):
    prod, shadow = nearly_blank(place / "prod"), place / "s"
    enabled(service, prod, shadow, place / "b")
    disabled(service, shadow)
    says = (prod, "the master or the shadow of a set the last time")
    words = ("-e", "ind", blank(place / "m", 1 << 20), place / "s2", prod)
    refused(service, "iiadm", *words, code=1, says=says)


def test_bitmap_volume_beside_tells_another_service_the_parts(
    service, new_service, refused, image, place
):
    """Nothing is in the history of the second one."""
    prod, shadow = image("prod"), place / "s"
    enabled(service, prod, shadow, place / "s.bmp")
    disabled(service, shadow)
    other = new_service("other")
    says = (prod, f"the master of {shadow} the last time")
    refused(other, "iiadm", "-e", "ind", shadow, prod, place / "b", code=1, says=says)


@pytest.mark.parametrize("kind", KINDS)
def test_newer_superblock_is_asked_about(service, refused, image, mounted, attach, place, kind):
    """No history and no bitmap volume: a copy that was made by hand, and production since then."""
    prod = image("prod", kind)
    old = place / "old"
    shutil.copy(prod, old)
    device = attach(prod)
    directory = mounted(device, "prod", *MOUNT[kind])
    (directory / "file").write_bytes(b"newer" * 100_000)
    subprocess.run(["umount", directory], check=True)
    subprocess.run(["losetup", "-d", device], check=True)
    says = (prod, kind, f"written later than that of {old}")
    refused(service, "iiadm", "-e", "ind", old, prod, place / "b", code=1, says=says)
    enabled(service, prod, old, place / "b")


def test_bitmap_volume_of_a_living_set_is_asked_about(
    service, new_service, refused, volume, place
):
    """Of another service, whose state this one does not know."""
    enabled(service, volume("m"), place / "s", place / "b")
    service.kill()
    other = new_service("other")
    says = (place / "b", "was not disabled", place / "s", "point in time 1 of")
    words = ("-e", "dep", volume("m2"), place / "s2", place / "b")
    refused(other, "iiadm", *words, code=1, says=says)
    assert other.run("iiadm", "-n", *words).returncode == 0


@pytest.fixture
def unjoined(service, new_service, volume, place):
    """A bitmap volume with the changes of an import that was closed and not joined."""
    master, shadow, second = volume("m"), place / "s", place / "second"
    enabled(service, master, shadow, place / "b")
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other = new_service("other")
    assert other.run("iiadm", "-I", shadow, second).returncode == 0
    other.write(shadow, 3 * CHUNK, b"over there")
    disabled(other, shadow)
    return other, shadow, second


def test_changes_of_an_unjoined_import_are_asked_about(
    service, new_service, refused, unjoined, volume, place
):
    other, shadow, second = unjoined
    says = (second, f"an import of {shadow} that was not joined")
    refused(other, "iiadm", "-e", "dep", volume("m2"), place / "x", second, code=1, says=says)
    enabled(service, volume("m3"), place / "s3", place / "b3")
    assert service.run("iiadm", "-E", place / "s3").returncode == 0
    refused(other, "iiadm", "-I", place / "s3", second, code=1, says=says)
    assert service.run("iiadm", "-J", shadow, second).returncode == 0
    assert other.run("iiadm", "-I", place / "s3", second).returncode == 0


def test_former_shadow_is_no_bitmap_volume_without_a_yes(service, refused, volume, place):
    """Words swapped, and no file system that could be recognised."""
    enabled(service, volume("m"), place / "s", place / "b")
    disabled(service, place / "s")
    says = (place / "s", "the master or the shadow of a set the last time")
    words = ("-e", "dep", volume("m2"), place / "s2", place / "s")
    refused(service, "iiadm", *words, code=1, says=says)


def test_shadow_of_another_master_is_asked_about(service, refused, volume, place):
    enabled(service, volume("m"), place / "s", place / "b")
    disabled(service, place / "s")
    says = (place / "s", f"the shadow of another master the last time ({place / 'm'})")
    words = ("-e", "ind", volume("m2"), place / "s", place / "b2")
    refused(service, "iiadm", *words, code=1, says=says)


@pytest.mark.finding("K6.3")
@pytest.mark.parametrize("role", ["shadow", "bitmap"])
def test_nothing_is_made_below_dev(service, refused, volume, place, role):
    """A typo in the name of a device would become a file in memory."""
    names = {"shadow": place / "s", "bitmap": place / "b", role: "/dev/iifuse-no-such-device"}
    says = (names[role], "below /dev")
    refused(service, "iiadm", "-e", "ind", volume("m"), *names.values(), says=says)
    assert not os.path.lexists(names[role])


# -- what does not ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_earlier_copy_is_overwritten_unasked(service, image, place, kind):
    master, shadow, bitmap = image("m", kind), place / "s", place / "b"
    for night in range(3):
        enabled(service, master, shadow, bitmap)
        service.write(master, (8 + night) << 20, b"a day's work")
        disabled(service, shadow)


def partition_table(path):
    """Of the old kind and with no number."""
    table = bytearray(blank(path, 8 << 20).read_bytes())
    table[446:462] = bytes([0, 0, 2, 0, 0x83, 0, 9, 0, 1, 0, 0, 0, 0xFF, 0, 0, 0])
    table[510:512] = b"\x55\xaa"
    path.write_bytes(table)


def two_signatures(path):
    """A file system, and swap space that was there before; blkid does not say which it is."""
    with blank(path, 8 << 20).open("r+b") as file:
        make("ext4", str(path))
        file.seek(4086)
        file.write(b"SWAPSPACE2")
        file.seek(0)
        file.write(b"hsqs" + bytes(24) + b"\4\0\0\0")


@pytest.mark.parametrize("content", [partition_table, two_signatures])
def test_earlier_copy_of_what_has_no_uuid_is_overwritten_unasked(
    service, refused, place, content
):
    """The parts that they had tell; another set's shadow of that kind is asked about."""
    master, shadow, bitmap, other = (place / name for name in ("m", "s", "b", "other"))
    content(master)
    for night in range(2):
        enabled(service, master, shadow, bitmap)
        service.write(master, (4 + night) << 20, b"a day's work")
        disabled(service, shadow)
    shutil.copy(master, other)
    words = ("-e", "ind", master, other, place / "b2")
    refused(service, "iiadm", *words, code=1, says=(other, "no earlier copy"))


def test_live_master_with_an_old_superblock_asks_nothing(
    service, image, attach, mounted, place
):
    """The copy was mounted for a backup last night; the master has been mounted all the time."""
    master, shadow, bitmap = image("m"), place / "s", place / "b"
    assert service.run("svadm", "-e", master).returncode == 0
    live = mounted(attach(service.path(master)), "live")
    enabled(service, master, shadow, bitmap)
    disabled(service, shadow)
    copy = attach(shadow)
    (mounted(copy, "copy") / "mark").write_bytes(b"of the backup")
    subprocess.run(["umount", place / "fs" / "copy"], check=True)
    subprocess.run(["losetup", "-d", copy], check=True)
    (live / "file").write_bytes(b"a day's work")
    enabled(service, master, shadow, bitmap)


def test_parts_that_were_changed_on_purpose_ask_once(service, image, place):
    one, two, bitmap = image("one"), place / "two", place / "b"
    enabled(service, one, two, bitmap)
    disabled(service, two)
    for words in (("-n",), (), ()):
        assert service.run("iiadm", *words, "-e", "ind", two, one, bitmap).returncode == 0
        assert service.run("iiadm", "-w", one).returncode == 0
        disabled(service, one)


def test_blank_volumes_ask_nothing(service, image, place):
    master = image("m")
    size = master.stat().st_size
    shadow, bitmap = blank(place / "s", size), blank(place / "b", 1 << 20)
    bitmap.write_bytes(bytes(1 << 20))
    enabled(service, master, shadow, bitmap)
