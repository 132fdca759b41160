"""What `-R` must not do: destroy the truth, or call a set whole that is not."""

import os

import pytest
from harness import CHUNK

SIZE = 64 << 20
UNCHANGED = 1
"""A chunk that the restore has not to bring."""


@pytest.fixture
def halfway(service, volume, place):
    """A restore that stands aborted, of a set of either kind: (master, shadow, what it restores).

    Of every three chunks it has to bring the first.
    """

    def make(kind="ind"):
        master, shadow = volume("m", SIZE), place / "s"
        kept = master.read_bytes()
        service.enable(kind, master, shadow)
        service.wait(shadow)
        for chunk in range(0, 2000, 3):
            service.write(master, chunk * CHUNK, b"a mistake")
        service.flip("m", shadow)
        service.abort(shadow)
        status = service.status(shadow)
        assert (status.progress, status.copying) == ("to_master", False)
        assert status.copy_bits > 0
        return master, shadow, kept

    return make


def test_reset_makes_no_new_shadow_for_a_restore_that_needs_the_old_one(service, halfway):
    """The shadow's file system was not mounted in time: an empty file must not become the truth."""
    master, shadow, kept = halfway()
    service.stop()
    os.rename(shadow, f"{shadow}.away")
    service.start()
    assert service.status(shadow).offline
    assert service.run("iiadm", "-R", shadow, "-n").returncode == 2
    assert not shadow.exists()
    service.stop()
    os.rename(f"{shadow}.away", shadow)
    service.start()
    assert service.run("iiadm", "-R", shadow, "-n").returncode == 0
    assert service.read(master) == kept
    service.flip("m", shadow)
    service.wait(shadow)
    assert service.read(master) == kept


def test_writes_while_a_restore_had_lost_its_shadow_are_in_the_next_update(service, halfway):
    """To chunks that had nothing to be restored such a write goes on, and no bit can be set."""
    master, shadow, kept = halfway()
    service.stop()
    os.rename(shadow, f"{shadow}.away")
    service.start()
    service.write(master, UNCHANGED * CHUNK, b"written meanwhile")
    live = bytearray(kept)
    live[UNCHANGED * CHUNK : UNCHANGED * CHUNK + 17] = b"written meanwhile"
    service.stop()
    os.rename(f"{shadow}.away", shadow)
    service.start()
    assert service.run("iiadm", "-R", shadow, "-n").returncode == 0
    service.flip("m", shadow)
    service.wait(shadow)
    assert service.read(master) == live
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == live
    assert service.stop() == 0
    assert shadow.read_bytes()[:SIZE] == master.read_bytes() == live


def test_damaged_bits_of_a_restore_never_show_the_chunks_that_it_has_not_brought(service, halfway):
    """F13: a copy bit that cannot be read counts as set: the chunk is on the shadow, or EIO."""
    master, shadow, kept = halfway()
    service.kill()
    bitmap = shadow.with_name("s.bmp")
    with bitmap.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte[0] ^ 0xFF]))
    service.start()
    with service.path(master).open("rb", buffering=0) as file:
        for chunk in range(0, 2000, 3):
            try:
                file.seek(chunk * CHUNK)
                assert file.read(CHUNK) == kept[chunk * CHUNK : (chunk + 1) * CHUNK], chunk
            except OSError:
                continue
    if service.status(shadow).offline:
        assert service.run("iiadm", "-R", shadow, "-n").returncode == 0
    service.flip("m", shadow)
    service.wait(shadow)
    assert service.read(master) == kept


def test_reset_never_overwrites_a_master_that_was_only_late_at_one_start(service, volume, place):
    """It was away once, and has been served and written since."""
    master, shadow = volume("m", 300 * CHUNK), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.stop()
    os.rename(master, f"{master}.away")
    service.start()
    assert "master" in service.status(shadow).offline
    service.stop()
    with open(f"{master}.away", "r+b") as file:
        file.seek(20 * CHUNK)
        file.write(b"by somebody else, meanwhile")
    os.rename(f"{master}.away", master)
    service.start()
    service.write(master, 7 * CHUNK, b"a week of work")
    live = service.read(master)
    assert service.run("iiadm", "-R", shadow, "-n").returncode == 0
    assert service.read(master) == live
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master) == live


def test_import_whose_bitmap_was_away_at_one_start_goes_on_when_it_is_back(
    service, new_service, volume, place
):
    """K4: nobody could write to the shadow; while it is away `-d` would end the import."""
    master, shadow = volume("m", 300 * CHUNK), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other, second = new_service("other"), place / "second"
    assert other.run("iiadm", "-I", shadow, second).returncode == 0
    other.write(shadow, 0, b"noted in a bitmap that goes away")
    other.stop()
    os.rename(second, place / "away")
    other.start()
    assert "bitmap" in other.status(shadow).offline
    other.stop()
    os.rename(place / "away", second)
    other.start()
    assert (other.status(shadow).offline, other.status(shadow).shadow_bits) == ((), 1)
    assert other.read(shadow)[:5] == b"noted"
    other.stop()
    os.rename(second, place / "away")
    other.start()
    other.disable(shadow)
    assert other.client.status() == []
    assert other.run("iiadm", "-I", shadow, place / "third").returncode == 0
    assert other.read(shadow)[:5] == b"noted"
