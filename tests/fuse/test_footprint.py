"""What a whole session writes to: the named volumes, its state, its socket, and nothing else."""

import os
import re
from functools import partial

import pytest
from devices import eventually
from harness import CHUNK, Service

SIZE = 12 * CHUNK + 100
CLAIMS = "/run/iifuse/.claims"
"""What every instance on this host holds, named by what it really is."""
ON_THE_WAY = "/run/iifuse", CLAIMS
SYSTEM = "/proc/self/", "/sys/fs/fuse/connections/"
_CALLS = (
    "open,openat,creat,unlink,unlinkat,rename,renameat,renameat2,link,linkat,symlink,symlinkat,"
    "mkdir,mkdirat,rmdir,mknod,mknodat,truncate,chmod,fchmodat,chown,lchown,fchownat,mount,umount2"
)
_LINE = re.compile(r"^(\w+)\((.*)\) += (-?\d+|0x[0-9a-f]+)")
_PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')


class Watched(Service):
    """A service whose calls that name files are written down, from its first to its last.

    Each thread has a file of its own: in a common one a call is cut in two when another thread's
    comes between its begin and its end, and neither half would be read.
    """

    def command(self):
        trace = ["strace", "-D", "-ff", "-q", "-s", "4096", "-e", f"trace={_CALLS}"]
        return [*trace, "-o", str(self.home / "trace"), *super().command()]

    def written(self):
        """Paths that were opened for writing, made, removed or given another name."""
        found = set()
        for line in self.lines():
            call = _LINE.match(line)
            assert call or line.startswith(("+++", "---")) or line.endswith("= ?"), line
            if call is None or call[3].startswith("-"):
                continue
            reads = call[1].startswith("open") and not re.search(r"O_WRONLY|O_RDWR|O_CREAT", line)
            if not reads:
                names = _PATHS.findall(call[2])
                found |= set(names[1:2] if call[1] == "mount" else names)
        return found

    def lines(self):
        """All calls; those of one thread one after the other."""
        end = re.compile(r"^\+\+\+ (exited|killed)", re.MULTILINE)
        traces = list(self.home.glob("trace.*"))
        assert len(traces) > 1, "every thread has one"
        for trace in traces:
            read = partial(trace.read_text, errors="surrogateescape")
            eventually(lambda read=read: end.search(read()), "a whole trace")
            yield from read().splitlines()


@pytest.fixture
def watched(disk_place):
    service = Watched(disk_place, "watched", ("stop_wait=2",))
    try:
        yield service.start(env={"PYTHONDONTWRITEBYTECODE": "1"})
    finally:
        service.clean_up()


def session(service, place):
    """Every verb, with a volume that is refused among them."""
    for name in ("m1", "m2", "plain"):
        (place / name).write_bytes(os.urandom(SIZE))
    (place / "precious").write_bytes(b"of somebody else" * 1000)
    s1, s2 = place / "s1", place / "s2"
    service.enable("ind", place / "m1", s1, group="night")
    service.enable("dep", place / "m2", s2)
    service.wait(s1)
    service.run("svadm", "-e", place / "plain")
    for file in ("m1", "m2", "s1", "s2", "plain"):
        service.write(place / file, CHUNK, b"changed")
    service.flip("s", s1, s2)
    service.wait(s1)
    service.flip("m", s1)
    service.wait(s1)
    assert service.run("iiadm", "-e", "ind", place / "precious", s1, s2).returncode == 2
    assert service.run("iiadm", "-E", s1).returncode == 0
    assert service.run("iiadm", "-n", "-R", s1).returncode == 0
    service.run("svadm", "-d", place / "plain")
    service.disable(s1, s2)
    assert service.stop() == 0


def test_session_writes_to_its_volumes_its_state_and_its_socket_only(watched, disk_place):
    session(watched, disk_place)
    volumes = {"m1", "m2", "plain", "s1", "s2", "s1.bmp", "s2.bmp"}
    beside = {f"s1.iiticket{end}" for end in ("", ".draft", ".draft.new", ".new")}
    named = {str(disk_place / name) for name in volumes | beside}
    found = watched.written()
    assert named >= {p for p in found if p.startswith(f"{disk_place}/s1.iiticket")}
    assert {str(disk_place / name) for name in volumes} <= found, "the trace is not whole"
    strange = {
        path for path in found - named
        if not path.startswith((f"{watched.home}/", f"{CLAIMS}/", *SYSTEM))
        and path not in (str(disk_place), "/dev/fuse", "/dev/null", str(watched.home), *ON_THE_WAY)
    }  # fmt: skip
    assert not strange
    inside = {os.path.relpath(p, watched.home) for p in found if p.startswith(str(watched.home))}
    assert {i.split("/")[0] for i in inside} <= {"state", "s.sock", "mnt", ".", "log", "notify"}
    assert (disk_place / "precious").read_bytes() == b"of somebody else" * 1000
