"""Calls that were given up at a start, or while a volume comes back: nobody relies on them (K8)."""

import sqlite3
import threading
from functools import partial

import pytest
import trio
from harness import CHUNK
from quiet_sets import CHUNKS, Sets, quiet
from real_engine import service

from iifuse import errors
from iifuse.core.sector import bitmap_bytes
from iifuse.core.state import Kind
from iifuse.loop import lookout
from iifuse.store.bitmapfile import BitmapFile
from iifuse.verbs import enable, late, loading, recovery
from iifuse.verbs.opening import NewSet

SHORT_S = 0.2


@pytest.fixture
def sets(place):
    return Sets(place)


@pytest.fixture
def hanging(monkeypatch):
    """Make the first call of a function for a volume hang until the test ends, or it is let go."""
    monkeypatch.setattr(recovery, "BULK_S", SHORT_S)
    monkeypatch.setattr(loading, "BULK_S", SHORT_S)
    monkeypatch.setattr(lookout, "PATIENCE_S", SHORT_S)
    go, began = threading.Event(), []

    def make(what, name, is_it=lambda *_: True):
        own = getattr(what, name)

        def instead(*words):
            if is_it(*words) and not began:
                began.append(name)
                go.wait(60)
                go.error()
            return own(*words)

        monkeypatch.setattr(what, name, instead)
        return go

    go.error = lambda: None
    yield make
    go.set()


def of(name):
    """Is a call about a set?"""
    return lambda *words: any(name in str(getattr(word, "name", word)) for word in words)


async def content_of(sets, instance, name):
    return await sets.view(instance, name).read(0, CHUNKS * CHUNK)


async def test_set_that_a_start_left_out_is_not_believed_at_the_next(sets, hanging, monkeypatch):
    """Nobody noted what was written meanwhile."""
    async with service(sets.state, killed=True) as instance:
        await sets.make(instance)
        await quiet(instance)
        await sets.view(instance, "m").write(0, b"no stamp stands for this")
    with sqlite3.connect(sets.state / "state.db") as db:  # the enable was cut short
        db.execute("UPDATE sets SET entering = 1 WHERE shadow = ?", (str(sets.file("dep")),))
    with monkeypatch.context():
        hanging(recovery, "has_header").error = lambda: None
        async with service(sets.state) as instance:
            assert str(sets.file("dep")) not in instance.sets
            await sets.view(instance, "m").write(2 * CHUNK, b"noted nowhere")
    monkeypatch.undo()
    async with service(sets.state) as instance:
        assert sets.set(instance, "dep").state.offline


async def test_load_that_was_left_alone_notes_no_failure(sets, hanging):
    async with service(sets.state) as instance:
        await sets.make(instance)

    def fail():
        raise OSError(5, "Input/output error")

    go = hanging(BitmapFile, "read_header", lambda bitmap: "dep" in bitmap.volume.path)
    go.error = fail
    async with service(sets.state) as instance:
        member = sets.set(instance, "dep")
        assert member.missing
        go.set()
        while instance.lookout.silent:  # noqa: ASYNC110 - of a thread
            await trio.sleep(0.01)
        await late.look(instance)
        assert not member.missing
    async with service(sets.state) as instance:
        assert not sets.set(instance, "dep").state.offline


async def test_open_shadow_stays_open_though_a_look_at_its_path_hangs(sets, hanging):
    async with service(sets.state) as instance:
        await sets.make(instance)
    sets.away("m")
    async with service(sets.state) as instance:
        member = sets.set(instance, "ind")
        shadow, go = member.shadow, threading.Event()
        assert await instance.lookout.look({member.name: partial(go.wait, 60)}) == {}
        sets.back("m")
        await late.look(instance)
        go.set()
        assert member.shadow is shadow
        assert not member.missing


async def test_disable_that_was_cut_short_is_finished_when_the_shadow_answers(
    sets, hanging, monkeypatch
):
    def cut(*_):
        raise errors.StorageError("", "cut short")

    with monkeypatch.context() as patch:
        patch.setattr(enable, "wipe", cut)
        async with service(sets.state) as instance:
            await sets.make(instance)
            await sets.view(instance, "m").write(0, b"preserved")
            await enable.disable(instance, sets.set(instance, "dep"))
    raw = sets.file("dep").read_bytes()
    go = hanging(loading, "_find_shadow", of("dep"))
    async with service(sets.state):
        go.set()
    assert sets.file("dep").read_bytes() == raw
    async with service(sets.state):
        pass
    assert sets.file("dep").read_bytes() != raw


async def test_master_is_looked_at_again_when_a_late_set_comes_to_it(sets, place, monkeypatch):
    """It is written while the set's shadow is looked at."""
    async with service(sets.state) as instance:
        await sets.make(instance)
        content = await content_of(sets, instance, "dep")
    sets.away("m")
    async with service(sets.state) as instance:
        sets.back("m")
        (place / "new.b").write_bytes(bytes(bitmap_bytes(CHUNKS)))
        names = str(sets.file("m")), str(place / "new.s"), str(place / "new.b")
        await enable.enable(instance, NewSet(Kind.DEPENDENT, *names))
        own, view = loading._look_at_shadow, sets.view(instance, "m")

        async def look_and_write(here, member, *more):
            await own(here, member, *more)
            if member is sets.set(instance, "dep"):
                await view.write(2 * CHUNK, b"meanwhile")

        monkeypatch.setattr(loading, "_look_at_shadow", look_and_write)
        await late.look(instance)
        member = sets.set(instance, "dep")
        assert member.state.offline or await content_of(sets, instance, "dep") == content
