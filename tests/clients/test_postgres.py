"""PostgreSQL on ext4, data and WAL on two masters of one group, always under load. F1, F25."""

import contextlib
import subprocess

import pytest
from devices import detach, eventually, unmount
from filesystems import MIB, check, make
from postgres import Clerk, Server

SIZES = {"data": 224 * MIB, "wal": 96 * MIB}
KINDS = ["ind", "dep"]
UPDATES = 10
KILLS = 3
ROWS = 150
"""That the clerk writes, beside pgbench, between two points in time."""


@pytest.fixture
def hang_seconds():
    return 600


def is_free(directory):
    """Unmount, as soon as the last process of a dead server has gone."""
    return subprocess.run(["umount", directory], capture_output=True, check=False).returncode == 0


class Stage:
    """A live server on two masters, each with an independent and a dependent shadow."""

    def __init__(self, service, place, volumes, attach, mounted):
        self.service, self.place, self.volumes = service, place, volumes
        self.attach, self.mounted = attach, mounted
        self.masters = {name: volumes / name for name in SIZES}
        for name, master in self.masters.items():
            with master.open("wb") as file:
                file.truncate(SIZES[name])
            for kind in KINDS:
                self.service.enable(kind, master, self.shadow(name, kind), group="pg")
        self.devices = {n: self.attach(self.service.path(m)) for n, m in self.masters.items()}
        for device in self.devices.values():
            make("ext4", device)
        self.live = Server(self.place / "fs" / "live")
        self.mount(self.live, self.devices)
        self.servers = [self.live]
        self.load = None

    def shadow(self, name, kind):
        return self.volumes / f"{name}-{kind}"

    def mount(self, server, devices):
        for name, device in devices.items():
            self.mounted(device, f"{server.root.name}/{name}")

    def unmount(self, server, devices):
        for name, device in devices.items():
            unmount(server.root / name)
            check("ext4", device)
            detach(device)

    def begin(self):
        """pgbench and a clerk at work."""
        self.load = self.live.load()
        self.clerk = Clerk(self.live, self.live.noted())

    def end_load(self):
        if self.load is not None:
            self.load.kill()
            self.load.wait(60)
            self.load = None

    def update(self):
        """(least, most) rows that the new point in time must hold."""
        least = self.clerk.rows
        done = self.service.run("iiadm", "-g", "pg", "-u", "s")
        assert done.returncode == 0, done.stderr
        return least, self.clerk.rows + 1  # one may be committed and not yet counted

    def look(self, kind):
        """A second server on the shadows recovers by itself; the rows that it has."""
        copy = Server(self.place / "fs" / kind)
        self.servers.append(copy)
        devices = {n: self.attach(self.service.path(self.shadow(n, kind))) for n in SIZES}
        self.mount(copy, devices)
        (copy.data / "postmaster.pid").unlink()  # names the live server, which is alive
        copy.start()
        assert "automatic recovery in progress" in copy.said()
        rows = copy.noted()
        copy.check()
        copy.stop()
        copy.check_pages()
        self.unmount(copy, devices)
        self.servers.remove(copy)
        return rows

    def kill(self):
        """The service dies under the load, and with it the disks of the server."""
        self.service.kill()
        self.clerk.join(60)
        assert not self.clerk.is_alive()
        self.end_load()
        self.live.kill()
        for name, device in self.devices.items():
            directory = self.live.root / name
            eventually(lambda d=directory: is_free(d), f"nothing uses {directory}")
            detach(device)

    def come_back(self):
        self.service.start()
        self.devices = {n: self.attach(self.service.path(m)) for n, m in self.masters.items()}
        self.mount(self.live, self.devices)
        self.live.start()

    def clean_up(self):
        self.end_load()
        for server in self.servers:
            with contextlib.suppress(AssertionError):
                server.kill()


@pytest.fixture
def stage(new_service, place, disk_place, attach, mounted):
    place.chmod(0o711)  # the server is not root
    service = new_service("app", "stop_wait=20", root=disk_place)
    stage = Stage(service, place, disk_place, attach, mounted)
    try:
        yield stage
    finally:
        stage.clean_up()


def test_postgres_recovers_from_every_point_in_time_of_a_group(stage):
    stage.live.make()
    stage.live.start()
    stage.live.fill()
    stage.begin()
    for number in range(UPDATES):
        stage.clerk.reach(ROWS)
        least, most = stage.update()
        assert least <= stage.look(KINDS[number % 2]) <= most
    stage.clerk.finish()
    stage.end_load()
    assert stage.live.noted() == stage.clerk.rows
    stage.live.check()
    stage.live.stop()
    stage.live.check_pages()
    stage.unmount(stage.live, stage.devices)
    assert stage.service.stop() == 0


def test_postgres_finds_every_acknowledged_row_after_a_kill_of_the_service(stage):
    stage.live.make()
    stage.live.start()
    stage.live.fill()
    for number in range(KILLS):
        stage.begin()
        stage.clerk.reach(ROWS)
        least, most = stage.update()
        stage.clerk.reach(ROWS)
        acknowledged = stage.clerk
        stage.kill()
        stage.come_back()
        assert "automatic recovery in progress" in stage.live.said()
        assert acknowledged.rows <= stage.live.noted() <= acknowledged.rows + 1
        stage.live.check()
        assert least <= stage.look(KINDS[number % 2]) <= most
    stage.live.stop()
    stage.live.check_pages()
    stage.unmount(stage.live, stage.devices)
    assert stage.service.stop() == 0
