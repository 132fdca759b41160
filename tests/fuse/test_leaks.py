"""What a service needs is the same after many nights as after one: nothing is left behind.

Measured over the second half of the cycles: the first half fills caches, pools and arenas.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from harness import CHUNK, Service
from samples import WHOLE

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target
from iifuse.core.ticket import TicketEntry

CYCLES = 200 if WHOLE else 16
KILLS = 200 if WHOLE else 6
SIZE = 10 * CHUNK
LARGE = 1 << 38
"""Bytes of a master of holes: a set of it that is forgotten would keep 3 MiB and more."""
SMALL_KIB, LARGE_KIB = 4 << 10, 12 << 10
"""What the memory may differ by: threads come and go, each with a stack and an arena of its own."""
THREADS = 4
"""Fewer more than these: they begin when two of the service's own duties fall together."""
THREAD_KIB = 66 << 10
"""What a thread may reserve: its stack, and room for an arena, of which it uses next to nothing."""
DESCRIPTORS = 40
pytestmark = [pytest.mark.finding("K11.1"), pytest.mark.sampled]


@pytest.fixture
def hang_seconds():
    return 1800.0 if WHOLE else 300.0


def needs(service):
    """(memory, locked memory, threads, descriptors) of the process."""
    lines = Path(f"/proc/{service.pid}/status").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines)
    numbers = [int(status[name].split()[0]) for name in ("VmRSS", "VmLck", "Threads")]
    return *numbers, len(os.listdir(f"/proc/{service.pid}/fd"))


def kept(service):
    """Rows of each table but the history, and the files of the state directory."""
    with closing(sqlite3.connect(service.state / "state.db")) as db:
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE sql > ''")]
        rows = {t: db.execute(f"SELECT count(*) FROM {t}").fetchone()[0] for t in tables}
    rows.pop("history", None)
    return rows, sorted(path for path in service.state.rglob("*") if path.is_file())


def check_level(services, cycle, allowed_kib=SMALL_KIB):
    """Each cycle ends as it has begun, and the service needs no more for it than before."""
    for _ in range(CYCLES // 2):
        cycle()
    before = [(needs(service), kept(service)) for service in services]
    for _ in range(CYCLES // 2):
        cycle()
    for service, (needed, had) in zip(services, before, strict=True):
        assert kept(service) == had
        memory, locked, threads, descriptors = needs(service)
        assert memory - needed[0] < allowed_kib, "resident memory grows"
        assert threads - needed[2] < THREADS
        of_threads = max(0, threads - needed[2]) * THREAD_KIB
        assert locked - needed[1] < allowed_kib + of_threads, "locked memory grows"
        assert descriptors <= needed[3] + 1


@pytest.fixture
def hollow(place):
    """A master of holes, as large as a set has to be that is not to be overlooked."""
    path = place / "hollow"
    path.touch()
    os.truncate(path, LARGE)
    return path


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_memory_is_level_over_enable_update_and_disable(service, hollow, place, kind):
    shadow = place / "s"

    def cycle():
        service.enable(kind, hollow, shadow)
        service.wait(shadow)
        service.flip("s", shadow)
        service.wait(shadow)
        service.disable(shadow)

    check_level([service], cycle, LARGE_KIB)


def test_needs_are_level_over_restores_and_refusals(service, volume, place):
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("ind", master, shadow)

    def cycle():
        service.write(master, 0, os.urandom(100))
        service.wait(shadow)
        service.flip("m", shadow)
        service.wait(shadow)
        service.abort(shadow)
        with pytest.raises(errors.InUse):
            service.enable("ind", master, shadow, place / "b")
        with pytest.raises(errors.BadTicket):
            service.client.notes(protocol.Import(str(place / "none"), str(place / "b")))

    check_level([service], cycle)


def test_needs_are_level_over_open_and_close(service, volume):
    master = volume("m", SIZE)
    assert service.run("svadm", "-e", master).returncode == 0

    def cycle():
        for _ in range(20):
            service.read(master)
            fd = os.open(service.path(master), os.O_RDWR)
            os.pwrite(fd, b"changed", CHUNK)
            os.fsync(fd)
            os.close(fd)

    check_level([service], cycle)


def test_needs_are_level_over_export_import_and_join(new_service, volume, place):
    here, there = new_service("here"), new_service("there")
    master, shadow, second = volume("m", SIZE), place / "s", place / "second"
    here.enable("ind", master, shadow)

    def cycle():
        here.write(master, 0, os.urandom(100))
        here.wait(shadow)
        here.flip("s", shadow)
        here.wait(shadow)
        here.client.call(protocol.Export(Target((str(shadow),))), list[TicketEntry])
        there.client.notes(protocol.Import(str(shadow), str(second)))
        there.write(shadow, CHUNK, os.urandom(100))
        there.disable(shadow)
        here.client.notes(protocol.Join(str(shadow), str(second)))

    check_level([here, there], cycle)


def test_needs_are_level_over_kills_and_starts(service: Service, volume, place):
    master, shadow = volume("m", SIZE), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    found = []
    for _ in range(KILLS):
        service.write(master, 0, os.urandom(100))
        service.kill()
        service.start()
        mounts = Path("/proc/self/mounts").read_text().count(f" {service.mountpoint} ")
        found.append((mounts, kept(service)))
        assert needs(service)[3] < DESCRIPTORS
    assert found == [(1, found[0][1])] * KILLS


def test_ticket_in_the_state_directory_goes_with_its_set(service, volume, place, loops):
    shadow = loops(volume("image", SIZE))
    service.enable("ind", volume("m", SIZE), Path(shadow), place / "b")
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    assert [path.suffix for path in (service.state / "tickets").iterdir()] == [".json"]
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0
    service.disable(shadow)
    assert list((service.state / "tickets").iterdir()) == []
