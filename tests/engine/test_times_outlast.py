"""The times of a file outlast the set, and the bitmap volume, that knew them best."""

import logging

import pytest
from harness import CHUNK
from quiet_sets import Sets, at_rest, moved, quiet, shown
from real_engine import service

from iifuse.core.state import Kind, Role, Verb
from iifuse.verbs import enable, late, pit, reset
from iifuse.verbs.opening import NewSet


@pytest.fixture(autouse=True)
def _silent(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def sets(place):
    return Sets(place)


async def test_times_of_a_restored_master_outlast_the_set_that_restored_it(sets):
    async with service(sets.state, killed=True) as instance:
        await sets.make(instance)
        await sets.view(instance, "m").write(CHUNK, b"through it")
        await quiet(instance)
        before = shown(sets.view(instance, "m"))
        await pit.make(instance, Verb.UPDATE_MASTER, [sets.set(instance, "ind")])
        await at_rest(instance, sets.set(instance, "ind"))
        restored = shown(sets.view(instance, "m"))
        assert moved(before, restored)
        await enable.disable(instance, sets.set(instance, "ind"))
    async with service(sets.state) as instance:
        assert shown(sets.view(instance, "m"))[1] >= restored[1]


async def test_times_of_a_master_that_svadm_keeps_outlast_its_last_set(sets, monkeypatch):
    """Also where the service is killed before it has told the state database."""
    future = 2_000_000_000 * 10**9
    async with service(sets.state, killed=True) as instance:
        await sets.make(instance)
        path = str(sets.file("alone"))
        for name in ("more", "more.b"):
            sets.file(name).parent.mkdir()
        names = path, str(sets.file("more")), str(sets.file("more.b"))
        member = await enable.enable(instance, NewSet(Kind.INDEPENDENT, *names))
        await at_rest(instance, member)
        view = instance.views[path]
        await view.set_mtime(future, None)
        await view.write(0, b"after that")
        before = shown(view)

        async def killed(*what):
            raise KeyboardInterrupt

        monkeypatch.setattr(enable, "after_last_set", killed)
        with pytest.raises(KeyboardInterrupt):
            await enable.disable(instance, member)
    async with service(sets.state) as instance:
        assert shown(instance.views[path])[1] >= before[1]


@pytest.mark.parametrize("name", ["m", "dep"])
async def test_times_never_go_back_when_a_late_bitmap_returns(sets, name):
    """The record that returns lies in the future, as after a clock that was set back."""
    future = 2_000_000_000 * 10**9
    async with service(sets.state) as instance:
        await sets.make(instance)
        await pit.make(instance, Verb.UPDATE_SHADOW, [sets.set(instance, "ind")])
        await at_rest(instance, sets.set(instance, "ind"))
        await enable.disable(instance, sets.set(instance, "ind"))
        view = sets.view(instance, name)
        await view.set_mtime(future, None)
        await view.write(0, b"after that")
        before = shown(view)
    sets.away("dep.b")
    async with service(sets.state, killed=True) as instance:
        sets.back("dep.b")
        await late.look(instance)
        assert not sets.set(instance, "dep").missing
        after = shown(sets.view(instance, name))
        assert moved(before, after)
    async with service(sets.state) as instance:
        assert shown(sets.view(instance, name))[1] >= after[1]


@pytest.mark.parametrize("name", ["m", "dep"])
async def test_times_never_go_back_when_a_bitmap_that_was_late_is_reset(sets, name):
    """It came when a write had cost it its trust; its record of times is true all the same."""
    future = 2_000_000_000 * 10**9
    async with service(sets.state) as instance:
        await sets.make(instance)
        await enable.disable(instance, sets.set(instance, "ind"))
        view = sets.view(instance, name)
        await view.set_mtime(future, None)
        await view.write(0, b"after that")
        before = shown(view)
    sets.away("dep.b")
    async with service(sets.state, killed=True) as instance:
        await sets.view(instance, "m").write(CHUNK, b"noted nowhere")
        dep = sets.set(instance, "dep")
        assert dep.state.offline & Role.BITMAP
        sets.back("dep.b")
        await reset.reset(instance, dep)
        assert not dep.state.offline
        assert moved(before, shown(sets.view(instance, name)))
