"""What is wrong with one volume keeps no other one from coming back."""

import errno
import logging
import os
from dataclasses import replace

import pytest
import trio
from harness import CHUNK
from quiet_sets import at_rest
from real_engine import service

from iifuse.core.state import Kind, Role
from iifuse.data.chunklock import Mode
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import open_volume
from iifuse.verbs import enable, late, loading
from iifuse.verbs.opening import NewSet


@pytest.fixture
def names(place):
    """Names of the master, shadow and bitmap of a set whose master and shadow lie on a disk."""
    (place / "disk").mkdir()

    def make(name):
        master, shadow = place / "disk" / f"{name}.m", place / "disk" / f"{name}.s"
        master.write_bytes(os.urandom(4 * CHUNK))
        return str(master), str(shadow), str(place / f"{name}.b")

    return make


async def add(instance, paths, kind=Kind.INDEPENDENT):
    member = await enable.enable(instance, NewSet(kind, *paths))
    await at_rest(instance, member)
    return member


def set_of(instance, paths):
    return instance.sets[paths[1]]


async def test_volume_that_cannot_be_looked_at_is_its_sets_affair(
    place, names, monkeypatch, caplog
):
    """In place, an open file is asked for its links, and a file system that has shut down fails."""
    good, bad = names("good"), names("bad")
    async with service(place / "state") as instance:
        await add(instance, good)
        await add(instance, bad)
    os.rename(good[1], place / "away")
    async with service(place / "state") as instance:
        instance.hooks.in_place = True
        volume = set_of(instance, bad).shadow

        def fail():
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(volume, "stat", fail)
        os.rename(place / "away", good[1])
        await late.look(instance)
        assert not set_of(instance, good).missing
        assert not set_of(instance, bad).missing
        monkeypatch.undo()
        instance.hooks.in_place = False
    assert not [r for r in caplog.records if r.exc_info]


async def test_set_that_cannot_be_taken_back_is_told_of_once_and_the_next_is(
    place, names, monkeypatch, caplog
):
    bad, good = names("bad"), names("good")
    async with service(place / "state") as instance:
        await add(instance, bad)
        await add(instance, good)
    os.rename(place / "disk", place / "away")
    async with service(place / "state") as instance:
        os.rename(place / "away", place / "disk")
        real = loading.look_at_volumes

        async def fails_for_one(instance, member, *more):
            if member.name == bad[1]:
                raise OSError(errno.EIO, "Input/output error")
            await real(instance, member, *more)

        monkeypatch.setattr(loading, "look_at_volumes", fails_for_one)
        for _ in range(3):
            await late.look(instance)
        assert not set_of(instance, good).missing
        assert set_of(instance, bad).missing
        monkeypatch.undo()
        await late.look(instance)
        assert not set_of(instance, bad).missing, "its master could be opened again"
    told = [r for r in caplog.records if "failed" in r.message]
    assert [r.message for r in told] == [
        f"{bad[0]}: to take the master back failed: [Errno 5] Input/output error",
        f"{bad[1]}: to take the shadow back failed: [Errno 5] Input/output error",
    ]
    assert not any(r.exc_info for r in told)


async def test_shadow_comes_back_although_the_header_has_its_master_offline(place, names, caplog):
    """As 0.1.0 noted a master that was not there; nothing waits for it then."""
    caplog.set_level(logging.CRITICAL)
    noted, other = names("noted"), names("other")
    async with service(place / "state") as instance:
        await add(instance, noted)
        await add(instance, other)
    bitmap = BitmapFile(open_volume(noted[2], exclusive=False))
    header = bitmap.read_header()
    bitmap.write_header(replace(header, offline=Role.MASTER, offline_reason="not there"))
    bitmap.volume.close()
    os.rename(place / "disk", place / "away")
    async with service(place / "state") as instance:
        os.rename(place / "away", place / "disk")
        await late.look(instance)
        assert set_of(instance, noted).shadow is not None
        assert not set_of(instance, other).missing


@pytest.mark.parametrize("back", [0, 1])
async def test_sets_that_mean_different_files_by_one_master_path(place, names, caplog, back):
    """That whose file it is goes on, and the other says that another one stands there."""
    caplog.set_level(logging.CRITICAL)
    first, second = names("x"), names("y")
    second = (first[0], *second[1:])
    async with service(place / "state") as instance:
        await add(instance, first)
    os.rename(first[0], place / "0")
    (place / "1").write_bytes(os.urandom(4 * CHUNK))
    os.rename(place / "1", first[0])
    async with service(place / "state") as instance:
        await add(instance, second)
    os.rename(first[0], place / "1")
    async with service(place / "state") as instance:
        os.rename(place / str(back), first[0])
        await late.look(instance)
        missing = [set_of(instance, paths).missing for paths in (first, second)]
        assert not missing[back]
        assert missing[1 - back][Role.MASTER].stranger


async def test_volumes_that_came_back_while_writes_ran_are_closed_until_the_next_look(
    place, names, monkeypatch, caplog
):
    caplog.set_level(logging.CRITICAL)
    paths = names("s")
    async with service(place / "state") as instance:
        await add(instance, paths, Kind.DEPENDENT)
    os.rename(place / "disk", place / "away")
    async with service(place / "state") as instance:
        os.rename(place / "away", place / "disk")
        family = instance.family(set_of(instance, paths))
        monkeypatch.setattr(late, "GATE_S", 0.01)
        async with family.locks.hold(Mode.WRITE, 0, 1):
            with trio.fail_after(60):
                await late.look(instance)
        assert set_of(instance, paths).missing
        await late.look(instance)
        assert not set_of(instance, paths).missing
