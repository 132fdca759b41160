"""Verbs that have nothing to do with one another run side by side; others in order."""

import pytest
import trio
import trio.testing

from iifuse import errors
from iifuse.host.verblocks import NEW, VerbLocks


@pytest.fixture
def locks():
    return VerbLocks()


class Work:
    """Tasks that hold what they have claimed until they are told to end."""

    def __init__(self, locks, nursery) -> None:
        self.verb_locks, self.nursery = locks, nursery
        self.order: list[str] = []
        self.ends: dict[str, trio.Event] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def begin(self, name: str, *what: str) -> None:
        self.ends[name], self.scopes[name] = trio.Event(), trio.CancelScope()
        self.nursery.start_soon(self._do, name, what)
        await trio.testing.wait_all_tasks_blocked()

    async def _do(self, name, what) -> None:
        with self.scopes[name]:
            async with self.verb_locks.claimed(what):
                self.order.append(name)
                await self.ends[name].wait()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
async def work(locks, nursery):
    yield Work(locks, nursery)
    nursery.cancel_scope.cancel()


async def test_claims_that_share_nothing_are_held_at_once(work):
    await work.begin("one", "/a", "/b")
    await work.begin("two", "/c")
    assert work.order == ["one", "two"]


async def test_claims_that_share_something_follow_each_other_in_their_order(work):
    await work.begin("one", "/a")
    await work.begin("two", "/a", "/b")
    await work.begin("three", "/b")
    assert work.order == ["one"], "three would overtake two"
    await work.end("one")
    assert work.order == ["one", "two"]
    await work.end("two")
    assert work.order == ["one", "two", "three"]


async def test_claim_that_shares_nothing_overtakes_who_waits(work):
    await work.begin("hangs", "/a")
    await work.begin("waits", "/a", "/b")
    await work.begin("other", "/c")
    assert work.order == ["hangs", "other"]


async def test_who_holds_something_and_wants_more_waits_for_holders_alone(locks, work, nursery):
    """Not for who waits for what it holds itself: both would wait for ever."""
    await work.begin("holder", "/m")
    got = trio.Event()

    async def bring() -> None:
        async with locks.claimed({NEW, "/alias"}), locks.also({"/m"}):
            got.set()
            await trio.sleep_forever()

    nursery.start_soon(bring)
    await trio.testing.wait_all_tasks_blocked()
    await work.begin("other", NEW, "/m")
    await work.begin("late", "/m")
    assert not got.is_set()
    await work.end("holder")
    assert got.is_set()
    assert work.order == ["holder"]


async def test_what_somebody_holds_is_not_had_at_once(locks, work):
    await work.begin("one", "/a")
    with locks.at_once({"/a"}) as has_it:
        assert not has_it
    with locks.at_once({"/b"}) as has_it:
        assert has_it
        await work.begin("two", "/b")
        assert work.order == ["one"]
    await trio.testing.wait_all_tasks_blocked()
    assert work.order == ["one", "two"]


async def test_desk_that_is_closed_waits_for_who_has_begun_and_sends_away_the_others(
    locks, work, nursery
):
    await work.begin("one", "/a")
    refused, closed = [], trio.Event()

    async def ask() -> None:
        try:
            async with locks.claimed({"/a"}):
                refused.append(False)
        except errors.ServiceError:
            refused.append(True)

    async def close() -> None:
        await locks.close()
        closed.set()

    nursery.start_soon(ask)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(close)
    await trio.testing.wait_all_tasks_blocked()
    await ask()
    assert refused == [True, True]
    assert not closed.is_set()
    assert not locks.is_free(["/other"])
    async with locks.also({"/b"}):  # who has begun is let finish
        pass
    await work.end("one")
    assert closed.is_set()
    await locks.close()


@pytest.mark.parametrize("holds", [False, True])
async def test_who_is_cancelled_is_in_nobodys_way(work, locks, holds):
    if not holds:
        await work.begin("first", "/a")
    await work.begin("gone", "/a", "/b")
    await work.begin("next", "/b")
    work.scopes["gone"].cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert work.order[-1] == "next"
    assert locks.is_free(["/c"])
    assert not locks.is_free(["/b"])
