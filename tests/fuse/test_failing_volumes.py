"""Volumes fail under the real program: who goes offline, who goes on, and what -R brings back."""

import errno

import pytest
from fault_service import faulty, outcome, shim
from harness import CHUNK

__all__ = ["faulty", "shim"]

CHUNKS = 300


class Case:
    """A set in one of the states of the table of failures; `fresh` is a chunk to be touched."""

    def __init__(self, faulty, volume, place, state):
        self.faulty, self.service, self.state = faulty, faulty.service, state
        self.master, self.shadow = volume("m", CHUNKS * CHUNK), place / "s"
        self.files = {"master": self.master, "shadow": self.shadow, "bitmap": place / "s.bmp"}
        self.kept = self.master.read_bytes()
        self.service.enable("dep" if "dep" in state else "ind", self.master, self.shadow)
        self.service.wait(self.shadow)
        self.fresh = 200  # in a region that is not marked ahead
        for chunk in range(10):
            self.write(chunk)
        if not state.startswith("idle"):
            self.stop_copy()

    def stop_copy(self):
        """A copy whose master fails stands aborted, with its copy bits (F24)."""
        direction = self.state[-1]
        with self.faulty.failing("write" if direction == "m" else "read", self.master):
            self.service.flip(direction, self.shadow)
            assert self.service.run("iiadm", "-w", self.shadow).returncode == 1
        found = self.service.status(self.shadow)
        assert (found.copying, found.copy_bits > 0, found.offline) == (False, True, ())
        self.fresh = 9

    def write(self, chunk):
        self.service.write(self.master, chunk * CHUNK, b"written to %d" % chunk)

    def offline(self):
        return set(self.service.status(self.shadow).offline)

    def run(self, *words):
        return self.service.run("iiadm", *words, self.shadow)

    def is_cut_off(self):
        return self.state == "copying m" and "shadow" in self.offline()

    def finish(self):
        """The restore, if there is one, then an update that ends equal."""
        if self.state == "copying m":
            self.service.flip("m", self.shadow)
            self.service.wait(self.shadow)
            assert self.service.read(self.master) == self.kept
        self.service.wait(self.shadow)
        self.write(20)
        self.service.flip("s", self.shadow)
        self.service.wait(self.shadow)
        assert self.service.read(self.shadow) == self.service.read(self.master)
        assert self.service.stop() == 0
        if "dep" not in self.state:
            assert self.shadow.read_bytes() == self.master.read_bytes()


EIO, ENOSPC = errno.EIO, errno.ENOSPC
TABLE = [
    # state, what fails at what, how; what becomes of a write to the master, who is offline
    ("idle ind", "bitmap", "write", ENOSPC, "ok", "bitmap"),
    ("idle ind", "bitmap", "sync", EIO, "ok", "bitmap"),
    ("idle ind", "master", "write", EIO, "EIO", ""),
    ("idle dep", "bitmap", "write", EIO, "ok", "bitmap shadow"),
    ("idle dep", "bitmap", "sync", EIO, "ok", "bitmap shadow"),
    ("idle dep", "shadow", "write", ENOSPC, "ok", "shadow"),
    ("idle dep", "shadow", "sync", EIO, "ok", "shadow"),
    ("idle dep", "master", "read", EIO, "ok", "shadow"),
    ("idle dep", "master", "write", EIO, "EIO", ""),
    ("copying s", "bitmap", "sync", EIO, "ok", "bitmap shadow"),
    ("copying s", "shadow", "write", ENOSPC, "ok", "shadow"),
    ("copying s", "shadow", "sync", EIO, "ok", "shadow"),
    ("copying s", "master", "read", EIO, "ok", "shadow"),
    ("copying m", "bitmap", "sync", EIO, "EIO", "bitmap shadow"),
    ("copying m", "shadow", "read", EIO, "EIO", ""),
    ("copying m", "master", "write", EIO, "EIO", ""),
]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("state", "role", "operation", "code", "written", "lost"), TABLE)
def test_volume_that_fails_drags_along_what_needs_it_and_no_more(
    faulty, volume, place, state, role, operation, code, written, lost
):
    """F7, F8, F9, F11, F12: the table of failures, from the first failure to -R."""
    case, lost = Case(faulty, volume, place, state), set(lost.split())
    with faulty.failing(operation, case.files[role], code):
        assert outcome(case.write, case.fresh) == written
        assert case.offline() == lost
        if role != "master" and not state.endswith("m"):
            assert outcome(case.write, 250) == "ok"
            assert case.service.read(case.master)[250 * CHUNK :].startswith(b"written to 250")
    check_said(case, lost, role)
    faulty.kill_and_start()
    assert case.offline() == lost
    if lost:
        done = case.run("-R")
        assert done.returncode == 0, done.stderr
    assert case.offline() == set()
    case.finish()


def check_said(case, lost, role):
    """-i and --json name the roles and the reason; updates are refused, and say why."""
    found = case.faulty.json(case.shadow)
    assert set(found["offline"]) == lost
    if not lost:
        assert found["offline_reason"] is None
        return
    assert str(case.files[role]) in found["offline_reason"]
    text = case.run("-i").stdout
    assert "offline" in text
    assert found["offline_reason"] in text
    for words in (("-u", "s"), ("-c", "s"), ("-u", "m")):
        done = case.run(*words, "-n")
        assert done.returncode == 2, done.stdout
        assert "offline" in done.stderr
        assert "Traceback" not in done.stderr
    if "shadow" in lost:
        assert outcome(case.service.read, case.shadow) == "EIO"
