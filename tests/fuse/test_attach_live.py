"""Sets that are attached to a service that lives on, and one that has ended meanwhile."""

import contextlib
import shutil
import sqlite3

from harness import CHUNK

SIZE = 40 * CHUNK


def bitmap(shadow):
    return shadow.with_name(shadow.name + ".bmp")


def test_attach_does_not_believe_bits_of_a_device_that_was_written_here_before(
    service, volume, place, attach
):
    """F15: a device gives no sign of having been written, but it was written through us."""
    master = attach(volume("image", SIZE))
    shadow = place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.stop()
    shutil.rmtree(service.state)
    service.start()
    assert service.run("svadm", "-e", master).returncode == 0
    service.write(master, 7 * CHUNK, b"written with no set there")
    assert service.run("iiadm", "--attach", bitmap(shadow)).returncode == 0
    assert "was in use here before" in service.status(shadow).offline_reason
    assert service.run("iiadm", "-R", shadow).returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def test_attach_that_cannot_be_noted_takes_no_set_in_and_can_be_repeated(service, volume, place):
    """F15: a state file system that is full, all of the sets or none."""
    master, shadows = volume("m", SIZE), (place / "a", place / "b")
    for shadow in shadows:
        service.enable("ind", master, shadow)
        service.wait(shadow)
    service.stop()
    shutil.rmtree(service.state)
    service.start()

    def database(statement):
        with contextlib.closing(sqlite3.connect(service.state / "state.db")) as db:
            db.execute(statement)
            db.commit()

    database(
        f"CREATE TRIGGER full BEFORE INSERT ON sets WHEN NEW.shadow = '{shadows[1]}' "
        "BEGIN SELECT RAISE(FAIL, 'planted'); END"
    )
    done = service.run("iiadm", "--attach", *map(bitmap, shadows))
    assert done.returncode == 2
    assert "planted" in done.stderr
    assert service.client.status() == []
    database("DROP TRIGGER full")
    assert service.run("iiadm", "--attach", *map(bitmap, shadows)).returncode == 0
    assert len(service.client.status()) == 2


def test_import_that_was_joined_while_its_service_was_dead_does_not_come_back(
    service, new_service, volume, place
):
    """The shadow may be lent to somebody else by then: nobody else may write to it."""
    master, shadow, second = volume("m", SIZE), place / "s", place / "second"
    other = new_service("backup")
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    assert other.run("iiadm", "-I", shadow, second).returncode == 0
    other.write(shadow, 20 * CHUNK, b"there")
    other.kill()
    assert service.run("iiadm", "-n", "-J", shadow, second).returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other.start()
    assert not other.path(shadow).exists()
    assert other.client.status() == []
    assert "joined since" in other.log.read_text()
    assert other.run("iiadm", "-I", shadow, place / "third").returncode == 0
