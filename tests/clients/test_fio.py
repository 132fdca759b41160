"""fio with crc32c on master and shadow at once, in every state of a set. F1, F3, F4, F25."""

import os

import pytest
from devices import eventually
from fio import VOLUME_BYTES, Rounds


@pytest.fixture
def hang_seconds():
    return 200


@pytest.fixture
def rounds(place):
    return Rounds(place)


@pytest.fixture
def stage(service, place, rounds):
    """A master and a shadow, and copies that stand half-way on demand."""

    class Stage:
        def __init__(self):
            self.master, self.shadow = place / "master", place / "shadow"
            self.master.write_bytes(os.urandom(VOLUME_BYTES))
            self.files = service.path(self.master), service.path(self.shadow)

        def enable(self, kind):
            service.enable(kind, self.master, self.shadow)

        def stop_half_way(self, direction):
            """A whole copy, aborted before its end."""

            def is_half_way():
                service.flip(direction, self.shadow, full=True)
                service.abort(self.shadow)
                return service.status(self.shadow).progress != "idle"

            eventually(is_half_way, "a copy is aborted before its end")
            assert service.status(self.shadow).copy_bits > 0

        def update_under_load(self):
            """Points in time as fast as they can be had, while fio writes to the master."""
            count = 0
            load = rounds.begin(self.files[0])
            while load.is_running:
                service.flip("s", self.shadow)
                count += 1
            load.finish()
            assert count > 1

        def settle(self, direction):
            service.flip(direction, self.shadow)
            service.wait(self.shadow)

        def kill_under_load(self):
            """What was written before is found; another fio is at work at another place."""
            before = service.status(self.shadow).shadow_bits
            load = rounds.begin(*self.files, half=1)
            eventually(
                lambda: service.status(self.shadow).shadow_bits > before, "fio is at work", 30
            )
            service.kill()
            load.give_up()
            service.start()

    return Stage()


def test_fio_verifies_while_the_first_copy_stands_or_runs(service, stage, rounds):
    stage.enable("ind")
    rounds.run(*stage.files)
    stage.stop_half_way("s")
    rounds.run(*stage.files)
    service.flip("s", stage.shadow)
    rounds.run(*stage.files)
    service.wait(stage.shadow)
    for file in stage.files:
        rounds.found(file)
    assert service.stop() == 0
    master, shadow = stage.files
    rounds.found(stage.master, master)
    rounds.found(stage.shadow, shadow)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_fio_verifies_through_updates_and_restores(service, stage, rounds, kind):
    master, shadow = stage.files
    stage.enable(kind)
    service.wait(stage.shadow)
    rounds.run(master, shadow)  # idle; dependent: first touches on both sides
    stage.update_under_load()
    rounds.found(master)
    service.flip("s", stage.shadow)
    rounds.found(shadow, master)  # through a copy that runs
    rounds.run(master, shadow)
    service.flip("m", stage.shadow)
    rounds.found(master, shadow)  # through a restore that runs
    rounds.run(master, shadow)
    service.wait(stage.shadow)
    for file in stage.files:
        rounds.found(file)
    stage.settle("s")
    rounds.found(shadow, master)
    assert service.stop() == 0
    rounds.found(stage.master, master)


def test_fio_verifies_a_restore_that_stands_half_way(service, stage, rounds):
    master, shadow = stage.files
    stage.enable("ind")
    service.wait(stage.shadow)
    rounds.run(shadow)
    stage.stop_half_way("m")
    rounds.found(master, shadow)
    rounds.run(master, shadow)
    stage.settle("m")  # goes on
    for file in stage.files:
        rounds.found(file)
    assert service.stop() == 0
    rounds.found(stage.master, master)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_fio_finds_what_was_synced_before_a_kill(service, stage, rounds, kind):
    stage.enable(kind)
    service.wait(stage.shadow)
    for _ in range(2):
        stage.settle("s")  # so that what comes is first touches
        rounds.run(*stage.files)
        stage.kill_under_load()
        for file in stage.files:
            rounds.found(file)
    master, shadow = stage.files
    service.wait(stage.shadow)
    stage.settle("s")
    rounds.found(shadow, master)


def test_fio_verifies_on_two_hosts_until_the_shadow_is_joined(
    service, new_service, stage, rounds, place
):
    master, shadow = stage.files
    stage.enable("ind")
    service.wait(stage.shadow)
    rounds.run(master, shadow)
    assert service.run("iiadm", "-E", stage.shadow).returncode == 0
    other, bitmap = new_service("backup"), place / "secondary"
    assert other.run("iiadm", "-I", stage.shadow, bitmap).returncode == 0
    lent = other.path(stage.shadow)
    rounds.found(lent, shadow)
    rounds.run(master, lent)
    other.kill()
    other.start()
    rounds.found(lent)
    rounds.run(master, lent)
    assert other.run("iiadm", "-d", stage.shadow).returncode == 0
    done = service.run("iiadm", "-J", stage.shadow, bitmap)
    assert done.returncode == 0, done.stderr
    rounds.found(shadow, lent)
    rounds.found(master)
    stage.settle("s")
    rounds.found(shadow, master)
    assert service.stop() == 0
    rounds.found(stage.shadow, master)
