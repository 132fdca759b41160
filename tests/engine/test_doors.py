"""A verb on several sets holds all their files closed, from its checks to its last effect."""

from types import SimpleNamespace

import pytest
import trio
from fake_volume import Bench, chunks

from iifuse.host.instance import Instance


@pytest.fixture
def instance(loop):
    """As much of one as a door needs."""
    return SimpleNamespace(loop=loop)


@pytest.fixture
def views():
    return [Bench(chunks("a")).view for _ in range(3)]


async def test_file_stays_closed_while_a_verb_goes_from_set_to_set(instance, views):
    opened = trio.Event()

    async def opens() -> None:
        await views[2].open()
        opened.set()

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            async with Instance.closed(instance, views, "why"):
                nursery.start_soon(opens)
                for view in views:
                    async with Instance.closed(instance, [view], "why"):  # a verb's own, of one set
                        await trio.testing.wait_all_tasks_blocked()
                    assert not opened.is_set()
            await opened.wait()


async def test_door_that_another_verb_holds_is_waited_for(instance, views):
    order = []

    async def verb(name: str) -> None:
        async with Instance.closed(instance, views, "why"):
            order.append(name)
            await trio.testing.wait_all_tasks_blocked()
            order.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(verb, "one")
        nursery.start_soon(verb, "other")
    assert order[0] == order[1]
    assert order[2] == order[3]
