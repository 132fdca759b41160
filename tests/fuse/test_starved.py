"""K9: no thread, no process, no descriptor to be had: a request may fail, a set never does."""

import errno
import os
import resource
import threading
import time

import pytest
from devices import eventually
from fault_service import faulty, outcome, shim, sync
from harness import CHUNK, PATIENCE_SECONDS

__all__ = ["faulty", "shim"]

TRIOS_THREADS_S = 11
"""After so long trio has let its idle threads go."""
SETS = {"dep": (), "ind": (), "slow": ("-o", "limit=20"), "strict": ("-o", "break=write,limit=20")}


@pytest.fixture
def served(faulty, volume, disk_place):
    """Sets of every kind on a running service: {name: (master, shadow)}."""
    found = {}
    for name, policy in SETS.items():
        master, shadow = volume(f"m-{name}", 64 * CHUNK), disk_place / f"s-{name}"
        kind = "ind" if name == "ind" else "dep"
        words = (*policy, "-e", kind, master, shadow, disk_place / f"b-{name}")
        assert faulty.service.run("iiadm", *words).returncode == 0
        faulty.service.wait(shadow)
        found[name] = (master, shadow)
    return found


def _offline(service):
    return {row.shadow: row.offline_reason for row in service.client.status() if row.offline}


def _descriptors(service):
    return len(os.listdir(f"/proc/{service.pid}/fd"))


def _load(service, sets):
    """First touches and syncs on all sets at once; the failures."""
    failures = []

    def write(path):
        for at in range(0, 64 * CHUNK, CHUNK):
            found = {
                outcome(service.write, path, at, b"new" * 100),
                outcome(sync, service.path(path)),
            }
            failures.extend(found - {"ok"})

    paths = [path for pair in sets.values() for path in pair]
    writers = [threading.Thread(target=write, args=(path,)) for path in paths]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(PATIENCE_SECONDS)
    return failures


@pytest.mark.finding("K9.2")
def test_no_thread_can_be_started_and_nothing_is_lost(faulty, served):
    service = faulty.service
    kept = {name: service.read(shadow) for name, (_, shadow) in served.items()}
    time.sleep(TRIOS_THREADS_S)
    with faulty.failing("thread", "*", errno.EAGAIN):
        assert _load(service, served) == []
        for name, (master, shadow) in served.items():
            assert service.read(master)[:CHUNK].startswith(b"new"), name
            assert service.read(shadow)[300:CHUNK] == kept[name][300:CHUNK], name
        assert _offline(service) == {}
        for _, shadow in served.values():
            assert service.run("iiadm", "-u", "s", shadow).returncode == 0
            service.wait(shadow)
        assert service.run("iiadm", "-E", served["ind"][1]).returncode == 0
        assert service.run("iiadm", "-d", served["slow"][1]).returncode == 0
        assert service.run("iiadm", "-R", "-n", served["ind"][1]).returncode == 0
        assert _offline(service) == {}
    assert "defect" not in service.said()
    faulty.kill_and_start()
    assert _offline(service) == {}


def test_verb_that_needs_a_process_is_refused_with_words(faulty, served):
    """What programs have mapped is synced by a child: without it there is no point in time."""
    service, (master, shadow) = faulty.service, served["dep"]
    held = os.open(service.path(master), os.O_RDWR)
    try:
        with faulty.failing("thread", "*", errno.EAGAIN):
            done = service.run("iiadm", "-u", "s", shadow)
            assert (done.returncode, service.status(shadow).pit) == (2, 1)
            assert "nothing was changed" in done.stderr
        assert service.run("iiadm", "-u", "s", shadow).returncode == 0
    finally:
        os.close(held)


def test_stop_without_a_process_is_one_in_order(faulty, served):
    faulty.fail("thread", "*", errno.EAGAIN)
    assert faulty.service.stop() == 0
    faulty.repair()
    faulty.start()
    assert _offline(faulty.service) == {}


@pytest.mark.parametrize("left", [3, 5])  # libfuse takes two when it needs a pipe
def test_descriptors_run_out_and_no_set_pays(faulty, served, left):
    """EMFILE: programs have what they need; a verb has its effect, or is refused with words."""
    service = faulty.service
    before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    held = _descriptors(service)
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (held + 1 + left, before[1]))
    try:
        assert _load(service, served) == []
        for verb in (("-u", "s"), ("-E",), ("-R", "-n"), ("-d",)):
            done = service.run("iiadm", *verb, served["ind"][1])
            assert done.returncode in (0, 1, 2)
            assert "unexpected" not in done.stderr
        eventually(lambda: _descriptors(service) <= held, "no descriptor left behind")
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
    assert _offline(service) == {}
    assert "defect" not in service.said()
    faulty.kill_and_start()
    assert _offline(service) == {}
