"""The loop of a running service reads and writes volumes, and asks them nothing else (K8)."""

import re

import pytest
from harness import Service
from service_day import day

NAMES = ("m", "s1", "s2", "b1", "b2", "plain")
CALLS = (
    "open,openat,close,stat,lstat,fstat,newfstatat,statx,statfs,fstatfs,access,faccessat,"
    "faccessat2,readlink,readlinkat,getxattr,lgetxattr,fgetxattr,fsync,fdatasync,sync_file_range,"
    "truncate,ftruncate,fallocate,unlink,unlinkat,rename,renameat,renameat2,lseek,ioctl,fcntl"
)


class Traced(Service):
    """A service whose loop's calls are written down, with the paths of descriptors."""

    def command(self):
        trace = ["strace", "-D", "-ff", "-q", "-y", "-s", "4096", "-e", f"trace={CALLS}"]
        return [*trace, "-o", str(self.home / "trace"), *super().command()]

    def calls_of_threads(self, pid):
        """(those of the loop, those of all other threads)"""
        lines = {path.suffix: path.read_text().splitlines() for path in self.home.glob("trace.*")}
        loop = lines.pop(f".{pid}")
        return loop, [line for of_thread in lines.values() for line in of_thread]


@pytest.mark.finding("K8.4")
@pytest.mark.parametrize("options", [(), ("in_place", "writeback_cache")], ids=["plain", "all"])
def test_loop_of_a_running_service_makes_no_such_call_on_a_volume(place, options):
    service = Traced(place, "app", ("stop_wait=2", *options))
    try:
        service.start(env={"PYTHONDONTWRITEBYTECODE": "1"})
        pid = service.pid
        assert day(service, place) == [], "the day was not whole"
        service.stop()
    finally:
        service.clean_up()
    on_volume = re.compile(rf'["<]{re.escape(str(place))}/({"|".join(NAMES)})[">]')
    loop, threads = service.calls_of_threads(pid)
    assert [line for line in loop if on_volume.search(line)] == []
    assert sum(1 for line in threads if on_volume.search(line)) > 50, "the trace is not whole"
