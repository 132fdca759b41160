"""K5, K6: what `-R` would destroy of what stands in a lost volume's place is asked about."""

import shutil

import pytest
from filesystems import SIZES, make
from late_sets import until


@pytest.fixture
def image(place):
    """Make a file system in a file."""

    def build(name):
        path = place / name
        with path.open("wb") as file:
            file.truncate(SIZES["ext4"])
        make("ext4", str(path))
        return path

    return build


@pytest.fixture
def whole(service, image, place):
    """A whole independent set: (master, shadow, bitmap)."""
    master, shadow, bitmap = image("m"), place / "s", place / "b"
    service.enable("ind", master, shadow, bitmap)
    service.wait(shadow)
    return master, shadow, bitmap


def replaced(service, volume, by):
    service.stop()
    volume.unlink()
    shutil.move(by, volume)
    service.start()
    return volume


def reset(service, shadow):
    done = service.run("iiadm", "-R", shadow)
    assert done.returncode == 0, done.stderr


def test_file_system_in_the_shadows_place_is_asked_about(service, refused, whole, image):
    master, shadow, _ = whole
    service.stop()
    shadow.unlink()
    service.start()
    shutil.move(image("other"), shadow)
    until(lambda: service.status(shadow).replaced == ("shadow",))  # by itself, not by the verb
    says = (shadow, "ext4", f"no earlier copy of {master}")
    refused(service, "iiadm", "-R", shadow, code=1, says=says)
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0


@pytest.mark.finding("K6.2")
def test_nearly_blank_file_in_the_shadows_place_is_asked_about(service, refused, whole, place):
    """Some data where a few looks do not fall; a file with none at all asks nothing, see below."""
    master, shadow, _ = whole
    with (place / "other").open("wb") as file:
        file.truncate(master.stat().st_size)
        file.seek(5 << 20)
        file.write(b"somebody's data")
    replaced(service, shadow, place / "other")
    says = (shadow, "another one than the shadow that held point in time 1 of", "-n")
    refused(service, "iiadm", "-R", shadow, code=1, says=says)
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0


def test_blank_file_in_the_shadows_place_is_filled_unasked(service, whole, place):
    master, shadow, _ = whole
    blank = place / "blank"
    with blank.open("wb") as file:
        file.truncate(master.stat().st_size)
    service.stop()
    shadow.unlink()
    service.start()
    shutil.move(blank, shadow)
    reset(service, shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


@pytest.mark.parametrize("what", ["ext4", "data"])
def test_other_content_in_the_bitmaps_place_is_asked_about(
    service, refused, whole, image, volume, what
):
    _, shadow, bitmap = whole
    other = image("other") if what == "ext4" else volume("other", 1 << 20)
    replaced(service, bitmap, other)
    refused(service, "iiadm", "-R", shadow, code=1, says=(bitmap, what, "bitmap volume"))
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0


def test_bitmap_of_a_living_set_in_the_bitmaps_place_is_asked_about(
    service, refused, whole, image, place
):
    _, shadow, bitmap = whole
    service.enable("ind", image("m2"), place / "s2", place / "b2")
    service.wait(place / "s2")
    shutil.copy(place / "b2", place / "copy")
    replaced(service, bitmap, place / "copy")
    says = (bitmap, "was not disabled", place / "s2")
    refused(service, "iiadm", "-R", shadow, code=1, says=says)


def test_file_system_in_the_masters_place_is_named(service, refused, whole, image):
    master, shadow, _ = whole
    service.stop()
    master.unlink()
    service.start()
    shutil.move(image("other"), master)
    until(lambda: service.status(shadow).replaced == ("master",))
    says = (master, "overwrite a master", "the ext4 that is there", shadow, "point in time 1 of")
    refused(service, "iiadm", "-R", shadow, code=1, says=says)


def test_own_bitmap_volume_with_a_damaged_header_asks_nothing(service, whole):
    _, shadow, bitmap = whole
    service.stop()
    with bitmap.open("r+b") as file:
        for at in (100, 12 * 1024 + 100):
            file.seek(at)
            file.write(b"\xff" * 8)
    service.start()
    assert service.status(shadow).offline == ("bitmap",)
    reset(service, shadow)
