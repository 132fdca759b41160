"""Mappings and the page cache show what the volume holds, and a PIT holds what they took in."""

import contextlib
import errno
import mmap
import os

import pytest
from devices import Mapping, held_open, opened, refuses
from harness import CHUNK

# -- mappings ---------------------------------------------------------------------------------


def test_shared_mapping_writes_through_to_the_volume(disk):
    path, file = disk(size=5 * CHUNK + 1000)
    with opened(file) as fd, mmap.mmap(fd, 5 * CHUNK + 1000) as memory:
        assert memory[:] == path.read_bytes()
        memory[CHUNK - 2 : CHUNK + 2] = b"mmap"
        memory[-4:] = b"last"
        memory.flush()
        raw = path.read_bytes()
        assert raw[CHUNK - 2 : CHUNK + 2] == b"mmap"
        assert raw[-4:] == b"last"
        os.pwrite(fd, b"by write", 100)
        assert memory[100:108] == b"by write"
    assert path.stat().st_size == 5 * CHUNK + 1000


@pytest.mark.parametrize("kind", ["ind", "dep"])
@pytest.mark.parametrize("how", ["fd", "map only"])
def test_stores_through_a_mapping_are_in_the_pit_without_msync(service, volume, place, kind, how):
    master, shadow = volume("v", 20 * CHUNK), place / "v.shadow"
    service.enable(kind, master, shadow)
    service.wait(shadow)
    with contextlib.ExitStack() as stack:
        with opened(service.path(master)) as fd:
            memory = stack.enter_context(Mapping(fd, 20 * CHUNK))
            if how == "fd":
                stack.enter_context(opened(service.path(master)))
        for chunk in range(0, 20, 3):
            memory.store(chunk * CHUNK + 5, b"seen")
        service.flip("s", shadow)
        want = memory.bytes()
        for chunk in range(0, 20, 3):
            memory.store(chunk * CHUNK + 5, b"late")
        memory.sync()
        assert service.read(shadow) == want
    service.wait(shadow)
    assert service.read(shadow) == want


def test_stores_through_a_mapping_are_in_the_shadow_of_a_new_set(service, volume, place, disk):
    path, file = disk("v", 6 * CHUNK)
    with opened(file) as fd, mmap.mmap(fd, 0) as memory:
        memory[CHUNK : CHUNK + 5] = b"early"
        service.enable("dep", path, place / "v.shadow")
        memory[CHUNK : CHUNK + 5] = b"later"
        memory.flush()
        assert service.read(place / "v.shadow")[CHUNK : CHUNK + 5] == b"early"


# -- caches -----------------------------------------------------------------------------------


def cached(file):
    """How many of the file's pages the page cache holds."""
    with opened(file) as fd, Mapping(fd, file.stat().st_size) as memory:
        return memory.resident()


def mapped(file):
    """The content as a mapping shows it."""
    with opened(file) as fd, mmap.mmap(fd, 0) as memory:
        return bytes(memory)


@pytest.mark.parametrize("kind", ["ind", "dep"])
@pytest.mark.parametrize("look", [lambda file: file.read_bytes(), mapped], ids=["read", "map"])
def test_cache_never_shows_old_content_after_a_pit(service, volume, place, kind, look):
    master, shadow = volume("v", 12 * CHUNK + 100), place / "v.shadow"
    service.enable(kind, master, shadow)
    files = service.path(master), service.path(shadow)
    for turn in range(4):
        assert look(files[1]) is not None
        service.write(master, 2 * CHUNK, b"turn %d" % turn)
        service.write(master, 12 * CHUNK + 50, b"end %d" % turn)
        service.flip("s", shadow, full=turn % 2 == 1)
        assert look(files[1]) == look(files[0]) == files[0].read_bytes()
    service.wait(shadow)
    for turn in range(4):
        assert look(files[0]) is not None
        service.write(shadow, 5 * CHUNK, b"back %d" % turn)
        service.write(master, 7 * CHUNK, b"lost %d" % turn)
        want = look(files[1])
        service.flip("m", shadow, full=turn % 2 == 1)
        assert look(files[0]) == look(files[1]) == want
        service.wait(shadow)
        assert look(files[0]) == want


def test_cache_never_shows_old_content_after_a_join(service, new_service, volume, place):
    master, shadow = volume("v", 12 * CHUNK), place / "v.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    assert service.read(shadow) == master.read_bytes()
    assert service.run("iiadm", "-E", shadow).returncode == 0
    other = new_service("backup")
    assert other.run("iiadm", "-I", shadow, place / "second.bmp").returncode == 0
    other.write(shadow, 3 * CHUNK, b"written over there")
    assert other.run("iiadm", "-d", shadow).returncode == 0
    done = service.run("iiadm", "-J", shadow, place / "second.bmp")
    assert done.returncode == 0, done.stderr
    assert service.read(shadow) == shadow.read_bytes()[: 12 * CHUNK]
    assert mapped(service.path(shadow))[3 * CHUNK : 3 * CHUNK + 18] == b"written over there"


def test_cache_is_kept_between_opens_while_the_content_stays(service, volume, place):
    master, shadow = volume("v", 12 * CHUNK), place / "v.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.read(shadow)
    service.read(shadow)
    assert cached(service.path(shadow)) > 0
    service.flip("s", shadow)
    assert cached(service.path(shadow)) > 0, "nothing differed: the content is the same"
    service.write(master, 0, b"new")
    service.flip("s", shadow)
    assert cached(service.path(shadow)) == 0


# -- files that have gone ---------------------------------------------------------------------


def test_disabled_shadow_is_gone_at_once_for_names_and_old_handles(service, volume, place):
    master, shadow = volume("v"), place / "deep/er/v.shadow"
    shadow.parent.mkdir(parents=True)
    service.enable("ind", master, shadow)
    service.wait(shadow)
    file = service.path(shadow)
    assert file.read_bytes() == master.read_bytes()
    with opened(file, os.O_PATH) as name, opened(file.parent, os.O_RDONLY) as directory:
        service.disable(shadow)
        refuses(errno.ENOENT, os.stat, file)
        refuses(errno.ENOENT, os.listdir, file.parent)
        with pytest.raises(OSError) as gone:
            os.open(f"/proc/self/fd/{name}", os.O_RDONLY)
        assert gone.value.errno in (errno.ENOENT, errno.ESTALE)
        try:
            assert os.listdir(directory) == []
        except OSError as error:
            assert error.errno in (errno.ENOENT, errno.ESTALE)
    service.enable("dep", master, shadow, place / "again.bmp")
    assert service.read(shadow) == master.read_bytes()


def test_master_in_use_outlives_its_last_set(service, volume, place):
    master, shadow = volume("v"), place / "v.shadow"
    service.enable("ind", master, shadow)
    service.wait(shadow)
    with held_open(service.path(master)), opened(service.path(master)) as fd:
        done = service.run("iiadm", "-d", shadow)
        assert done.returncode == 0, done.stderr
        assert f"svadm -d {master}" in done.stderr
        os.pwrite(fd, b"goes on", 0)
        assert os.pread(fd, 7, 0) == b"goes on"
    assert master.read_bytes()[:7] == b"goes on"
    service.restart()
    assert service.read(master) == master.read_bytes()
    assert service.run("svadm", "-d", master).returncode == 0
    refuses(errno.ENOENT, os.stat, service.path(master))
