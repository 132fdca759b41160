"""With `-o in_place` the name of a volume leads to the service's own mount.

A thread of the service that asks there waits for an answer of its own. Where programs wait at a
closed door for all that the mount can serve at once, it waits for ever, and cannot be killed.
"""

import os
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from devices import eventually, opened
from fault_service import Faulty, shim
from harness import CHUNK, Service

from iifuse.control import protocol

__all__ = ["shim"]

_LINE = re.compile(r"(\d+\.\d{9}) (\w+)\((.*)\) = (-?\d+)(.*) <(\d+\.\d{9})>")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
_MOUNTS = ("mount", "umount2")
"""They look for the mount and not at what is below it."""


class Call(NamedTuple):
    """A call that named files, and went well."""

    began: float
    ended: float
    name: str
    paths: list[str]
    text: str


class Watched(Service):
    """A service whose calls that name files are written down, a file for each thread."""

    def command(self):
        how = ["strace", "-D", "-ff", "--seccomp-bpf", "-q", "-v", "-s", "4096"]
        times = ["--syscall-times=ns", "--absolute-timestamps=format:unix,precision:ns"]
        trace = ["-e", "trace=%file", "-o", str(self.home / "trace")]
        return [*how, *times, *trace, *super().command()]

    def calls(self) -> list[Call]:
        """Those of the service itself; programs that it starts may wait, and can be killed."""
        found, end = [], re.compile(r" \+\+\+ (exited|killed) ")
        for trace in self.home.glob("trace.*"):
            eventually(lambda trace=trace: end.search(_text(trace)), "a whole trace")
            own = list(_calls(_text(trace)))
            starts = [call.name for call in own].count("execve")
            if starts == (trace.suffix == f".{self.main}"):
                found += own
        assert any(call.name == "mount" for call in found), "the trace is not whole"
        return sorted(found)

    def start(self, **options):
        super().start(**options)
        self.main, self.device = self.pid, os.stat(self.mountpoint).st_dev
        return self

    def asked_itself(self) -> list[str]:
        """Calls that had to be answered by the mount, by the name or by what they found."""
        mounts = self._mounts()
        device = f"st_dev=makedev({os.major(self.device):#x}, {os.minor(self.device):#x})"
        return [
            call.text
            for call in self.calls()
            if call.name not in _MOUNTS
            and (device in call.text or any(_leads_in(call, mounts, path) for path in call.paths))
        ]

    def _mounts(self) -> dict[str, list[tuple[float, float]]]:
        """The mount and the files that it is over in place, each with when."""
        times: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for call in self.calls():
            at = call.paths[-1 if call.name == "umount2" else 1] if call.name in _MOUNTS else ""
            if call.name == "mount" and not at.startswith("/sys/"):
                times[at].append((call.ended, float("inf")))
            elif call.name == "umount2" and times[at]:
                times[at][-1] = times[at][-1][0], call.began
        return times


def _text(trace: Path) -> str:
    return trace.read_text(errors="surrogateescape")


def _calls(text: str) -> Iterator[Call]:
    for line in text.splitlines():
        call = _LINE.fullmatch(line)
        if call is None or call[4].startswith("-"):
            continue
        paths = _PATHS.findall(call[3])
        names = paths[:2] if call[2] in ("mount", "rename", "link", "linkat") else paths[:1]
        yield Call(float(call[1]), float(call[1]) + float(call[6]), call[2], names, line)


def _leads_in(call: Call, mounts: dict[str, list[tuple[float, float]]], path: str) -> bool:
    for point, times in mounts.items():
        if path == point or path.startswith(f"{point}/"):
            return any(since < call.began and call.ended < until for since, until in times)
    return False


@pytest.fixture
def watched(place):
    service = Watched(place, "watched", ("stop_wait=2", "in_place"))
    try:
        yield service.start(env={"PYTHONDONTWRITEBYTECODE": "1"})
    finally:
        service.clean_up()


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
