"""Stop, kill, start: what was in force before is in force again, and it is true."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import threading

import pytest
from devices import eventually, held_open, opened, pattern
from harness import CHUNK

BIG = 256 << 20


@pytest.fixture
def large(disk_place):
    """A volume whose first copy takes long enough to be interrupted."""

    def make(name="big", size=BIG):
        path = disk_place / name
        path.write_bytes(pattern(size))
        return path

    return make


def same(a, b):
    """Are two files equal, as far as the shorter one goes?"""
    return subprocess.run(
        ["cmp", "-n", str(min(a.stat().st_size, b.stat().st_size)), a, b], check=False
    ).returncode == 0


def row(status):
    """What has to survive a restart."""
    return (
        status.uuid, status.kind, status.progress, status.custody, status.offline, status.pit,
        status.pit_id, status.pit_time, status.shadow_bits, status.copy_bits, status.group,
    )  # fmt: skip


@pytest.fixture
def several(service, volume, place):
    """Sets of both kinds, two shadows of one master among them, changed on both sides."""
    a, b = volume("a", 300 * CHUNK + 7), volume("b", 40 * CHUNK)
    shadows = [place / name for name in ("a.ind", "a.dep", "b.ind")]
    service.enable("ind", a, shadows[0], group="night")
    service.enable("dep", a, shadows[1])
    service.enable("ind", b, shadows[2], group="night")
    service.wait(*shadows)
    for chunk in (0, 3, 150, 299, 300):
        service.write(a, chunk * CHUNK, b"new %d" % chunk)
    service.write(shadows[0], 7 * CHUNK, b"shadow")
    service.write(shadows[1], 8 * CHUNK, b"shadow")
    service.write(b, 39 * CHUNK, b"b")
    return [a, b], shadows


# -- an orderly stop --------------------------------------------------------------------------


def test_sigterm_saves_exact_bits_and_start_brings_all_back(service, several):
    masters, shadows = several
    before = [row(service.status(s)) for s in shadows]
    shown = [service.read(v) for v in masters + shadows]
    assert [r[8] for r in before] == [6, 6, 1]
    assert service.stop() == 0
    assert not os.path.ismount(service.mountpoint)
    assert os.listdir(service.mountpoint) == []
    assert not service.socket.exists()
    service.start()
    assert [row(service.status(s)) for s in shadows] == before
    assert [service.read(v) for v in masters + shadows] == shown


@pytest.mark.parametrize("inherited", [signal.SIG_DFL, signal.SIG_IGN])
def test_sigint_stops_in_order_too(service, several, inherited):
    """Ignored is what a script's background job inherits."""
    service.stop()
    before = signal.signal(signal.SIGINT, inherited)
    service.start()
    signal.signal(signal.SIGINT, before)
    os.kill(service.pid, signal.SIGINT)
    assert service.wait_for_end(30) == 0
    assert not os.path.ismount(service.mountpoint)
    service.start()
    assert service.status(several[1][0]).shadow_bits == 6


@pytest.mark.parametrize("what", ["master", "shadow"])
def test_stop_with_an_open_file_names_the_holder_and_exits_1(new_service, volume, place, what):
    service = new_service("app", "stop_wait=0.5")
    master, shadow = volume("v"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    file = service.path(master if what == "master" else shadow)
    with held_open(file) as pid:
        assert service.stop() == 3
        assert not os.path.ismount(service.mountpoint)
    log = service.log.read_text()
    assert f"pid {pid}" in log
    assert str(master if what == "master" else shadow) in log
    service.start()
    assert service.status(shadow).shadow_bits == 0
    assert service.read(shadow) == service.read(master)


def test_stop_waits_for_open_files_to_be_closed(new_service, volume):
    service = new_service("app", "stop_wait=30")
    path = volume("v")
    assert service.run("svadm", "-e", path).returncode == 0
    codes = []
    with opened(service.path(path)) as fd:
        stopping = threading.Thread(target=lambda: codes.append(service.stop()))
        stopping.start()
        eventually(lambda: "waiting up to" in service.log.read_text(), "the service waits")
        os.pwrite(fd, b"while it waits", 0)
    stopping.join(30)
    assert codes == [0]
    assert path.read_bytes()[:14] == b"while it waits"


def test_stop_by_umount_from_outside_saves_all(service, several):
    before = [row(service.status(s)) for s in several[1]]
    subprocess.run(["umount", str(service.mountpoint)], check=True)
    assert service.wait_for_end(30) == 0
    service.start()
    assert [row(service.status(s)) for s in several[1]] == before


# -- copies go on -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_running_copy_goes_on_after_a_restart(new_service, large, place, disk_place, how):
    service = new_service()
    master, shadow = large(), disk_place / "s"
    service.enable("ind", master, shadow)
    getattr(service, how)()
    before = master.stat().st_size // CHUNK
    service.start()
    left = service.status(shadow)
    assert left.copying or left.progress == "idle"
    assert left.copy_bits <= before
    service.wait(shadow)
    status = service.status(shadow)
    assert (status.progress, status.copy_bits, status.shadow_bits) == ("idle", 0, 0)
    assert 0 < status.copied_chunks <= before
    assert service.stop() == 0
    assert same(master, shadow)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_aborted_copy_stays_aborted_after_a_restart(new_service, large, disk_place, how):
    service = new_service()
    master, shadow = large(), disk_place / "s"
    service.enable("ind", master, shadow)
    service.abort(shadow)
    aborted = service.status(shadow)
    assert (aborted.progress, aborted.copying) == ("to_shadow", False)
    assert aborted.copy_bits > 0
    getattr(service, how)()
    service.start()
    assert row(service.status(shadow)) == row(aborted)
    assert not service.status(shadow).copying
    done = service.run("iiadm", "-w", shadow)
    assert done.returncode == 1
    assert str(shadow) in done.stderr
    service.flip("s", shadow)
    service.wait(shadow)
    assert same(service.path(master), service.path(shadow))
    assert service.status(shadow).copied_chunks <= aborted.copy_bits + aborted.shadow_bits


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restore_goes_on_after_a_restart(new_service, large, disk_place, how):
    service = new_service()
    master, shadow = large(), disk_place / "s"
    shutil.copyfile(master, disk_place / "kept")
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 1000, b"a mistake")
    service.flip("m", shadow, full=True)
    getattr(service, how)()
    service.start()
    assert same(service.path(master), disk_place / "kept")
    service.wait(shadow)
    assert service.stop() == 0
    assert same(master, disk_place / "kept")


# -- kill -9 ----------------------------------------------------------------------------------


def test_kill_leaves_a_dead_mount_that_start_cleans_up(service, several):
    masters, shadows = several
    pits = [service.read(s) for s in shadows]
    live = [service.read(m) for m in masters]
    before = [row(service.status(s)) for s in shadows]
    service.kill()
    with pytest.raises(OSError):
        service.path(masters[0]).open()
    service.start()
    assert service.log.read_text().count("dead mount") >= 1
    assert [service.read(s) for s in shadows] == pits
    assert [service.read(m) for m in masters] == live
    for old, new in zip(before, (service.status(s) for s in shadows), strict=True):
        now = row(new)
        assert (now[:8], now[9:]) == (old[:8], old[9:])
        assert old[8] <= now[8] <= old[8] + 3 * 128  # whole regions are marked ahead
    with open("/proc/self/mounts") as mounts:
        assert sum(str(service.mountpoint) in line for line in mounts) == 1


def test_kill_while_writers_run_keeps_every_pit(service, volume, place):
    """F1, F15."""
    master = volume("v", 64 * CHUNK)
    independent, dependent = place / "ind", place / "dep"
    service.enable("ind", master, independent)
    service.wait(independent)
    service.enable("dep", master, dependent)
    kept = master.read_bytes()
    acknowledged = {}

    def write(number):
        with opened(service.path(master)) as fd:
            for turn in range(100_000):
                at = (turn * 7 + number) % 64 * CHUNK + number * 512
                data = (b"%d %d " % (number, turn)).ljust(512, b".")
                try:
                    os.pwrite(fd, data, at)
                except OSError:
                    acknowledged.pop(at, None)  # nobody can know
                    return
                acknowledged[at] = data

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 30, "writers are under way")
    service.kill()
    for thread in threads:
        thread.join(30)
    service.start()
    assert service.read(dependent) == kept
    assert service.read(independent) == kept
    live = service.read(master)
    assert all(live[at : at + 512] == data for at, data in acknowledged.items())
    service.flip("s", independent)
    service.wait(independent)
    assert service.read(independent) == live
    service.flip("m", dependent)
    service.wait(dependent)
    assert service.read(master) == kept
    assert service.read(independent) == live


def test_export_survives_restart_and_kill(service, new_service, volume, place):
    master, shadow = volume("v"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other = new_service("other")
    assert other.run("iiadm", "-I", shadow, place / "second").returncode == 0
    other.write(shadow, 2 * CHUNK, b"over there")
    service.write(master, 4 * CHUNK, b"over here")
    for how in ("stop", "kill"):
        getattr(service, how)()
        getattr(other, how)()
        service.start()
        other.start()
        assert service.status(shadow).custody == "exported"
        assert other.status(shadow).custody == "imported"
        assert not service.path(shadow).exists()
        assert other.read(shadow)[2 * CHUNK : 2 * CHUNK + 10] == b"over there"
    other.disable(shadow)
    assert service.run("iiadm", "-J", shadow, place / "second").returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)
    assert service.read(master)[4 * CHUNK : 4 * CHUNK + 9] == b"over here"


def undisabled(service, place, shadows, *, closing):
    """Disable sets; then the state database is as it was before that, with the service down."""
    shutil.copy(service.state / "state.db", place / "kept.db")
    for shadow in shadows[1:]:
        service.disable(shadow)
    service.stop()
    shutil.copy(place / "kept.db", service.state / "state.db")
    with contextlib.closing(sqlite3.connect(service.state / "state.db")) as db:
        db.execute("UPDATE sets SET closing = ? WHERE shadow <> ?", (closing, str(shadows[0])))
        db.commit()
    shadows[1].write_bytes(b"\xff" * shadows[1].stat().st_size)


def test_interrupted_disable_is_finished_at_start(service, several, place):
    """F5: as if the end of `-d` had not reached the database."""
    _, shadows = several
    whole = shadows[2].read_bytes()
    undisabled(service, place, shadows, closing=True)
    service.start()
    assert [s.shadow for s in service.client.status()] == [str(shadows[0])]
    assert shadows[1].read_bytes()[8192:65536] == bytes(65536 - 8192)
    assert shadows[2].read_bytes() == whole
    assert not service.path(shadows[1]).exists()
    assert service.run("iiadm", "-g", "-L").stdout == "night\n"
    service.restart()
    assert len(service.client.status()) == 1


def test_state_database_older_than_a_disable_wipes_nothing(service, several, place):
    """The shadow may be somebody's own volume by now."""
    _, shadows = several
    undisabled(service, place, shadows, closing=False)
    service.start()
    assert [s.shadow for s in service.client.status()] == [str(shadows[0])]
    assert service.status(shadows[0]).offline == ()
    assert set(shadows[1].read_bytes()) == {0xFF}
