"""The file system of the state directory is full; a set is here or gone, and can be made again."""

import os
import subprocess

import pytest
from harness import CHUNK, Service

from iifuse import errors


@pytest.fixture
def service(place):
    """A service whose state has a small file system of its own."""
    found = Service(place, "app", ("stop_wait=2",))
    found.state.mkdir()
    small = ("mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=1000", "state", found.state)
    subprocess.run(small, check=True)
    try:
        yield found.start()
    finally:
        found.clean_up()
        subprocess.run(["umount", "-l", found.state], check=True)


@pytest.fixture
def filled(service):
    """Not a byte is free any more, nor in the journal of changes; the file that takes the room."""
    room = service.state / "room"

    def fill():
        os.truncate(service.state / "state.db-journal", 0)
        with room.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                return room

    return fill


def test_disable_with_a_full_state_changes_nothing_and_works_once_there_is_room(
    service, filled, volume, place
):
    master, shadow = volume("m", 100 * CHUNK), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 3 * CHUNK, b"before")
    pit, live = service.read(shadow), service.read(master)
    room = filled()
    with pytest.raises(errors.StorageError):
        service.disable(shadow)
    assert service.status(shadow).offline == ()
    assert service.read(shadow) == pit
    with pytest.raises(errors.StorageError):
        service.enable("ind", master, place / "other")
    assert [row.shadow for row in service.client.status()] == [str(shadow)]
    with pytest.raises(errors.StorageError):
        service.flip("s", shadow)  # that a copy runs could not be noted (K1)
    assert service.read(shadow) == pit
    room.unlink()
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == live
    service.disable(shadow)
    assert service.client.status() == []
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.restart()
    assert [row.shadow for row in service.client.status()] == [str(shadow)]
    assert service.read(shadow) == live
