"""ext4 and XFS on loop devices over a mounted master, under load while points in time are taken."""

import pytest
from devices import detach, eventually, unmount
from filesystems import MOUNT, SIZES, Load, check, freeze, make, thaw, tree

KINDS = ["ext4", "xfs"]
LOOPS = [(), ("--direct-io=on",)]


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=LOOPS, ids=["cached", "direct"])
def loop(request):
    return request.param


@pytest.fixture
def stage(service, place, kind, loop, attach, mounted):
    """A live file system on a master with an independent and a dependent shadow."""

    class Stage:
        def __init__(self):
            self.master = place / "m"
            self.master.touch()
            with self.master.open("r+b") as file:
                file.truncate(SIZES[kind])
            self.shadows = [place / "ind", place / "dep"]
            service.enable("ind", self.master, self.shadows[0])
            service.enable("dep", self.master, self.shadows[1])
            self.device = attach(service.path(self.master), *loop)
            make(kind, self.device)
            self.live = mounted(self.device, "live")

        def update(self):
            service.flip("s", *self.shadows)

        def look(self, shadow):
            """What a shadow holds, its log replayed; it is without a fault."""
            device = attach(service.path(shadow), *loop)
            directory = mounted(device, shadow.name, *MOUNT[kind])
            found = {p.name: p.read_bytes() for p in directory.rglob("kept*")}
            found_tree = tree(directory)
            unmount(directory)
            check(kind, device)
            detach(device)
            return found, found_tree

        def end(self):
            """The live file system is without a fault."""
            unmount(self.live)
            check(kind, self.device)
            detach(self.device)

    return Stage()


def test_each_point_in_time_under_load_is_crash_consistent(service, stage):
    load = Load(stage.live)
    try:
        for _ in range(2):
            turns = load.turns
            eventually(lambda turns=turns: load.turns > turns + 25 or load.failure, "load")
            kept = dict(load.synced)
            stage.update()
            for shadow in stage.shadows:
                found, _ = stage.look(shadow)
                assert {name: found.get(name) for name in kept} == kept
    finally:
        load.finish()
    service.wait(stage.shadows[0])
    stage.update()
    found = [stage.look(shadow) for shadow in stage.shadows]
    assert found[0] == found[1]
    stage.end()
    assert service.status(stage.shadows[0]).offline == ()
    assert service.stop() == 0


def test_frozen_file_system_gives_a_clean_point_in_time(service, stage, kind):
    load = Load(stage.live)
    try:
        eventually(lambda: load.turns > 15 or load.failure, "load")
        freeze(stage.live)
        try:
            stage.update()
            want = tree(stage.live)
        finally:
            thaw(stage.live)
        turns = load.turns
        eventually(lambda: load.turns > turns + 15 or load.failure, "load after the thaw")
        if kind == "ext4":  # XFS always leaves a record in its log, to be replayed
            for shadow in stage.shadows:
                check(kind, str(service.path(shadow)))
        for shadow in stage.shadows:
            assert stage.look(shadow)[1] == want
    finally:
        load.finish()
    stage.end()


def test_restored_master_mounts_as_it_was_at_the_point_in_time(service, stage, attach, mounted):
    load = Load(stage.live)
    try:
        eventually(lambda: load.turns > 20 or load.failure, "load")
        kept = dict(load.synced)
        stage.update()
        load.finish()
        for path in stage.live.glob("load0/kept*"):
            path.unlink()  # by mistake
    finally:
        load.finish()
    stage.end()
    service.flip("m", stage.shadows[1])
    stage.device = attach(service.path(stage.master))
    stage.live = mounted(stage.device, "restored")
    found = {p.name: p.read_bytes() for p in stage.live.glob("load0/kept*")}
    assert {name: found.get(name) for name in kept} == kept
    service.wait(stage.shadows[1])
    stage.end()
