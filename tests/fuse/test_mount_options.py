"""What `-o` changes, and what it must not change."""

import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from devices import Mapping, opened
from harness import CHUNK


def test_in_place_puts_the_mounts_file_over_the_volume(new_service, volume, place):
    service = new_service("app", "in_place", "stop_wait=2")
    master, shadow = volume("v"), place / "s"
    raw = os.open(master, os.O_RDONLY)
    os.close(raw)
    service.enable("dep", master, shadow)
    device = os.stat(service.mountpoint).st_dev
    assert os.stat(master).st_dev == os.stat(shadow).st_dev == device
    old = master.read_bytes()
    with opened(master) as fd:
        os.pwrite(fd, b"through its own name", 0)
    assert shadow.read_bytes() == old
    assert service.status(shadow).shadow_bits == 1
    service.enable("ind", master, place / "second")
    service.wait(place / "second")
    service.flip("s", shadow, place / "second")
    service.wait(place / "second")
    assert shadow.read_bytes() == (place / "second").read_bytes() == master.read_bytes()
    service.kill()
    service.start()
    device = os.stat(service.mountpoint).st_dev
    assert os.stat(master).st_dev == os.stat(shadow).st_dev == device
    assert master.read_bytes()[:20] == b"through its own name"
    service.disable(place / "second")
    assert os.stat(place / "second").st_dev == place.stat().st_dev
    assert service.stop() == 0
    for path in (master, shadow):
        assert os.stat(path).st_dev == place.stat().st_dev
    assert master.read_bytes()[:20] == b"through its own name"
    service.start()
    assert master.read_bytes() == shadow.read_bytes()
    assert service.stop() == 0


def test_in_place_leaves_no_dead_file_after_a_kill_and_a_lost_state_directory(
    new_service, volume, place
):
    """Nobody remembers then which volumes the killed service had mounted its files over."""
    service = new_service("app", "in_place", "stop_wait=2")
    master, shadow = volume("m"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    before = master.read_bytes()
    service.kill()
    shutil.rmtree(service.state)
    service.start()
    assert master.read_bytes() == shadow.read_bytes() == before
    assert service.run("iiadm", "--attach", f"{shadow}.bmp").returncode == 0
    assert os.stat(master).st_dev == os.stat(service.mountpoint).st_dev


def test_in_place_takes_a_whole_night(new_service, volume, place):
    service = new_service("app", "in_place", "stop_wait=2")
    master, shadow = volume("v"), place / "s"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.run("iiadm", "-E", shadow).returncode == 0
    assert os.stat(shadow).st_dev == place.stat().st_dev
    other = new_service("other")
    assert other.run("iiadm", "-I", shadow, place / "second").returncode == 0
    other.write(shadow, 0, b"there")
    other.disable(shadow)
    done = service.run("iiadm", "-J", shadow, place / "second")
    assert done.returncode == 0, done.stderr
    with opened(master) as fd:
        os.pwrite(fd, b"here", CHUNK)
    service.flip("s", shadow)
    service.wait(shadow)
    assert service.status(shadow).copied_chunks == 2
    assert shadow.read_bytes() == master.read_bytes()
    service.disable(shadow)
    assert os.stat(master).st_dev == os.stat(shadow).st_dev == place.stat().st_dev
    assert stat.S_ISREG(os.stat(master).st_mode)


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_writes_in_the_page_cache_are_in_the_pit(new_service, volume, place, kind):
    service = new_service("app", "writeback_cache", "stop_wait=2")
    master, shadow = volume("v", 60 * CHUNK), place / "s"
    service.enable(kind, master, shadow)
    service.wait(shadow)
    with opened(service.path(master)) as fd, Mapping(fd, 60 * CHUNK) as memory:
        for turn in range(3):
            for chunk in range(turn, 60, 5):
                os.pwrite(fd, b"cached %d" % turn, chunk * CHUNK + 99)
                memory.store(chunk * CHUNK + 9000, b"mapped %d" % turn)
            want = memory.bytes()
            service.flip("s", shadow)
            os.pwrite(fd, b"too late", 50 * CHUNK)
            assert service.read(shadow) == want
        want = memory.bytes()
    assert service.read(master) == want
    assert service.path(master).stat().st_size == 60 * CHUNK
    assert service.stop() == 0
    assert master.read_bytes() == want


def test_writeback_cache_keeps_the_size_of_the_volume(new_service, volume):
    service = new_service("app", "writeback_cache", "stop_wait=2")
    path = volume("v", 3 * CHUNK + 100)
    assert service.run("svadm", "-e", path).returncode == 0
    want = path.read_bytes()[:-3] + b"end"
    with opened(service.path(path)) as fd:
        assert os.pwrite(fd, b"end", 3 * CHUNK + 97) == 3
        os.fsync(fd)
    assert service.read(path) == path.read_bytes() == want
    assert service.path(path).stat().st_size == 3 * CHUNK + 100


def test_writeback_cache_acknowledges_no_fsync_of_bytes_behind_the_end(new_service, volume):
    """The kernel takes such a write, since it keeps the size; what did not fit is an error."""
    service = new_service("app", "writeback_cache", "stop_wait=2")
    path = volume("v", 10 * CHUNK)
    assert service.run("svadm", "-e", path).returncode == 0
    with opened(service.path(path)) as fd:
        os.pwrite(fd, b"x" * 5000, 10 * CHUNK - 100)
        with pytest.raises(OSError):
            os.fsync(fd)
    assert path.stat().st_size == 10 * CHUNK
    assert path.read_bytes()[-100:] == b"x" * 100, "what fits is written"


def test_process_durability_survives_the_death_of_the_service(new_service, volume, place):
    service = new_service("app", "durability=process", "stop_wait=2")
    master, dependent, independent = volume("v"), place / "dep", place / "ind"
    service.enable("dep", master, dependent)
    service.enable("ind", master, independent)
    service.wait(independent)
    kept = master.read_bytes()
    for chunk in range(0, 40, 3):
        service.write(master, chunk * CHUNK + 1, b"x" * 1000)
    service.kill()
    service.start()
    assert service.read(dependent) == service.read(independent) == kept
    assert service.status(dependent).shadow_bits == 14
    service.flip("s", independent)
    service.wait(independent)
    assert service.read(independent) == service.read(master)
    assert service.stop() == 0


@pytest.mark.parametrize("options", [(), ("writeback_cache",)])
def test_kernels_limits_of_the_mount_are_lifted(new_service, options):
    """Requests under way bound a group commit; dirty pages, what a writeback cache is good for."""
    service = new_service("app", *options)
    device = os.stat(service.mountpoint).st_dev
    connection = Path(f"/sys/fs/fuse/connections/{os.minor(device)}")
    assert int((connection / "max_background").read_text()) == 128
    assert int((connection / "congestion_threshold").read_text()) == 128
    strict = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/strict_limit")
    assert int(strict.read_text()) == (0 if options else 1)
    assert service.stop() == 0


def test_freed_memory_is_kept_and_threads_have_small_stacks(new_service, volume, place):
    """Locked memory: what is given back and taken anew is filled page by page each time."""
    service, count = new_service("app", "durability=process"), 64
    master = volume("v", count << 20)
    service.enable("dep", master, place / "s")
    with opened(service.path(master)) as fd:
        write_all(fd, count)
        service.flip("s", place / "s")
        calls = memory_calls(service.pid, place, lambda: write_all(fd, count))
    assert calls < count / 4, "three for each request without it"
    maps = Path(f"/proc/{service.pid}/smaps").read_text()
    assert maps.count("Size:               8192 kB") <= 2, "threads have stacks of 8 MiB by default"
    assert service.stop() == 0


def write_all(fd: int, mebibytes: int) -> None:
    piece = bytes(1 << 20)
    for number in range(mebibytes):
        os.pwrite(fd, piece, number << 20)


def memory_calls(pid: int, place: Path, act: Callable[[], None]) -> int:
    """System calls of a process that take or give back memory, while something is done."""
    words = ("-f", "-e", "trace=brk,mmap,munmap,madvise", "-o", place / "calls", "-p", str(pid))
    tracer = subprocess.Popen(["strace", *words], stderr=subprocess.PIPE, text=True)
    try:
        assert "attached" in tracer.stderr.readline()
        act()
    finally:
        tracer.terminate()
        tracer.communicate(timeout=30)
    return len((place / "calls").read_text().splitlines())
