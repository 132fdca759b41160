"""With `-o in_place` the name of a volume leads to the service's own mount.

A thread of the service that asks there waits for an answer of its own. Where programs wait at a
closed door for all that the mount can serve at once, it waits for ever, and cannot be killed.
"""

import os
import re
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
from devices import eventually, opened
from fault_service import Faulty, shim
from harness import CHUNK, Service
from late_sets import STATES, Stage, until, waited

from iifuse.control import protocol

__all__ = ["shim"]

_LINE = re.compile(r"(\d+\.\d{9}) (\w+)\((.*)\) = (-?\d+)(?:<(.*)>)?(.*) <(\d+\.\d{9})>")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_IS_CHILD = re.compile(r"PR_SET_PDEATHSIG|execve\(.*ldconfig")
"""Of the nursery; or a program that Python itself has run before there was one."""
_MOUNTS = ("mount", "umount2")
"""They look for the mount and not at what is below it."""


class Call(NamedTuple):
    """A call that named files, and went well."""

    began: float
    ended: float
    name: str
    paths: list[str]
    text: str


@dataclass
class Life:
    """From a start to a stop or a kill; what was mounted is nobody's afterwards."""

    pid: int
    device: int
    began: float
    ended: float = float("inf")

    def has(self, call: Call) -> bool:
        return self.began < call.began < self.ended


class Watched(Service):
    """A service whose calls that name files are written down, a file for each thread."""

    def __init__(self, *words):
        super().__init__(*words)
        self.lives: list[Life] = []

    def command(self):
        how = ["strace", "-D", "-ff", "--seccomp-bpf", "-q", "-v", "-y", "-s", "4096"]
        times = ["--syscall-times=ns", "--absolute-timestamps=format:unix,precision:ns"]
        trace = ["-e", "trace=%file,prctl", "-o", str(self.home / "trace")]
        return [*how, *times, *trace, *super().command()]

    def calls(self, *, of_all: bool = False) -> list[Call]:
        """Those of the service itself; children of its nursery may wait, and can be killed."""
        found, end = [], re.compile(r" \+\+\+ (exited|killed) ")
        for trace in self.home.glob("trace.*"):
            eventually(lambda trace=trace: end.search(_text(trace)), "a whole trace")
            if of_all or not _IS_CHILD.search(_text(trace)):
                found += _calls(_text(trace))
        assert any(call.name == "mount" for call in found), "the trace is not whole"
        return sorted(found)

    def start(self, **options):
        began = time.time()
        super().start(**options)
        self.lives.append(Life(self.pid, os.stat(self.mountpoint).st_dev, began))
        return self

    def wait_for_end(self, timeout):
        code = super().wait_for_end(timeout)
        self.lives[-1].ended = time.time()
        return code

    def asked_itself(self) -> list[str]:
        """Calls that had to be answered by the mount, by the name or by what they found."""
        mounts = self._mounts()
        return [
            call.text
            for call in self.calls()
            if call.name not in _MOUNTS
            and (
                any(life.has(call) and _is_on(life.device, call.text) for life in self.lives)
                or any(_leads_in(call, mounts, path) for path in call.paths)
            )
        ]

    def _mounts(self) -> dict[str, list[tuple[float, float]]]:
        """The mount and the files that it is over in place, each with when."""
        times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for call in self.calls(of_all=True):
            at = call.paths[-1 if call.name == "umount2" else 1] if call.name in _MOUNTS else ""
            if call.name == "mount" and not at.startswith("/sys/"):
                end = next(life.ended for life in self.lives if life.has(call))
                times[at].append((call.ended, end))
            elif call.name == "umount2" and times[at] and call.began < times[at][-1][1]:
                times[at][-1] = times[at][-1][0], call.began
        return times


def _is_on(device: int, text: str) -> bool:
    """Does strace say that a call has found something on a device, or on any FUSE mount?"""
    major, minor = os.major(device), os.minor(device)
    stat = f"st_dev=makedev({major:#x}, {minor:#x})"
    statx = f"stx_dev_major={major}, stx_dev_minor={minor},"
    return any(mark in text for mark in (stat, statx, "FUSE_SUPER_MAGIC"))


def _text(trace: Path) -> str:
    return trace.read_text(errors="surrogateescape")


def _calls(text: str) -> Iterator[Call]:
    for line in text.splitlines():
        call = _LINE.fullmatch(line)
        if call is None or call[4].startswith("-"):
            continue
        paths = _PATHS.findall(call[3])
        names = paths[:2] if call[2] in ("mount", "rename", "link", "linkat") else paths[:1]
        if call[5] and not names[0].startswith("/proc/self/fd/"):  # which lead below our mounts
            names.append(call[5])  # links were followed
        yield Call(float(call[1]), float(call[1]) + float(call[7]), call[2], names, line)


def _leads_in(call: Call, mounts: dict[str, list[tuple[float, float]]], path: str) -> bool:
    for point, times in mounts.items():
        if path == point or path.startswith(f"{point}/"):
            return any(since < call.began and call.ended < until for since, until in times)
    return False


@pytest.fixture
def watch(place):
    """Start such a service, with these options."""
    with ExitStack() as stack:

        def make(*options):
            service = Watched(place, "watched", ("stop_wait=2", *options))
            stack.callback(service.clean_up)
            return service.start(env={"PYTHONDONTWRITEBYTECODE": "1"})

        yield make


@pytest.fixture
def watched(watch):
    return watch("in_place")


def nights(service, other, volume, place):
    """Every verb, twice where the second time is another, on sets of one group and beside it."""
    m1, m2, plain = volume("m1"), volume("m2"), volume("plain")
    s1, s2, s3 = place / "s1", place / "s2", place / "m1.old"
    service.client.notes(protocol.Control((str(plain),)))
    for master, shadow in ((m1, s1), (m2, s2)):
        service.enable("ind", master, shadow, group="night")
    service.enable("dep", m1, s3)
    service.wait(s1, s2)
    for night in range(2):
        m1.open("r+b").write(b"written %d" % night)
        words = [
            ("iiadm", "-g", "night", "-u"), ("iiadm", "-g", "night", "-w"), ("iiverify", s1),
            ("iiexport", "-g", "night", "--ticket", place / "all"),
            ("svadm", "-d", s1), ("svadm", "-e", m1), ("svadm", "-i"), ("iiadm", "-i"),
        ]  # fmt: skip
        for program, *rest in words:
            done = service.run(program, *rest)
            assert done.returncode == 0, (program, rest, done.stderr)
        assert other.run("iiadm", "-I", s1, place / "q").returncode == 0
        other.write(s1, CHUNK, b"there")
        other.disable(s1)
        assert service.run("iiadm", "-J", s1, place / "q").returncode == 0
        assert service.run("iiadm", "-n", "-R", s2).returncode == 0
        for direction in "sm":
            service.flip(direction, s1, full=direction == "s")
            service.abort(s1)
            service.flip(direction, s1)
            service.wait(s1)
        service.disable(s3)
        service.enable("dep", m1, s3)
    service.enable("ind", m1, volume("former"))
    return s1


def test_no_thread_of_the_service_asks_its_own_mount(watched, new_service, volume, place):
    """All verbs, a restart, and a shadow that is lost and reset."""
    nights(watched, new_service("other"), volume, place)
    assert watched.stop() == 0
    assert watched.asked_itself() == []


def test_start_and_reset_of_a_lost_shadow_ask_nothing_of_it_either(watched, volume, place):
    master, shadow = volume("m"), place / "s"
    watched.enable("ind", master, shadow)
    watched.wait(shadow)
    watched.run("iiadm", "-E", shadow)
    watched.run("iiadm", "-n", "-R", shadow)
    watched.stop()
    shadow.rename(place / "s.away")
    watched.start()
    done = watched.run("iiadm", "-n", "-R", shadow)
    assert done.returncode == 0, done.stderr
    watched.wait(shadow)
    assert watched.stop() == 0
    assert watched.asked_itself() == []


@contextmanager
def beneath(directory: Path) -> Iterator[Path]:
    """The same directory without what is mounted on its files."""
    other = directory.with_name(f"{directory.name}.raw")
    other.mkdir()
    subprocess.run(["mount", "--bind", directory, other], check=True)
    try:
        yield other
    finally:
        subprocess.run(["umount", "-l", other], check=True)
        other.rmdir()


@pytest.mark.parametrize("fails", [False, True])
def test_failed_shadow_is_reset_though_its_own_name_leads_to_the_mount(
    new_service, shim, volume, place, fails
):
    """What stands there is opened, and not our own file over it; a failure takes no file away."""
    service = new_service("app", "in_place", "stop_wait=2")
    service.stop()
    faulty = Faulty(service, shim, place).start()
    master, shadow = volume("m"), place / "s"
    service.enable("dep", master, shadow)
    with faulty.failing("write", shadow):
        service.write(master, 0, b"not preserved")
    assert service.status(shadow).offline == ("shadow",)
    if fails:
        with beneath(place) as raw, opened(raw / "s"):
            assert service.run("iiadm", "-n", "-R", shadow).returncode == 2
        assert os.stat(shadow).st_dev == os.stat(service.mountpoint).st_dev
    done = service.run("iiadm", "-n", "-R", shadow)
    assert done.returncode == 0, done.stderr
    service.write(master, 0, b"preserved")
    assert shadow.read_bytes()[:13] == b"not preserved"
    assert os.stat(shadow).st_dev == os.stat(service.mountpoint).st_dev


# -- volumes that are late, sets that only their bitmaps know, restores that are given up -------

MOUNTED = pytest.mark.parametrize("options", [("in_place",), ()], ids=["in place", "beside"])
LOSSES = ("m", "s", "b", "ms", "sb", "msb")


def ok(service, *words):
    done = service.run("iiadm", *words)
    assert done.returncode == 0, done.stderr


def staged(service, place, state, losses, lender=None):
    stage = Stage(service, lender, place, state)
    for how, lost in losses:
        stage.add(f"{lost}-{how}", lost)
    stage.settle()
    return stage


def lost_pieces(stage):
    """The service has ended; what each set has to lose is away, or something else is there."""
    stage.end("stop" if "in_place" in stage.host.options else "kill")
    for piece in stage.pieces:
        stage.lose(piece, piece.name.partition("-")[2])


def assert_missed(service, pieces):
    """Of volumes that are open only bitmaps, where our own files hide what became of the rest."""
    for piece in pieces:
        row = service.status(piece.shadow)
        assert row.waiting or row.replaced, piece.name


def noticed(service, piece):
    row = service.status(piece.shadow)
    return set(piece.roles) <= {*(row.waiting or ()), *(row.replaced or ())}


@MOUNTED
@pytest.mark.sampled(2)
@pytest.mark.parametrize("state", STATES)
def test_volumes_that_come_back_late_are_not_looked_for_on_its_own_mount(
    watch, new_service, place, state, options
):
    """Away at the start and there again; then away while in use, and there again."""
    service = watch(*options)
    without = {"exported": "s", "imported": "m"}.get(state, "-")
    losses = [("absent", lost) for lost in LOSSES if without not in lost]
    if not options:  # in place, what stands for a master is mounted over itself until `svadm -d`
        losses += [("other", lost) for _, lost in losses]
    lender = new_service("lender") if state == "imported" else None
    stage = staged(service, place, state, losses, lender)
    lost_pieces(stage)
    service.start()
    assert_missed(service, stage.pieces)
    for piece in stage.pieces:
        stage.bring_back(piece)
    waited(service, stage.pieces)
    bitmaps = [piece for piece in stage.pieces if piece.lost == "b"]
    for piece in stage.pieces:
        stage.lose(piece, "absent")
    until(lambda: all(noticed(service, piece) for piece in bitmaps))
    for piece in stage.pieces:
        stage.bring_back(piece)
    waited(service, stage.pieces)
    assert service.stop() == 0
    assert service.asked_itself() == []


@MOUNTED
@pytest.mark.sampled(2)
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_attach_asks_nothing_of_its_own_mount(watch, volume, place, options, end):
    """Where the master is on the mount already, and where it is not; a set with a late shadow."""
    service, master, plain = watch(*options), volume("m"), volume("n")
    sets = [(master, place / "s"), (master, place / "t"), (plain, place / "u")]
    for (source, shadow), kind in zip(sets, ("ind", "dep", "ind"), strict=True):
        service.enable(kind, source, shadow)
    service.wait(place / "s", place / "u")
    service.write(master, CHUNK, b"written")
    getattr(service, end)()
    shutil.rmtree(service.state)
    service.start()
    bitmaps = {shadow.name: shadow.with_name(f"{shadow.name}.bmp") for _, shadow in sets}
    assert service.run("svadm", "-e", plain).returncode == 0
    (place / "t").rename(place / "t.away")
    for name in "stu":
        ok(service, "--attach", bitmaps[name])
        assert service.run("iiadm", "--attach", bitmaps[name]).returncode == 2
    (place / "t.away").rename(place / "t")
    until(lambda: not service.status(place / "t").waiting)
    if end == "kill":
        ok(service, "-n", "-R", place / "s")
    assert service.stop() == 0
    assert service.asked_itself() == []


@MOUNTED
def test_give_up_asks_nothing_of_its_own_mount(watch, place, options):
    """Of restores with all their volumes, and with some that are lost."""
    service = watch(*options)
    losses = [("", ""), *(("absent", lost) for lost in ("s", "ms", "b")), ("other", "s")]
    stage = staged(service, place, "aborted", losses)
    lost_pieces(stage)
    service.start()
    for piece in stage.pieces:
        ok(service, "-n", "--give-up", "--extents", f"{piece.home}.rest", piece.shadow)
    whole = stage.pieces[0]
    service.wait(whole.shadow)
    ok(service, "-n", "-u", "m", whole.shadow)
    assert service.stop() == 0
    assert service.asked_itself() == []
