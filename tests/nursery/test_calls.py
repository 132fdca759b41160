"""Calls that children make: answered at once, or given up, and nobody waits for another's."""

import errno
import os
import signal
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest
from devices import eventually
from harness import PATIENCE_SECONDS
from processes import children as children_of
from processes import descendants, holds, name, runs, state, status

from iifuse import errors
from iifuse.nursery import nursery as calls
from iifuse.nursery import operations, process
from iifuse.nursery.nursery import Nursery
from iifuse.store import linux
from iifuse.store.identity import identify
from iifuse.store.volume import open_volume

HANGS = ("sh", "-c", "exec sleep 3600")


@pytest.fixture
def fd(tmp_path):
    """An open volume."""
    (tmp_path / "v").write_bytes(b"v" * 8192)
    found = os.open(tmp_path / "v", os.O_RDWR)
    yield found
    os.close(found)


def sh(children, script, fd, limit_s=PATIENCE_SECONDS):
    """Run some lines of shell over an open volume."""
    return children.ask(("sh", "-c", f"{script} #", "sh"), fd, "/the/volume", limit_s)


def test_program_sees_the_volume_by_its_descriptor(children, fd):
    done = children.ask(("head", "-c", "3"), fd, "/v", PATIENCE_SECONDS)
    assert (done.code, done.out, done.err) == (0, b"vvv", b"")
    done = sh(children, "echo told; echo so >&2; exit 7", fd)
    assert (done.code, done.out, done.err) == (7, b"told\n", b"so\n")


def test_long_answers_come_whole(children, fd):
    done = sh(children, "head -c 3000000 /dev/zero", fd)
    assert done.out == bytes(3_000_000)


def test_long_questions_go_whole(children, tmp_path):
    paths = [str(tmp_path / ("n" * 200) / str(n)) for n in range(5000)]
    children.sync(paths)  # none is there, which is their owners' business


def test_program_that_is_missing_is_named(children, fd):
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        children.ask(("no-such-program",), fd, "/v", PATIENCE_SECONDS)


def test_child_that_hangs_is_given_up_and_its_path_is_named(children, fd):
    began = time.monotonic()
    with pytest.raises(OSError, match=r"no answer within 0.3 s") as found:
        children.ask(HANGS, fd, "/the/volume", 0.3)
    assert (found.value.errno, found.value.filename) == (errno.ETIMEDOUT, "/the/volume")
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    eventually(lambda: descendants(children.pid) == [], "the child and its program have ended")


def test_others_are_answered_while_children_hang(children, fd):
    def hang():
        with pytest.raises(OSError, match="was ended"):
            children.ask(HANGS, fd, "/v", 3600)

    hanging = [threading.Thread(target=hang, daemon=True) for _ in range(5)]
    for thread in hanging:
        thread.start()
    eventually(lambda: len(children_of(children.pid)) == 5, "five hang")
    with ThreadPoolExecutor(8) as pool:
        said = pool.map(lambda n: sh(children, f"echo {n}", fd).out, range(40))
    assert list(said) == [b"%d\n" % n for n in range(40)]
    assert all(thread.is_alive() for thread in hanging)
    for one in descendants(children.pid):
        os.kill(one, signal.SIGKILL)
    for thread in hanging:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_thousand_calls_leave_no_process_and_no_descriptor(children, fd):
    eventually(lambda: len(holds(children.pid)) == 4, "it has settled")
    mine, theirs = holds(os.getpid()), holds(children.pid)

    def call(number):
        if number % 10:
            return children.unmount_dead("/")
        with pytest.raises(OSError, match="no answer"):
            children.ask(HANGS, fd, "/v", 0.01)
        return 0

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(call, range(1000))) == [0] * 1000
    eventually(lambda: descendants(children.pid) == [], "no process is left")
    eventually(lambda: holds(children.pid) == theirs, "no descriptor is left")
    # What an earlier test has left behind may go meanwhile.
    assert holds(os.getpid()).items() - mine.items() == set()


def test_pause_of_the_service_counts_against_no_limit(monkeypatch):
    """A wait that is over at once by the clock is but one of many."""

    class Paused:
        waits: ClassVar = []

        def register(self, *_):
            pass

        def poll(self, wait_ms):
            self.waits.append(wait_ms)
            return []

    monkeypatch.setattr(calls.select, "poll", Paused)
    assert not calls._comes(None, 60)
    assert Paused.waits == [250] * 240


def test_child_that_is_killed_is_told_apart_from_one_that_hangs(children, fd):
    with pytest.raises(OSError, match="was ended") as found:
        sh(children, "kill -9 $PPID", fd)
    assert found.value.filename == "/the/volume"
    assert children.is_there


def test_too_many_that_hang_are_refused(monkeypatch, fd):
    monkeypatch.setattr(process, "_CHILDREN_MAX", 2)
    children = Nursery.start()
    try:
        for _ in range(2):
            os.kill(_begun(children, fd), signal.SIGSTOP)  # as beyond a signal as the test can
        with pytest.raises(BlockingIOError):
            sh(children, "exit 0", fd)
    finally:
        children.close()


def _begun(children, fd):
    """The process of a child that hangs, and whose nursery does not get to know of its end."""
    before = set(children_of(children.pid))
    threading.Thread(target=_ignoring, args=(children, fd), daemon=True).start()
    eventually(lambda: len(children_of(children.pid)) > len(before), "it has begun")
    return (set(children_of(children.pid)) - before).pop()


def _ignoring(children, fd):
    with pytest.raises(errors.ServiceError):
        children.ask(HANGS, fd, "/v", 3600)


def test_descriptor_of_a_volume_never_stays_in_the_nursery(children, fd):
    threading.Thread(target=_ignoring, args=(children, fd), daemon=True).start()
    eventually(lambda: len(descendants(children.pid)) == 2, "it hangs")
    kinds = {path.partition(":")[0] for path in holds(children.pid).values()}
    assert kinds <= {"/dev/null", "socket", "anon_inode"}
    os.kill(children.pid, signal.SIGKILL)


def test_no_copy_of_a_descriptor_is_left_when_a_call_returns(children, tmp_path):
    """With it a lock would be left: whoever closes the volume then could not open it again."""
    path = str(tmp_path / "v")
    (tmp_path / "v").write_bytes(b"v" * 8192)
    for _ in range(50):
        volume = open_volume(path)
        assert children.ask(("true",), volume.fd, path, PATIENCE_SECONDS).code == 0
        volume.close()
        fd, _ = children.open(path, os.O_RDWR)
        assert linux.lock_whole_file(fd)
        os.close(fd)


# -- its life -------------------------------------------------------------------------------


def test_death_of_the_nursery_is_told_to_who_waits_and_to_who_comes(children, fd):
    found = []

    def hang():
        with pytest.raises(errors.ServiceError) as caught:
            children.ask(HANGS, fd, "/v", 3600)
        found.append(str(caught.value))

    thread = threading.Thread(target=hang, daemon=True)
    thread.start()
    eventually(lambda: len(descendants(children.pid)) == 2, "child and program run")
    below = descendants(children.pid)
    os.kill(children.pid, signal.SIGKILL)
    thread.join(PATIENCE_SECONDS)
    assert not children.is_there
    with pytest.raises(errors.ServiceError) as caught:
        children.sync(["/v"])
    assert found == [str(caught.value)]
    assert "iifuse-nursery: this process of the service has ended" in found[0]
    eventually(lambda: not any(runs(pid) for pid in below), "nothing of it is left")


def test_nursery_holds_next_to_nothing_and_keeps_no_memory_locked(children):
    eventually(lambda: len(holds(children.pid)) == 4, "the standard streams and the line")
    assert name(children.pid) == "iifuse-nursery"
    found = status(children.pid)
    assert (found["VmLck"], found["Threads"]) == ("0 kB", "1")
    assert os.readlink(f"/proc/{children.pid}/cwd") == "/"


def test_nursery_outlives_the_signals_that_go_to_whole_groups(children, fd):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(children.pid, number)
    assert sh(children, "exit 0", fd).code == 0


def test_nursery_ends_when_it_is_closed_and_leaves_nothing(fd):
    children = Nursery.start()
    threading.Thread(target=_ignoring, args=(children, fd), daemon=True).start()
    eventually(lambda: len(descendants(children.pid)) == 2, "child and program run")
    below = descendants(children.pid)
    children.close()
    assert state(children.pid) == ""
    eventually(lambda: not any(runs(pid) for pid in below), "nothing of it is left")


def test_nursery_that_stands_still_is_given_up_too(children, fd, monkeypatch):
    children._line.settimeout(0.2)
    os.kill(children.pid, signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(OSError, match="no answer") as found:
            sh(children, "exit 0", fd, 0.2)
        assert found.value.errno == errno.ETIMEDOUT
    os.kill(children.pid, signal.SIGCONT)
    assert sh(children, "exit 0", fd).code == 0
    eventually(lambda: descendants(children.pid) == [], "nobody waits for the others")


# -- volumes --------------------------------------------------------------------------------


def test_volume_is_opened_by_a_child_and_handed_over(children, tmp_path):
    (tmp_path / "v").write_bytes(b"v" * 5000)
    (tmp_path / "link").symlink_to("v")
    fd, found = children.open(str(tmp_path / "link"), os.O_RDWR)
    try:
        assert os.pread(fd, 2, 0) == b"vv"
        assert os.pwrite(fd, b"w", 0) == 1
        assert not os.get_inheritable(fd)
        assert os.get_blocking(fd)
        assert (found.size_bytes, found.identity) == (5000, identify(str(tmp_path / "v")))
    finally:
        os.close(fd)


@pytest.mark.parametrize("what", ["nothing", "a directory", "no directory"])
def test_volume_that_cannot_be_opened_is_explained_as_ever(children, tmp_path, what):
    path = tmp_path / "v"
    if what == "a directory":
        path.mkdir()
    elif what == "no directory":
        path = path / "w"
    with pytest.raises(errors.BadVolume) as expected:
        open_volume(str(path))
    with pytest.raises(errors.BadVolume) as found:
        children.open(str(path), os.O_RDWR)
    assert str(found.value) == str(expected.value)
    assert type(found.value.__cause__) is type(expected.value.__cause__)


def test_link_that_was_swapped_in_after_the_look_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "v").write_bytes(b"v" * 4096)
    (tmp_path / "secret").write_bytes(b"s" * 8192)
    real = operations.identities.real_path

    def swapping(path):
        found = real(path)
        os.rename(tmp_path / "secret", tmp_path / "v")
        return found

    monkeypatch.setattr(operations.identities, "real_path", swapping)
    children = Nursery.start()
    try:
        with pytest.raises(errors.Busy, match="was replaced while it was opened"):
            children.open(str(tmp_path / "v"), os.O_RDWR)
    finally:
        children.close()


def test_stat_tells_what_a_path_leads_to(children, tmp_path):
    (tmp_path / "v").write_bytes(b"v" * 5000)
    (tmp_path / "link").symlink_to("v")
    expected = os.stat(tmp_path / "v")
    found = children.stat(str(tmp_path / "link"))
    assert (found.device, found.inode, found.size_bytes) == (
        expected.st_dev, expected.st_ino, 5000,
    )  # fmt: skip
    assert stat.S_ISREG(found.mode)
    assert found.mtime_ns == expected.st_mtime_ns
    with pytest.raises(errors.BadVolume, match="No such file"):
        children.stat(str(tmp_path / "none"))


def test_time_of_a_change_is_set_and_that_of_the_access_stays(children, tmp_path):
    path = tmp_path / "v"
    path.write_bytes(b"v")
    os.utime(path, ns=(5, 7))
    children.set_time(str(path), 1_234_567_890_123_456_789)
    assert (path.stat().st_atime_ns, path.stat().st_mtime_ns) == (5, 1_234_567_890_123_456_789)
    with pytest.raises(FileNotFoundError):
        children.set_time(str(tmp_path / "none"), 1)
    assert not (tmp_path / "none").exists()


def test_defect_in_a_child_is_told_in_the_log(monkeypatch, caplog):
    def defect(_request, _given):
        raise ValueError("a defect")

    monkeypatch.setitem(operations._OPERATIONS, operations.Unmount, defect)
    children = Nursery.start()
    try:
        with pytest.raises(errors.InternalError, match="defect"):
            children.unmount("/v")
    finally:
        children.close()
    assert "ValueError: a defect" in caplog.text
