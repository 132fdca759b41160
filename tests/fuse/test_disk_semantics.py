"""The files of the mount behave as disks do, whatever program opens them and however."""

import errno
import os
import random
import shutil
import stat
import threading
from pathlib import Path

import pytest
from devices import aligned, eventually, opened, refuses
from harness import CHUNK

SIZES = [1, 511, 512, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK + 1000]


def extents(size, count, seed):
    """Random extents inside a volume, those at chunk borders and at the end among them."""
    dice = random.Random(seed)
    for _ in range(count):
        at = dice.randrange(size)
        if dice.random() < 0.3:
            at = min(size - 1, max(0, at // CHUNK * CHUNK + dice.randint(-3, 3)))
        length = dice.choice([1, 2, 511, 512, 4096, 5000, CHUNK, 2 * CHUNK + 1])
        yield at, min(length, size - at)


# -- any offset, any length -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "ind", "dep"])
def test_any_extent_reads_and_writes_as_on_a_disk(service, volume, place, kind):
    """F31: sizes from one byte on."""
    masters = [volume(f"v{size}", size) for size in SIZES]
    files = {service.path(master): bytearray(master.read_bytes()) for master in masters}
    if kind == "none":
        assert service.run("svadm", "-e", *masters).returncode == 0
    else:
        for master in masters:
            shadow = master.with_suffix(".shadow")
            service.enable(kind, master, shadow)
            files[service.path(shadow)] = bytearray(master.read_bytes())
    for file, truth in files.items():
        size = len(truth)
        with opened(file) as fd:
            for at, length in extents(size, 60, size):
                data = os.urandom(length)
                assert os.pwrite(fd, data, at) == length
                truth[at : at + length] = data
            for at, length in extents(size, 60, size + 1):
                assert os.pread(fd, length, at) == truth[at : at + length]
    for file, truth in files.items():
        assert file.read_bytes() == truth
        assert file.stat().st_size == len(truth)
    assert service.stop() == 0
    assert [m.read_bytes() for m in masters] == [*files.values()][: len(masters)]


@pytest.mark.parametrize("size", [1, 1000, CHUNK, 3 * CHUNK + 5])
def test_end_of_the_volume_answers_as_a_device_does(disk, size):
    """F31: nothing is read or written past the end."""
    path, file = disk(size=size)
    before = path.read_bytes()
    with opened(file) as fd:
        refuses(errno.ENOSPC, os.pwrite, fd, b"x", size)
        refuses(errno.ENOSPC, os.pwrite, fd, b"x" * 5000, size + 1_000_000)
        assert os.pread(fd, 100, size) == b""
        assert os.pread(fd, 100, size + 999_999) == b""
        assert os.pread(fd, 100, size - 1) == before[-1:]
        assert os.pwrite(fd, b"ZYX", size - 1) == 1
        assert os.lseek(fd, 0, os.SEEK_END) == size
    with opened(file, os.O_WRONLY | os.O_APPEND) as fd:
        refuses(errno.ENOSPC, os.write, fd, b"x")
    assert file.stat().st_size == size
    assert path.read_bytes() == before[:-1] + b"Z"


# -- ways to open -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [os.O_DIRECT, os.O_SYNC, os.O_DSYNC, os.O_DIRECT | os.O_DSYNC, os.O_DIRECT | os.O_SYNC],
)
def test_direct_and_synchronous_writes_reach_the_volume(service, volume, place, flags):
    master, shadow = volume("v", 8 * CHUNK), place / "v.shadow"
    service.enable("dep", master, shadow)
    old = master.read_bytes()
    data = aligned(8192)
    data.write(os.urandom(8192))
    with opened(service.path(master), os.O_RDWR | flags) as fd:
        assert os.pwritev(fd, [data], CHUNK - 4096) == 8192
        assert os.pwritev(fd, [data], 5 * CHUNK, os.RWF_DSYNC) == 8192
        back = aligned(8192)
        assert os.preadv(fd, [back], CHUNK - 4096) == 8192
    assert back[:] == data[:]
    raw = master.read_bytes()
    assert raw[CHUNK - 4096 : CHUNK + 4096] == raw[5 * CHUNK : 5 * CHUNK + 8192] == data[:]
    assert service.read(shadow) == old


def test_direct_read_at_the_odd_end_is_short(disk):
    path, file = disk(size=3 * 4096 + 100)
    buffer = aligned(8192)
    with opened(file, os.O_RDWR | os.O_DIRECT) as fd:
        assert os.preadv(fd, [buffer], 2 * 4096) == 4096 + 100
        assert buffer[: 4096 + 100] == path.read_bytes()[2 * 4096 :]
        assert os.preadv(fd, [buffer], 4 * 4096) == 0


def test_fsync_of_every_kind_succeeds(service, volume, place):
    master, shadow = volume("v"), place / "v.shadow"
    service.enable("ind", master, shadow)
    for file in (service.path(master), service.path(shadow)):
        with opened(file) as fd:
            os.pwrite(fd, b"synced", 77)
            os.fsync(fd)
            os.fdatasync(fd)
            os.fsync(fd)
        with opened(file.parent, os.O_RDONLY | os.O_DIRECTORY) as fd:
            os.fsync(fd)
    os.sync()
    assert service.read(master)[77:83] == b"synced"


# -- many at once -----------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, os.O_DIRECT, os.O_DSYNC])
def test_parallel_writers_and_readers_see_only_whole_writes(service, volume, place, flags):
    chunks = 32
    master, shadow = volume("v", chunks * CHUNK), place / "v.shadow"
    service.enable("dep", master, shadow)
    old = master.read_bytes()
    failures = []

    def work(number):
        dice = random.Random(number)
        buffer = aligned(4096)
        with opened(service.path(master), os.O_RDWR | flags) as fd:
            for turn in range(40):
                # every worker has a page of its own in each chunk
                at = dice.randrange(chunks) * CHUNK + number * 4096
                buffer[:] = bytes([number << 4 | turn & 15]) * 4096
                os.pwritev(fd, [buffer], at)
                back = aligned(4096)
                os.preadv(fd, [back], at)
                if back[:] != buffer[:]:
                    failures.append((number, turn))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert service.read(shadow) == old
    assert service.read(master) == master.read_bytes()
    changed = sum(
        master.read_bytes()[n * CHUNK : (n + 1) * CHUNK] != old[n * CHUNK : (n + 1) * CHUNK]
        for n in range(chunks)
    )
    assert service.status(shadow).shadow_bits == changed


def test_many_open_handles_work_side_by_side(service, disk):
    path, file = disk()
    descriptors = [os.open(file, os.O_RDWR) for _ in range(200)]
    try:
        for number, fd in enumerate(descriptors):
            os.pwrite(fd, number.to_bytes(2, "big"), number * 2)
        assert all(os.pread(fd, 400, 0) == path.read_bytes()[:400] for fd in descriptors)
        (row,) = service.run("svadm", "-i", path).stdout.splitlines()
        assert "open 200" in row
    finally:
        for fd in descriptors:
            os.close(fd)


# -- what a disk does not do ------------------------------------------------------------------


def test_size_cannot_be_changed(disk):
    path, file = disk(size=2 * CHUNK + 7)
    before = path.read_bytes()
    for flags in (os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_TRUNC, os.O_CREAT | os.O_TRUNC):
        refuses(errno.EPERM, os.open, file, flags | os.O_WRONLY)
    for size in (0, 1, 2 * CHUNK, 2 * CHUNK + 8, 1 << 40):
        refuses(errno.EPERM, os.truncate, file, size)
    with opened(file) as fd:
        refuses(errno.EPERM, os.ftruncate, fd, 0)
        os.ftruncate(fd, 2 * CHUNK + 7)
        assert os.pread(fd, 1 << 20, 0) == before
    os.truncate(file, 2 * CHUNK + 7)
    with opened(file, os.O_CREAT | os.O_RDWR) as fd:  # it is there: nothing is created
        assert os.fstat(fd).st_size == 2 * CHUNK + 7
    assert file.read_bytes() == path.read_bytes() == before
    assert file.stat().st_size == 2 * CHUNK + 7


def test_names_come_and_go_by_command_only(service, disk):
    path, file = disk()
    before = path.read_bytes()
    new = file.with_name("new")
    refuses(errno.EPERM, os.unlink, file)
    refuses(errno.EPERM, os.open, new, os.O_CREAT | os.O_WRONLY)
    refuses(errno.EPERM, os.mkdir, new)
    refuses(errno.EPERM, os.rename, file, new)
    refuses(errno.EPERM, os.link, file, new)
    refuses(errno.EPERM, os.symlink, file, new)
    refuses(errno.EPERM, os.mkfifo, new)
    refuses(errno.EPERM, os.rmdir, file.parent)
    refuses(errno.ENOENT, os.stat, new)
    assert os.listdir(file.parent) == [file.name]
    assert file.read_bytes() == path.read_bytes() == before


def test_owner_and_mode_are_the_volumes(service, volume):
    path = volume("v")
    os.chmod(path, 0o640)
    os.chown(path, 1234, 4321)
    assert service.run("svadm", "-e", path).returncode == 0
    file = service.path(path)
    found = file.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1234, 4321)
    assert stat.S_ISREG(found.st_mode)
    refuses(errno.EPERM, os.chmod, file, 0o666)
    refuses(errno.EPERM, os.chown, file, 0, 0)
    os.chmod(file, 0o640)  # what it is already
    os.utime(file, (1_000_000_000, 1_000_000_000))
    assert file.stat().st_mtime == 1_000_000_000
    found = path.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 1234, 4321)


def test_owner_and_mode_follow_a_change_of_the_volume(disk):
    path, file = disk()
    os.chmod(path, 0o444)
    os.chown(path, 55, 66)

    def follows():
        found = file.stat()
        return (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o444, 55, 66)

    eventually(follows, "the file of the mount has the volume's new owner and mode")


# -- directories ------------------------------------------------------------------------------


def test_directories_show_exactly_what_is_under_control(service, volume, place):
    names = [f"many/v{n:03}" for n in range(100)]
    for name in names:
        volume(name, 512)
    deep = volume("a/b/c/d/deep volume ü", 512)
    done = service.run("svadm", "-e", *[place / n for n in names], deep)
    assert done.returncode == 0, done.stderr
    top = service.path(place)
    assert sorted(os.listdir(top)) == ["a", "many"]
    assert sorted(os.listdir(top / "many")) == [f"v{n:03}" for n in range(100)]
    with os.scandir(top / "many") as entries:
        assert all(entry.is_file(follow_symlinks=False) for entry in entries)
    assert service.path(deep).read_bytes() == deep.read_bytes()
    found = (top / "a").stat()
    assert stat.S_ISDIR(found.st_mode)
    inodes = {(top / "many" / f"v{n:03}").stat().st_ino for n in range(100)}
    assert len(inodes) == 100
    assert service.run("svadm", "-d", deep).returncode == 0
    assert os.listdir(top) == ["many"]
    refuses(errno.ENOENT, os.stat, top / "a")
    service.restart()
    assert {(top / "many" / f"v{n:03}").stat().st_ino for n in range(100)} == inodes


def test_statfs_of_the_mount_answers(service, disk):
    disk()
    assert os.statvfs(service.mountpoint).f_namemax == 255
    assert shutil.disk_usage(service.mountpoint).total >= 0


# -- block devices and links ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_block_devices_serve_as_master_shadow_and_bitmap(service, volume, attach, kind):
    paths = [volume("m", 20 * CHUNK), volume("s", 21 * CHUNK), volume("b", 2 * CHUNK)]
    master, shadow, bitmap = map(attach, paths)
    before = paths[0].read_bytes()
    service.enable(kind, master, shadow, bitmap)
    service.wait(shadow)
    assert service.path(shadow).stat().st_size == 20 * CHUNK
    assert stat.S_ISREG(service.path(master).stat().st_mode)
    assert service.read(master) == service.read(shadow) == before
    service.write(master, 3 * CHUNK + 100, b"m" * 40000)
    service.write(shadow, 9 * CHUNK, b"s" * 100)
    assert service.read(shadow)[: 9 * CHUNK] == before[: 9 * CHUNK]
    refuses(errno.EBUSY, os.open, master, os.O_RDWR | os.O_EXCL)
    service.flip("s", shadow)
    service.wait(shadow)
    want = before[: 3 * CHUNK + 100] + b"m" * 40000 + before[3 * CHUNK + 40100 :]
    assert service.read(shadow) == service.read(master) == want
    with opened(service.path(master)) as fd:
        refuses(errno.ENOSPC, os.pwrite, fd, b"x", 20 * CHUNK)
    service.restart()
    assert service.read(shadow) == service.read(master) == want
    service.kill()
    service.start()
    assert service.read(shadow) == service.read(master) == want
    assert service.stop() == 0
    assert Path(master).read_bytes() == want


def test_linked_names_are_kept_as_typed_and_followed(service, volume, place):
    master, other = volume("real/m"), volume("real/other")
    link = place / "by-id" / "m"
    link.parent.mkdir()
    link.symlink_to(master)
    shadow = place / "by-id" / "s"
    (place / "real/s").write_bytes(bytes(master.stat().st_size))
    shadow.symlink_to("../real/s")
    service.enable("ind", link, shadow, place / "s.bmp")
    service.wait(shadow)
    assert sorted(os.listdir(service.path(link.parent))) == ["m", "s"]
    assert service.status(shadow).master == str(link)
    service.write(link, 10, b"through the link")
    assert master.read_bytes()[10:26] == b"through the link"
    assert (place / "real/s").read_bytes()[10:26] != b"through the link"
    assert link.is_symlink()
    service.restart()
    assert service.read(link) == master.read_bytes()
    assert service.status(shadow).shadow_bits == 1
    assert other.read_bytes() != master.read_bytes()
