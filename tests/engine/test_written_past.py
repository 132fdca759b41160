"""After a kill: what was written past the service is found out, and nothing else is taken for it.

The record of a quiet file says what its raw file looks like, and says it no more when anything is
about to write there.
"""

import logging
import os

import pytest
import trio
import trio.lowlevel
import trio.testing
from harness import CHUNK
from quiet_sets import CHUNKS, Sets, at_rest, moved, quiet, recorded_header, shown
from real_engine import service

from iifuse.core.header import Stamp
from iifuse.core.state import NOTHING_OFFLINE, Kind, Verb
from iifuse.store.volume import Volume
from iifuse.verbs import enable, exchange, late, loading, pit
from iifuse.verbs.opening import NewSet


@pytest.fixture(autouse=True)
def _silent(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def sets(place):
    return Sets(place)


# -- written past it --------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["there", "late", "twice late"])
@pytest.mark.parametrize("name", ["m", "ind"])
async def test_write_past_a_killed_service_is_found_out(sets, name, how):
    async with service(sets.state, killed=True) as instance:
        await sets.make(instance)
        await sets.view(instance, "m").write(CHUNK, b"through it")
        await quiet(instance)
        before = shown(sets.view(instance, name))
    if how == "there":
        sets.write_past(name)
    else:
        sets.away(name)
        if how == "twice late":
            async with service(sets.state, killed=True) as instance:
                await quiet(instance)
    async with service(sets.state) as instance:
        if how != "there":
            await quiet(instance)
            sets.back(name)
            sets.write_past(name)
            await late.look(instance)
        assert sets.set(instance, "ind").bits.shadow.count() == CHUNKS
        lost = sets.set(instance, "dep").header.offline
        assert bool(lost) == (name == "m"), "its point in time was in part on the master"
        assert moved(before, shown(sets.view(instance, name)))


@pytest.mark.parametrize("how", ["written", "replaced"])
@pytest.mark.parametrize("ordered", [True, False])
async def test_times_of_a_volume_with_no_set_move_when_it_was_written_past_us(
    sets, caplog, how, ordered
):
    async with service(sets.state, killed=True, ordered=ordered) as instance:
        await sets.make(instance)
        await sets.view(instance, "alone").write(0, b"through it")
        await quiet(instance)
        assert sets.view(instance, "alone").target().is_synced, "a power loss brings no older one"
        before = shown(sets.view(instance, "alone"))
    old = sets.file("alone").stat()
    if how == "replaced":
        new = sets.place / "new"
        new.write_bytes(os.urandom(CHUNKS * CHUNK))
        os.rename(new, sets.file("alone"))
        os.utime(sets.file("alone"), ns=(old.st_atime_ns, old.st_mtime_ns))
    else:
        sets.write_past("alone")
    caplog.set_level(logging.WARNING)
    async with service(sets.state) as instance:
        assert moved(before, shown(sets.view(instance, "alone")))
    assert f"{sets.file('alone')}: was written or replaced" in caplog.text


# -- not written past it ----------------------------------------------------------------------


async def write_master(sets, instance):
    await sets.view(instance, "m").write(CHUNK, b"through it")


async def write_shadow(sets, instance):
    await sets.view(instance, "ind").write(CHUNK, b"through it")


async def write_dependent(sets, instance):
    await sets.view(instance, "dep").write(CHUNK, b"through it")


async def update(sets, instance):
    await write_master(sets, instance)
    await quiet(instance)
    both = [sets.set(instance, "ind"), sets.set(instance, "dep")]
    await pit.make(instance, Verb.UPDATE_SHADOW, both)


async def copy_of_what_is_equal(sets, instance):
    await pit.make(instance, Verb.COPY_SHADOW, [sets.set(instance, "ind")])


async def restore(sets, instance):
    await write_master(sets, instance)
    await quiet(instance)
    await pit.make(instance, Verb.UPDATE_MASTER, [sets.set(instance, "ind")])


async def restore_of_what_is_equal(sets, instance):
    await pit.make(instance, Verb.COPY_MASTER, [sets.set(instance, "ind")])


async def rename_and_chmod(sets, instance):
    for name in ("m", "ind"):
        beside = sets.place / name / "beside"
        os.rename(sets.file(name), beside)
        os.rename(beside, sets.file(name))
        sets.file(name).chmod(0o640)


async def enable_another(sets, instance):
    for name in ("more", "more.b"):
        sets.file(name).parent.mkdir()
    paths = map(str, (sets.file("m"), sets.file("more"), sets.file("more.b")))
    member = await enable.enable(instance, NewSet(Kind.INDEPENDENT, *paths))
    await at_rest(instance, member)


async def export(sets, instance):
    await exchange.export(instance, sets.set(instance, "ind"))
    assert recorded_header(sets.file("ind.b")).shadow_stamp == Stamp()
    sets.write_past("ind")  # whoever imports it does


ACTS = [
    write_master, write_shadow, write_dependent, update, copy_of_what_is_equal, restore,
    restore_of_what_is_equal, rename_and_chmod, enable_another, export,
]  # fmt: skip


@pytest.mark.parametrize("settles", [False, True])
@pytest.mark.parametrize("act", ACTS)
async def test_nothing_else_is_taken_for_a_write_past_us(sets, caplog, act, settles):
    """At the kill all copies are complete, and nothing or everything was recorded after them."""
    caplog.set_level(logging.WARNING)
    async with service(sets.state, killed=True) as instance:
        await sets.make(instance)
        await quiet(instance)
        await act(sets, instance)
        for member in instance.sets.values():
            await at_rest(instance, member)
        if settles:
            await quiet(instance)
    async with service(sets.state) as instance:
        assert "written" not in caplog.text
        for member in instance.sets.values():
            assert not member.state.offline, member.header.offline_reason


async def test_write_while_a_late_shadow_comes_back_is_nobody_elses(sets, monkeypatch):
    """The master is in use meanwhile, and its stamp goes with the first write."""
    async with service(sets.state) as instance:
        await sets.make(instance)
    sets.away("ind")
    async with service(sets.state) as instance, trio.open_nursery() as nursery:
        await quiet(instance)
        sets.back("ind")
        find = loading._find_shadow

        def write_and_find(*what):
            write = sets.view(instance, "m").write
            trio.from_thread.run_sync(nursery.start_soon, write, CHUNK, b"through it")
            while b"through it" not in sets.file("m").read_bytes():
                trio.from_thread.run(trio.lowlevel.checkpoint)
            return find(*what)

        monkeypatch.setattr(loading, "_find_shadow", write_and_find)
        await late.look(instance)
        ind = sets.set(instance, "ind")
        assert (ind.missing, ind.state.offline) == ({}, NOTHING_OFFLINE)
        assert ind.bits.shadow.count() == 1


@pytest.mark.parametrize("act", ACTS)
async def test_no_byte_is_written_while_a_stamp_of_the_volume_stands_on_disk(
    sets, monkeypatch, act
):
    written = set()

    def watched(real):
        def call(volume, *what):
            if not volume.path.endswith(".b/volume"):
                written.add(volume.path)
                assert Stamp() == stamp_on_disk(volume.path), volume.path
            return real(volume, *what)

        return call

    def stamp_on_disk(path):
        for bitmap in sets.place.glob("*.b/volume"):
            header = recorded_header(bitmap)
            both = (header.master, header.master_stamp), (header.shadow, header.shadow_stamp)
            for name, looks in both:
                if name == path and looks != Stamp() and looks.mtime_ns:
                    return looks
        return Stamp()

    async with service(sets.state) as instance:
        await sets.make(instance)
        await quiet(instance)
        for name in ("write", "zero"):
            monkeypatch.setattr(Volume, name, watched(getattr(Volume, name)))
        for _ in range(2):
            await act(sets, instance)
            for member in instance.sets.values():
                await at_rest(instance, member)
            if act in (enable_another, export):
                break
            await quiet(instance)
    assert written or act in (rename_and_chmod, export)


@pytest.mark.parametrize("when", ["before it is synced", "when it is recorded"])
async def test_write_that_comes_while_a_file_is_recorded_as_quiet_finds_no_stamp(sets, when):
    """The file is looked at twice: before the sync, and with the record of its times held."""
    async with service(sets.state) as instance, trio.open_nursery() as nursery:
        await sets.make(instance)
        view, bitmap = sets.view(instance, "m"), sets.file("ind.b")
        await view.write(0, b"x")
        real, write, seen, asked = view.quiet_stamp, view.target().write, [], []

        def quiet_stamp():
            asked.append(when)
            if len(asked) == 1 + (when == "when it is recorded"):
                trio.from_thread.run_sync(nursery.start_soon, view.write, 0, b"y")
                trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
            return real()

        def look_and_write(*what):
            seen.append(recorded_header(bitmap).master_stamp)
            return write(*what)

        view.quiet_stamp, view.target().write = quiet_stamp, look_and_write
        await instance.timekeeper.record_exact(view)
        while not seen:
            await trio.lowlevel.checkpoint()
        assert seen == [Stamp()]
        assert recorded_header(bitmap).master_stamp == Stamp()
        await instance.timekeeper.record_exact(view)
        assert recorded_header(bitmap).master_stamp == real()


async def test_stamp_stands_only_while_nothing_writes(sets):
    async with service(sets.state) as instance:
        await sets.make(instance)
        await quiet(instance)
        ind, dep = sets.set(instance, "ind"), sets.set(instance, "dep")
        found = sets.file("m").stat()
        looks = Stamp(found.st_size, found.st_mtime_ns)
        assert [ind.header.master_stamp, dep.header.master_stamp] == [looks, looks]
        assert ind.header.shadow_stamp.mtime_ns == sets.file("ind").stat().st_mtime_ns
        assert dep.header.shadow_stamp == Stamp(), "what is preserved goes there"
        await write_master(sets, instance)
        assert [ind.header.master_stamp, dep.header.master_stamp] == [Stamp(), Stamp()]
        assert ind.header.shadow_stamp != Stamp()
        await quiet(instance)
        assert ind.header.master_stamp != Stamp()
        seen = []

        async def times_moved(views):
            seen.extend(recorded_header(sets.file(f"{name}.b")) for name in ("ind", "dep"))

        instance.hooks.times_moved = times_moved
        await pit.make(instance, Verb.COPY_MASTER, [ind])
        assert [header.master_stamp for header in seen] == [Stamp(), Stamp()], "when writes go on"
        await at_rest(instance, ind)


async def test_stamp_is_not_kept_of_a_file_that_changes_while_it_is_synced(sets):
    async with service(sets.state) as instance:
        await sets.make(instance)
        await quiet(instance)
        view = sets.view(instance, "m")
        await view.write(0, b"x")
        real = view.target().sync_times

        def sync_times():
            real()
            sets.write_past("m")

        view.target().sync_times = sync_times
        await quiet(instance)
        assert sets.set(instance, "ind").header.master_stamp == Stamp()
