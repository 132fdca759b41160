"""What has ended is in no registry and no task, and no circle of references keeps its bits."""

import gc
import os
from collections import deque
from weakref import ref

import pytest
import trio
from real_engine import service

from iifuse.core.state import Kind, Verb
from iifuse.verbs import enable, exchange, passthrough, pit
from iifuse.verbs.exchange import Borrowing
from iifuse.verbs.opening import NewSet

pytestmark = pytest.mark.finding("K11.1")


@pytest.fixture
def master(place):
    path = place / "m"
    path.touch()
    os.truncate(path, 1 << 30)
    return path


@pytest.fixture
def no_collector():
    """A set of 1 TiB keeps 12 MiB of locked memory; the collector may come by hours later."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def registries(instance):
    """All that could hold a set, by whatever name: of the instance and of its parts."""
    parts = (instance, instance.timekeeper, instance.notes)
    found = [value for part in parts for value in vars(part).values()]
    held = [value for value in found if isinstance(value, dict | list | set | deque)]
    assert len(held) > len(parts), "they are kept elsewhere"
    return [*held, instance.families, instance.nursery.child_tasks]


async def night(instance, master, place, kind):
    """A set is made, updated, copied and disabled; weak references to what it needed."""
    names = (str(master), str(place / "s"), str(place / "b"))
    member = await enable.enable(instance, NewSet(kind, *names))
    kept = [ref(member), *map(ref, instance.views.values())]
    await rest(instance)
    await pit.make(instance, Verb.UPDATE_SHADOW, [member])
    kept += map(ref, instance.copiers.values())
    await rest(instance)
    await enable.disable(instance, member)
    return kept


async def rest(instance):
    while instance.nursery.child_tasks:
        for copier in list(instance.copiers.values()):
            await copier.wait()
        await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("kind", Kind)
async def test_disabled_set_is_in_no_registry_and_its_bits_in_no_memory(
    place, master, kind, no_collector
):
    async with service(place / "state") as instance:
        kept = await night(instance, master, place, kind)
        assert [list(registry) for registry in registries(instance) if registry] == []
        assert [found() for found in kept] == [None] * len(kept)


async def test_import_that_has_ended_is_in_no_registry(place, master):
    shadow, second = str(place / "s"), str(place / "second")
    async with service(place / "here") as here, service(place / "there") as there:
        member = await enable.enable(
            here, NewSet(Kind.INDEPENDENT, str(master), shadow, str(place / "b"))
        )
        await rest(here)
        await exchange.export(here, member)
        await exchange.take_in(there, Borrowing(shadow, second))
        await enable.disable(there, there.sets[shadow])
        assert [list(registry) for registry in registries(there) if registry] == []


async def test_volume_that_was_released_is_in_no_registry(place, master, no_collector):
    async with service(place / "state") as instance:
        await passthrough.control(instance, [str(master)])
        kept = ref(instance.views[str(master)])
        await passthrough.release(instance, [str(master)])
        assert [list(registry) for registry in registries(instance) if registry] == []
        assert kept() is None
