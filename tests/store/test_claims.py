"""One storage, one service: claims of the whole host, made and lost by processes (K3)."""

import os
import subprocess
import sys

import pytest
from descriptors import open_below

from iifuse import errors
from iifuse.store import claims
from iifuse.store.blocks import WHOLE, Extent
from iifuse.store.claims import Claim
from iifuse.store.identity import Identity

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="claims are root's")


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "DIRECTORY", str(tmp_path / "claims"))
    return tmp_path / "claims"


def identity(base, start=0, end=WHOLE, under=()):
    lower = tuple(Extent(name, 0, WHOLE) for name in under)
    return Identity(True, (0, 0), (Extent(base, start, end),), lower)


VOLUMES = {
    "disk": identity("disk:a"),
    "part 1": identity("disk:a", 0, 100),
    "part 2": identity("disk:a", 100, 200),
    "lv 1": identity("dm:1", under=["disk:a", "disk:b"]),
    "lv 2": identity("dm:2", under=["disk:a"]),
    "file on lv 1": identity("file:1", under=["dm:1", "disk:a", "disk:b"]),
    "other": identity("disk:c"),
}

PATH = ":".join([os.path.dirname(__file__), *sys.path])
HOLD = """
import sys
sys.path[:0] = sys.argv[1].split(":")
from iifuse.store import claims
from test_claims import VOLUMES
claims.DIRECTORY = sys.argv[2]
held = claims.Claim("theirs", VOLUMES[sys.argv[3]])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["this process", "another"])
def hold(request, directory):
    """Claim a volume, here or in another process; returns how to end it."""
    started = []

    def here(name):
        return Claim("theirs", VOLUMES[name]).release

    def elsewhere(name):
        words = [sys.executable, "-c", HOLD, PATH, str(directory), name]
        pipe = subprocess.PIPE
        process = subprocess.Popen(words, stdin=pipe, stdout=pipe)
        started.append(process)
        assert process.stdout.readline() == b"held\n"

        def kill():
            process.kill()
            process.wait()

        return kill

    yield here if request.param == "this process" else elsewhere
    for process in started:
        process.kill()
        process.communicate()


def test_claim_is_refused_exactly_where_identities_conflict(hold):
    for name, theirs in VOLUMES.items():
        give_up = hold(name)
        for other, ours in VOLUMES.items():
            if theirs.conflicts(ours):
                with pytest.raises(errors.InUse, match="service"):
                    Claim(other, ours)
            else:
                Claim(other, ours).release()
        give_up()
        Claim(name, theirs).release()


def test_claim_names_the_process_that_has_the_storage(directory):
    words = [sys.executable, "-c", HOLD, PATH, str(directory), "disk"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(errors.InUse, match=rf"another service: python.* \(pid {process.pid}\)"):
            Claim("ours", VOLUMES["part 1"])
        process.stdin.close()


def test_claims_leave_no_file_behind(directory):
    held = [Claim(name, VOLUMES[name]) for name in ("lv 1", "lv 2", "other")]
    assert {"disk:a", "dm:1", "disk:c"} <= set(os.listdir(directory))
    for one in held:
        one.release()
        one.release()
    assert os.listdir(directory) == []


def test_claim_that_is_refused_keeps_nothing(directory):
    held = Claim("a", VOLUMES["part 1"])
    with pytest.raises(errors.InUse):
        Claim("b", identity("file:9", under=["disk:b", "disk:a"]))
    held.release()
    assert os.listdir(directory) == []


def test_sweep_removes_what_the_killed_have_left_and_nothing_else(directory):
    held = Claim("a", VOLUMES["part 1"])
    (directory / "file:dead").touch()
    assert claims.sweep()
    assert os.listdir(directory) == ["disk:a"]
    with pytest.raises(errors.InUse):
        Claim("b", VOLUMES["disk"])
    held.release()


def test_claim_of_one_who_may_write_nothing_there_is_none(directory, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "makedirs", forbidden)
    assert not claims.sweep()
    Claim("a", VOLUMES["lv 1"]).release()


def test_claim_that_cannot_be_made_for_want_of_space_is_refused(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims, "_open", full)
    with pytest.raises(errors.BadVolume, match=r"cannot be claimed in .*No space"):
        Claim("a", VOLUMES["lv 1"])


def test_claim_whose_lock_fails_leaves_no_descriptor_open(monkeypatch, tmp_path):
    def no_locks(*args, **kwargs):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(claims.linux, "lock_extent", no_locks)
    with pytest.raises(errors.BadVolume, match="No locks"):
        Claim("a", VOLUMES["lv 1"])
    assert not open_below(tmp_path)


def test_claim_of_a_base_with_any_name_stays_in_its_directory(directory):
    held = Claim("a", identity("disk:../../evil /" + "x" * 400))
    (name,) = os.listdir(directory)
    assert len(name) <= 255
    held.release()
