"""What the service has its nursery do, and that it starts no process itself (K8)."""

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from devices import Mapping, eventually, opened
from far import far
from harness import CHUNK, Service
from processes import descendants, name, nursery, runs
from service_day import day

from iifuse import errors

MASTER = 8 * CHUNK


@pytest.fixture
def with_slow_blkid(place):
    """A service whose blkid never ends."""
    (place / "bin").mkdir()
    program = place / "bin/blkid"
    program.write_text("#!/bin/sh\nexec sleep 3600\n")
    program.chmod(0o755)
    service = Service(place, "app", ("stop_wait=2",))
    try:
        yield service.start(env={"PATH": f"{place}/bin:{os.environ['PATH']}"})
    finally:
        service.clean_up()


def looks(service, volume, place):
    """A verb has a program look at a volume, which does not end; the processes."""
    verb = partial(service.run, "iiadm", "-e", "ind", volume("m"), volume("s"), place / "b")
    threading.Thread(target=verb, daemon=True).start()
    eventually(
        lambda: "sleep" in [_name(pid) for pid in descendants(service.pid)], "the program runs"
    )
    return [pid for pid in descendants(service.pid) if _name(pid)]


def _name(pid):
    with suppress(OSError):
        return name(pid)
    return ""


def test_kill_of_the_service_leaves_no_nursery_and_no_child(with_slow_blkid, volume, place):
    below = looks(with_slow_blkid, volume, place)
    assert {"iifuse-nursery", "iifuse-child", "sleep"} <= {_name(pid) for pid in below}
    with_slow_blkid.kill()
    eventually(lambda: not any(runs(pid) for pid in below), "all of them have ended")


def test_other_verbs_go_on_while_a_program_looks_at_a_volume(with_slow_blkid, volume, place):
    looks(with_slow_blkid, volume, place)
    assert with_slow_blkid.run("svadm", "-i").returncode == 0


def test_service_that_stops_leaves_no_nursery(service, volume, place):
    service.enable("ind", volume("m"), place / "s")
    pid = nursery(service.pid)
    assert service.stop() == 0
    assert not runs(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_to_the_whole_group_ends_the_service_in_order(place, volume, number):
    """As Ctrl-C sends it: the nursery is needed to the end."""
    service = Grouped(place, "app", ("stop_wait=0.1", "writeback_cache"))
    try:
        service.start()
        path = volume("v")
        assert service.run("svadm", "-e", path).returncode == 0
        with opened(service.path(path)) as fd:
            os.pwrite(fd, b"not synced", 0)
            os.killpg(service.pid, number)
            assert service.wait_for_end(60) == 3
        assert path.read_bytes()[:10] == b"not synced"
        assert "may be lost" not in service.log.read_text()
    finally:
        service.clean_up()


class Grouped(Service):
    """A service that leads a group of processes."""

    def _begin(self, more):
        with self.log.open("ab") as log:
            env = {**os.environ, **more}
            return subprocess.Popen(self.command(), stderr=log, env=env, process_group=0)


# -- volumes that hang ----------------------------------------------------------------------


@pytest.mark.finding("K8.2")
def test_verbs_on_other_volumes_go_on_while_a_volume_hangs(service, volume, place):
    """They sync a file through the mount, and have a program look at volumes."""
    master, shadow = volume("m", MASTER), place / "s"
    service.enable("dep", master, shadow)
    with far(place) as server:
        volume("far/fs/hung", MASTER)
        service.enable("dep", volume("m2", MASTER), server.mountpoint / "hung", place / "b2")
        server.freeze()
        with opened(service.path(master)) as fd:
            os.pwrite(fd, b"changed", 0)
            assert service.run("iiadm", "-u", "s", shadow).returncode == 0
        words = ("-n", "-e", "dep", volume("m3", MASTER), volume("s3", MASTER), place / "b3")
        assert service.run("iiadm", *words).returncode == 0
        server.thaw()
        service.disable(server.mountpoint / "hung")
    assert service.read(shadow)[:7] == b"changed"


class Hasty(Service):
    """A service that waits a second for what programs have written."""

    def command(self):
        code = (
            "import iifuse.nursery.nursery as here; here.SYNC_SECONDS = 1.0;"
            "from iifuse.service import main; raise SystemExit(main())"
        )
        return [sys.executable, "-c", code, *super().command()[1:]]


@pytest.mark.finding("K8.3")
def test_point_in_time_is_refused_when_what_was_written_does_not_arrive(place, volume):
    """A page that a program has changed in memory is kept from the master by its shadow."""
    service = Hasty(place, "app", ("stop_wait=2",))
    try:
        service.start()
        with far(place) as server:
            master, shadow = volume("m", MASTER), server.mountpoint / "s"
            volume("far/fs/s", MASTER)
            service.enable("dep", master, shadow, place / "b")
            with opened(service.path(master)) as fd, closing(Mapping(fd, MASTER)) as mapped:
                mapped.store(0, b"mapped")
                server.freeze()
                # By no program: one that we start would hang with the file that we have open.
                with pytest.raises(errors.StorageError, match="not arrived within 1 s") as refused:
                    service.flip("s", shadow)
                server.thaw()
                assert refused.value.subject == str(service.path(master))
                assert refused.value.todo == "nothing was changed"
                assert service.status(shadow).pit == 1
                service.flip("s", shadow)
            assert service.read(shadow)[:6] == b"mapped"
            assert service.stop() == 0
    finally:
        service.clean_up()


# -- without it -----------------------------------------------------------------------------


@pytest.fixture
def orphaned(new_service, volume, place):
    """A service whose nursery has ended, with a set."""
    service = new_service("app", "stop_wait=0.1", "in_place")
    service.enable("dep", volume("m", MASTER), place / "s")
    os.kill(nursery(service.pid), signal.SIGKILL)
    eventually(lambda: "iifuse-nursery" in service.log.read_text(), "the log says so")
    return service


def test_end_of_the_nursery_is_in_the_log_and_in_health(orphaned):
    (line,) = [n for n in orphaned.log.read_text().splitlines() if "iifuse-nursery" in n]
    assert " ERROR iifuse-nursery: this process of the service has ended" in line
    done = orphaned.run("iiadm", "--health")
    assert "iifuse-nursery: this process of the service has ended" in " ".join(done.stdout.split())
    assert done.returncode != 0


def test_service_without_its_nursery_serves_files_and_refuses_what_needs_it(
    orphaned, volume, place
):
    master, shadow = place / "m", place / "s"
    orphaned.write(master, 0, b"first")
    orphaned.flip("s", shadow)
    assert orphaned.read(shadow)[:5] == b"first"
    with opened(orphaned.path(master)) as fd:
        os.pwrite(fd, b"again", 0)
        with pytest.raises(errors.ServiceError, match="iifuse-nursery"):
            orphaned.flip("s", shadow)
    assert orphaned.status(shadow).pit == 2
    volume("t", MASTER)
    with pytest.raises(errors.BadVolume, match="this process of the service has ended"):
        orphaned.enable("dep", master, place / "t")
    orphaned.flip("s", shadow)
    assert orphaned.read(shadow)[:5] == b"again"


def test_service_without_its_nursery_stops_in_order_and_leaves_no_mount(orphaned, place):
    assert orphaned.stop() == 0
    mounted = Path("/proc/self/mountinfo").read_text()
    assert str(place / "m") not in mounted
    assert str(orphaned.mountpoint) not in mounted


# -- who starts processes -------------------------------------------------------------------

_STARTS = re.compile(r"(clone3?|fork|vfork)\((.*)\) += (\d+)")


class Traced(Service):
    """A service whose threads and processes are written down, a file for each."""

    def command(self):
        trace = ["strace", "-D", "-ff", "-q", "-e", "trace=process"]
        return [*trace, "-o", str(self.home / "trace"), *super().command()]

    def begun(self):
        """By thread of the service: of what it has begun, in order, is it a thread?"""
        left, found = [self.main], {}
        while left:
            thread = left.pop()
            lines = (self.home / f"trace.{thread}").read_text().splitlines()
            calls = [call for call in map(_STARTS.match, lines) if call]
            found[thread] = ["CLONE_THREAD" in call[2] for call in calls]
            left += [int(call[3]) for call in calls if "CLONE_THREAD" in call[2]]
        return found

    def start(self, **options):
        super().start(**options)
        self.main = self.pid
        return self


@contextmanager
def traced(place, *options):
    service = Traced(place, "app", ("stop_wait=2", *options))
    try:
        yield service.start(env={"PYTHONDONTWRITEBYTECODE": "1"})
    finally:
        service.clean_up()


@pytest.mark.finding("K8.2")
@pytest.mark.parametrize("options", [(), ("in_place", "writeback_cache")], ids=["plain", "all"])
def test_service_begins_nothing_but_threads_once_it_has_its_nursery(place, options):
    with traced(place, *options) as service:
        refused = day(service, place)
        assert service.stop() == 0
    assert refused == [], "the day was not whole"
    begun = service.begun()
    own = begun.pop(service.main)
    threads = own[own.index(True) :]  # before them its nursery, and what an import has run
    assert own.index(True) > 0
    assert all(threads)
    assert all(all(of_thread) for of_thread in begun.values())
    assert len(begun) > 5, "the trace is not whole"
