"""What a start may believe, and what it shows before it knows."""

import os
import threading
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from bitmaps import change_header
from devices import eventually
from harness import CHUNK

HUGE = CHUNK << 22
"""A sparse volume whose bits take a while to load."""


@pytest.fixture
def pair(service, volume, place):
    """(master, independent shadow, dependent shadow), both whole."""
    master = volume("m", 300 * CHUNK)
    for kind in ("ind", "dep"):
        service.enable(kind, master, place / kind)
    service.wait(place / "ind")
    return master, place / "ind", place / "dep"


# -- before the service is ready --------------------------------------------------------------


def test_file_opened_while_the_service_starts_is_seen_by_its_sets(service, place):
    """Nothing is shown before all bits are loaded, so no write is kept for nobody."""
    master = place / "m"
    with master.open("wb") as file:
        file.truncate(HUGE)
        file.write(os.urandom(100 * CHUNK))
    for kind in ("ind", "dep"):
        service.enable(kind, master, place / kind)
    service.wait(place / "ind")
    before = head(service, place / "dep")
    service.stop()
    waiting, written = threading.Event(), []

    def write_early():
        for chunk in range(100):
            while not waiting.is_set():
                with suppress(OSError):
                    service.write(master, chunk * CHUNK, b"X" * 4096)
                    written.append(chunk)
                    break

    early = threading.Thread(target=write_early)
    early.start()
    try:
        service.start()
    finally:
        waiting.set()
        early.join(30)
    service.write(master, 99 * CHUNK, b"X")
    assert head(service, place / "dep") == before, f"{written}: noted nowhere"
    assert service.status(place / "ind").shadow_bits >= len(written)
    service.flip("s", place / "ind")
    service.wait(place / "ind")
    assert head(service, place / "ind") == head(service, master)


def head(service, path):
    with service.path(path).open("rb") as file:
        return file.read(100 * CHUNK)


# -- bits that lack what was written ----------------------------------------------------------


def test_bitmap_that_was_away_for_one_run_is_not_believed_when_it_is_back(service, pair):
    """F8: writes of that run are noted nowhere."""
    master, independent, dependent = pair
    service.stop()
    for shadow in (independent, dependent):
        os.rename(f"{shadow}.bmp", f"{shadow}.away")
    service.start()
    service.write(master, 200 * CHUNK, b"nobody noted this")
    service.stop()
    for shadow in (independent, dependent):
        os.rename(f"{shadow}.away", f"{shadow}.bmp")
    service.start()
    for shadow in (independent, dependent):
        assert "bitmap" in service.status(shadow).offline
    with pytest.raises(OSError):
        service.read(dependent)
    assert service.run("iiadm", "-R", independent).returncode == 0
    service.flip("s", independent)
    service.wait(independent)
    assert service.read(independent) == service.read(master)


def test_doubt_after_a_power_loss_outlasts_the_next_kill(new_service, volume, place):
    """F2, F6: under durability=process a boot with another id makes all chunks differ, for good."""
    service = new_service("app", "stop_wait=2", "durability=process")
    master, shadow = volume("m", 300 * CHUNK), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 3 * CHUNK, b"x")
    service.kill()
    change_header(Path(f"{shadow}.bmp"), boot_id=uuid4())
    service.start()
    assert service.status(shadow).shadow_bits == 300
    service.kill()
    service.start()
    assert service.status(shadow).shadow_bits == 300


@pytest.mark.parametrize("late", [False, True])
def test_master_written_past_a_killed_service_is_found_out(service, place, late):
    """K4: until then an update copied nothing, and a point in time showed what came later."""
    disk = place / "disk"
    disk.mkdir()
    master, independent, dependent = disk / "m", place / "ind", place / "dep"
    master.write_bytes(os.urandom(300 * CHUNK))
    service.enable("ind", master, independent)
    service.enable("dep", master, dependent)
    service.wait(independent)
    service.restart()  # what it finds there, it knows again after a kill
    service.kill()
    service.start()
    assert service.status(independent).shadow_bits == 0
    assert not service.status(dependent).offline
    service.kill()
    if late:
        os.rename(disk, place / "away")
        service.start()
        assert service.status(dependent).waiting == ("master",)
    with (place / "away" / "m" if late else master).open("r+b") as file:
        file.write(b"past the service")
    if late:
        os.rename(place / "away", disk)
        eventually(lambda: not service.status(dependent).waiting, "the master is back")
    else:
        service.start()
    assert service.status(independent).shadow_bits == 300
    assert service.status(dependent).offline == ("shadow",)
    service.flip("s", independent)
    service.wait(independent)
    assert service.read(independent) == service.read(master)


# -- a master of another size -----------------------------------------------------------------


@pytest.mark.parametrize("chunks", [200, 400])
def test_master_resized_while_the_service_was_down_takes_its_sets_offline(service, pair, chunks):
    """F16: no byte of it is lost, and it can be written to its end; `-d` is the way out."""
    master, *shadows = pair
    service.stop()
    os.truncate(master, chunks * CHUNK)
    raw = master.read_bytes()
    shadow_raw = shadows[0].read_bytes()
    service.start()
    assert service.read(master) == raw
    service.write(master, (chunks - 1) * CHUNK, b"at the new end")
    for shadow in shadows:
        status = service.status(shadow)
        assert "shadow" in status.offline
        assert f"{chunks * CHUNK} bytes" in (status.offline_reason or "")
        assert service.run("iiadm", "-u", shadow).returncode == 2
    assert os.stat(master).st_size == chunks * CHUNK
    assert shadows[0].read_bytes() == shadow_raw
    for shadow in shadows:
        assert service.run("iiadm", "-n", "-d", shadow).returncode == 0  # else it asks
    new = shadows[0].with_name("new")
    service.enable("ind", master, new)
    service.wait(new)
    assert service.read(new) == service.read(master)
