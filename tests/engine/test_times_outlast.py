"""The times of a file outlast the set, and the bitmap volume, that knew them best."""

import logging

import pytest
from harness import CHUNK
from quiet_sets import Sets, at_rest, moved, quiet, shown
from real_engine import service

from iifuse.core.state import Kind, Role, Verb
from iifuse.engine import enable, late, pit, reset
from iifuse.engine.opening import NewSet


@pytest.fixture(autouse=True)
def _silent(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def sets(place):
    return Sets(place)


async def test_times_of_a_restored_master_outlast_the_set_that_restored_it(sets):
    async with service(sets.state, killed=True) as engine:
        await sets.make(engine)
        await sets.view(engine, "m").write(CHUNK, b"through it")
        await quiet(engine)
        before = shown(sets.view(engine, "m"))
        await pit.flip(engine, Verb.UPDATE_MASTER, [sets.set(engine, "ind")])
        await at_rest(engine, sets.set(engine, "ind"))
        restored = shown(sets.view(engine, "m"))
        assert moved(before, restored)
        await enable.disable(engine, sets.set(engine, "ind"))
    async with service(sets.state) as engine:
        assert shown(sets.view(engine, "m"))[1] >= restored[1]


async def test_times_of_a_master_that_svadm_keeps_outlast_its_last_set(sets, monkeypatch):
    """Also where the service is killed before it has told the state database."""
    future = 2_000_000_000 * 10**9
    async with service(sets.state, killed=True) as engine:
        await sets.make(engine)
        path = str(sets.file("alone"))
        for name in ("more", "more.b"):
            sets.file(name).parent.mkdir()
        names = path, str(sets.file("more")), str(sets.file("more.b"))
        member = await enable.enable(engine, NewSet(Kind.INDEPENDENT, *names))
        await at_rest(engine, member)
        view = engine.views[path]
        await view.set_mtime(future, None)
        await view.write(0, b"after that")
        before = shown(view)

        async def killed(*what):
            raise KeyboardInterrupt

        monkeypatch.setattr(enable, "after_last_set", killed)
        with pytest.raises(KeyboardInterrupt):
            await enable.disable(engine, member)
    async with service(sets.state) as engine:
        assert shown(engine.views[path])[1] >= before[1]


@pytest.mark.parametrize("name", ["m", "dep"])
async def test_times_never_go_back_when_a_late_bitmap_returns(sets, name):
    """The record that returns lies in the future, as after a clock that was set back."""
    future = 2_000_000_000 * 10**9
    async with service(sets.state) as engine:
        await sets.make(engine)
        await pit.flip(engine, Verb.UPDATE_SHADOW, [sets.set(engine, "ind")])
        await at_rest(engine, sets.set(engine, "ind"))
        await enable.disable(engine, sets.set(engine, "ind"))
        view = sets.view(engine, name)
        await view.set_mtime(future, None)
        await view.write(0, b"after that")
        before = shown(view)
    sets.away("dep.b")
    async with service(sets.state, killed=True) as engine:
        sets.back("dep.b")
        await late.look(engine)
        assert not sets.set(engine, "dep").missing
        after = shown(sets.view(engine, name))
        assert moved(before, after)
    async with service(sets.state) as engine:
        assert shown(sets.view(engine, name))[1] >= after[1]


@pytest.mark.parametrize("name", ["m", "dep"])
async def test_times_never_go_back_when_a_bitmap_that_was_late_is_reset(sets, name):
    """It came when a write had cost it its trust; its record of times is true all the same."""
    future = 2_000_000_000 * 10**9
    async with service(sets.state) as engine:
        await sets.make(engine)
        await enable.disable(engine, sets.set(engine, "ind"))
        view = sets.view(engine, name)
        await view.set_mtime(future, None)
        await view.write(0, b"after that")
        before = shown(view)
    sets.away("dep.b")
    async with service(sets.state, killed=True) as engine:
        await sets.view(engine, "m").write(CHUNK, b"noted nowhere")
        dep = sets.set(engine, "dep")
        assert dep.state.offline & Role.BITMAP
        sets.back("dep.b")
        await reset.reset(engine, dep)
        assert not dep.state.offline
        assert moved(before, shown(sets.view(engine, name)))
