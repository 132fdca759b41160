"""Real backup programs, night after night: what has changed is never skipped (findings K2).

And what has not changed is not read again, whatever was stopped, killed and started in between.
"""

import mmap
import os
import subprocess
import time
from itertools import product

import pytest
from backup_programs import PROGRAMS
from devices import eventually
from harness import CHUNK
from samples import sample

from iifuse.core import header

SIZE = 40 * CHUNK
QUIET_SECONDS = 30
STORAGE = ["file", "device"]
OPTIONS = [(), ("in_place",), ("writeback_cache",)]


@pytest.fixture
def service_seconds():
    return 300


@pytest.fixture
def program(request, place):
    """Make the backup program of a case for a file."""

    def make(file):
        return PROGRAMS[request.param](place / request.param, file)

    return make


def wait_quiet(bitmap):
    """Until the times of its files stand in a bitmap as they are: a kill leaves them alone."""

    def is_quiet():
        blob = bitmap.read_bytes()
        slots = [blob[at : at + header.SLOT_BYTES] for at in header.SLOT_OFFSETS]
        found, _ = header.newest(str(bitmap), slots)
        return not found.master_times.ceiling_ns and not found.shadow_times.ceiling_ns

    eventually(is_quiet, f"quiet times in {bitmap}", QUIET_SECONDS)


def stored(backup, content):
    """One more night; the backup holds this. Was the file read?"""
    was_read = backup.night()
    assert backup.kept() == content
    return was_read


# -- the procedure on two hosts -----------------------------------------------------------------


class TwoHosts:
    """A set whose shadow goes to another host for its backup and comes back every night."""

    def __init__(self, app, other, master, shadow, bitmap, second):
        self.app, self.other, self.master, self.shadow = app, other, master, shadow
        self.bitmap, self.second = bitmap, second
        self.run(app, "-e", "ind", master, shadow, bitmap)
        self.is_out = False

    def run(self, service, *words):
        done = service.run("iiadm", *words)
        assert done.returncode == 0, (words, done.stderr)

    def lend(self):
        """Update, export, import; what the shadow has to hold then."""
        if self.is_out:
            self.run(self.other, "-d", self.shadow)
            self.run(self.app, "-J", self.shadow, self.second)
            self.run(self.app, "-u", self.shadow)
        self.run(self.app, "-w", self.shadow)
        truth = self.app.read(self.master)
        self.run(self.app, "-E", self.shadow)
        beside = f"{self.shadow}.iiticket"
        (ticket,) = [beside] if os.path.exists(beside) else (self.app.state / "tickets").iterdir()
        self.run(self.other, "-I", self.shadow, self.second, ticket)
        self.is_out = True
        assert self.other.read(self.shadow)[:SIZE] == truth
        return truth


@pytest.fixture
def hosts(request, service, new_service, place, volume, attach):
    other = new_service("other")
    master, shadow = volume("master", SIZE), place / "shadow"
    if request.param == "device":
        shadow.write_bytes(bytes(SIZE))
        shadow = attach(shadow)
    return TwoHosts(service, other, master, shadow, place / "bitmap", place / "second")


@pytest.mark.finding("K2.2")
@pytest.mark.parametrize(
    ("hosts", "program"), sample(product(STORAGE, PROGRAMS), 2, "lent"), indirect=True
)
def test_lent_shadow_is_backed_up_when_it_has_changed_and_only_then(hosts, program):
    backup = program(hosts.other.path(hosts.shadow))
    assert stored(backup, hosts.lend())
    hosts.app.write(hosts.master, 3 * CHUNK, b"written on the second day")
    assert stored(backup, hosts.lend())
    assert not stored(backup, hosts.lend()), "nothing had changed"
    hosts.other.restart()
    assert not stored(backup, hosts.app.read(hosts.master)), "the other host was only restarted"
    hosts.app.write(hosts.master, 5 * CHUNK, b"written on the third day")
    hosts.app.kill()
    hosts.app.start()
    assert stored(backup, hosts.lend()), "the first host was killed"
    wait_quiet(hosts.second)
    hosts.other.kill()
    hosts.other.start()
    assert not stored(backup, hosts.app.read(hosts.master)), "nothing was written before the kill"
    hosts.app.write(hosts.master, 7 * CHUNK, b"written on the fourth day")
    hosts.app.restart()
    assert stored(backup, hosts.lend())


@pytest.mark.parametrize(
    ("hosts", "program"), sample(product(STORAGE, ["restic"]), 1, "written"), indirect=True
)
def test_lent_shadow_that_the_other_host_wrote_to_is_backed_up_again(hosts, program):
    """What was written there is in the backup; the next night's point in time is without it."""
    backup = program(hosts.other.path(hosts.shadow))
    assert stored(backup, hosts.lend())
    hosts.other.write(hosts.shadow, 9 * CHUNK, b"recovered by the database of the other host")
    assert stored(backup, hosts.other.read(hosts.shadow))
    hosts.other.kill()
    hosts.other.start()
    assert backup.night() in (True, False)
    assert backup.kept() == hosts.other.read(hosts.shadow)
    assert stored(backup, hosts.lend())


# -- the host's own backup of the master --------------------------------------------------------


def by_write(file, number):
    with open(file, "r+b", buffering=0) as out:
        out.seek(2 * CHUNK)
        out.write(b"written %d" % number)


def by_mapping(file, number):
    with open(file, "r+b") as out, mmap.mmap(out.fileno(), SIZE) as memory:
        memory[4 * CHUNK : 4 * CHUNK + 9] = b"mapped %2d" % number
        memory.flush()


def by_direct_write(file, number):
    block = mmap.mmap(-1, 4096)
    block.write(b"direct %d" % number)
    fd = os.open(file, os.O_WRONLY | os.O_DIRECT)
    try:
        os.pwrite(fd, block, 6 * CHUNK)
    finally:
        os.close(fd)


WAYS = [by_write, by_mapping, by_direct_write]


def looked_at(file):
    """The kernel knows the attributes: a stat just before is what hides a change."""
    return os.stat(file)


@pytest.mark.finding("K2.1")
@pytest.mark.parametrize(
    ("options", "program"), sample(product(OPTIONS, PROGRAMS), 2, "master"), indirect=["program"]
)
def test_master_on_the_mount_is_backed_up_when_it_has_changed(
    program, options, new_service, disk_place, volume
):
    """Its content is the same to the byte through restarts and kills, and so are its times."""
    service = new_service("app", "stop_wait=2", *options, root=disk_place)
    master, shadow = disk_place / "master", disk_place / "shadow"
    master.write_bytes(os.urandom(SIZE))
    service.enable("dep", master, shadow)
    file = master if "in_place" in options else service.path(master)
    backup = program(file)
    assert stored(backup, file.read_bytes())
    for number, way in enumerate(WAYS):
        looked_at(file)
        way(file, number)
        assert stored(backup, file.read_bytes()), way.__name__
    assert not stored(backup, file.read_bytes()), "nothing was written"
    service.restart()
    assert not stored(backup, file.read_bytes()), "only restarted"
    looked_at(file)
    by_write(file, 100)
    service.kill()
    subprocess.run(["umount", "-l", service.mountpoint], check=False)
    service.start()
    assert stored(backup, file.read_bytes()), "killed after a write"
    eventually(lambda: os.stat(file).st_ctime < time.time(), "a time that has passed")
    stored(backup, file.read_bytes())  # tar takes it again: it began the last one before that time
    wait_quiet(disk_place / "shadow.bmp")
    service.kill()
    subprocess.run(["umount", "-l", service.mountpoint], check=False)
    service.start()
    assert not stored(backup, file.read_bytes()), "killed with nothing written before"


@pytest.mark.parametrize(
    ("kind", "program"), sample(product(["ind", "dep"], PROGRAMS), 2, "restored"),
    indirect=["program"],
)
def test_restored_master_and_updated_shadow_are_backed_up_again(
    program, kind, service, place, volume
):
    master, shadow = volume("master", SIZE), place / "shadow"
    service.enable(kind, master, shadow)
    service.wait(shadow)
    backup = program(service.path(master))
    first = service.read(master)
    assert stored(backup, first)
    service.write(master, CHUNK, b"deleted by mistake")
    assert stored(backup, service.read(master))
    looked_at(service.path(master))
    service.flip("m", shadow)
    service.wait(shadow)
    assert stored(backup, first), "restored"
    service.flip("m", shadow)
    service.wait(shadow)
    assert not stored(backup, first), "restored again, with nothing to copy"
