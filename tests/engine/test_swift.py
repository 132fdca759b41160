"""The short way to a thread and back: what comes of a call, and what becomes of the threads."""

import select
import threading
import time
from contextlib import suppress
from functools import partial

import pytest
import trio
import trio.testing

from iifuse.loop import loop as loops
from iifuse.loop.calls import FinishedCalls, ShortCalls


async def test_swiftly_answers_with_the_result_of_a_thread(loop):
    assert await loop.blocking_for_program(threading.get_ident) != threading.get_ident()


async def test_swiftly_raises_what_the_call_raised(loop):
    def fail() -> None:
        raise OSError(5, "planted")

    with pytest.raises(OSError, match="planted"):
        await loop.blocking_for_program(fail)
    assert await loop.blocking_for_program(lambda: 7) == 7, "the worker lives on"


async def test_swiftly_uses_the_same_thread_again(loop):
    first = await loop.blocking_for_program(threading.get_ident)
    assert {await loop.blocking_for_program(threading.get_ident) for _ in range(20)} == {first}


async def test_swiftly_has_as_many_threads_as_calls_and_keeps_a_few(nursery, loop):
    """Eighteen calls that wait for each other: with fewer threads they would wait for ever."""
    count, before = 18, set(threading.enumerate())
    barrier = threading.Barrier(count + 1)
    for _ in range(count):
        nursery.start_soon(loop.blocking_for_program, partial(barrier.wait, 30))
    await loop.blocking_for_program(partial(barrier.wait, 30))
    await trio.testing.wait_all_tasks_blocked()
    with trio.fail_after(30):
        while len(set(threading.enumerate()) - before) > 5:
            await trio.lowlevel.checkpoint()


async def test_swiftly_is_not_abandoned_when_its_caller_is_cancelled(nursery, loop):
    begun, release, ended = trio.Event(), threading.Event(), []
    token = trio.lowlevel.current_trio_token()

    def work() -> str:
        token.run_sync_soon(begun.set)
        release.wait(30)
        return "done"

    async def call(scope: trio.CancelScope) -> None:
        with scope:
            ended.append(await loop.blocking_for_program(work))

    scope = trio.CancelScope()
    nursery.start_soon(call, scope)
    await begun.wait()
    assert loop.has_waiters()
    scope.cancel()
    await trio.testing.wait_all_tasks_blocked()
    assert not ended
    release.set()
    with trio.fail_after(30):
        while not ended:
            await trio.lowlevel.checkpoint()
    assert ended == ["done"]
    assert not loop.has_waiters()


async def test_swiftly_does_not_begin_for_who_is_cancelled_already(loop):
    called = []
    with trio.CancelScope() as scope:
        scope.cancel()
        await loop.blocking_for_program(partial(called.append, 1))
    assert not called


# -- giving way -------------------------------------------------------------------------------


async def test_loop_stands_still_for_short_calls_of_a_worker_and_no_longer(
    nursery, monkeypatch, loop
):
    monkeypatch.setattr(loops, "STAND_STILL_S", 30)
    way, release, order = ShortCalls(), threading.Event(), []

    def work() -> None:
        time.sleep(0.01)  # for the loop to run ahead, if it does
        order.append("short")
        way.end()
        release.wait(30)

    nursery.start_soon(loop.blocking_for_program, work, way)
    await trio.testing.wait_all_tasks_blocked()
    order.append("loop")
    release.set()
    assert order == ["short", "loop"]


@pytest.mark.parametrize("fails", [False, True])
async def test_loop_goes_on_when_a_call_ends_without_freeing_the_way(monkeypatch, fails, loop):
    monkeypatch.setattr(loops, "STAND_STILL_S", 30)
    with trio.fail_after(30), suppress(ZeroDivisionError):
        await loop.blocking_for_program(lambda: 1 / (not fails), ShortCalls())


@pytest.mark.alone
async def test_loop_that_stood_still_in_vain_does_not_do_so_again_at_once(
    nursery, monkeypatch, loop
):
    """F27: a disk that hangs must not hold up every volume, however often it is asked."""
    monkeypatch.setattr(loops, "STAND_STILL_S", 1)
    release, took = threading.Event(), []
    for _ in range(1 + loops.SKIPPED_WAITS):
        began = time.perf_counter()
        nursery.start_soon(loop.blocking_for_program, partial(release.wait, 30), ShortCalls())
        await trio.testing.wait_all_tasks_blocked()
        took.append(time.perf_counter() - began)
    release.set()
    assert took[0] >= 1
    assert sum(took[1:]) < 1


# -- standing by ------------------------------------------------------------------------------


@pytest.fixture
async def order(loop):
    """What happens in which order. Whoever stands by sees the calls of workers come back."""
    order, done = [], loop.finished

    def stand_by(calls: FinishedCalls) -> None:
        calls.clear_event()
        calls.watched = True
        if not calls:
            select.select([calls.fd], [], [], 0.5)
        calls.watched = False
        order.append("found" if calls else "in vain")

    done.stand_by = stand_by
    yield order
    done.stand_by = None


async def other(order: list[str]) -> None:
    order.append("other")


@pytest.mark.parametrize("fails", [False, True])
async def test_call_that_comes_back_while_the_loop_stands_by_takes_no_turn(
    nursery, order, fails, loop
):
    nursery.start_soon(other, order)
    with suppress(ZeroDivisionError):
        order.append(await loop.blocking_for_program(lambda: 1 // (not fails)))
    assert order == ["found", *([] if fails else [1])]
    assert not loop.has_waiters()
    await trio.testing.wait_all_tasks_blocked()
    assert order[-1] == "other"


async def test_call_for_which_the_loop_stood_by_in_vain_comes_back_later(nursery, order, loop):
    release = threading.Event()
    nursery.start_soon(other, order)
    with trio.fail_after(30):
        async with trio.open_nursery() as calls:
            calls.start_soon(loop.blocking_for_program, partial(release.wait, 30))
            await trio.testing.wait_all_tasks_blocked()
            assert sorted(order) == ["in vain", "other"]
            release.set()
    assert not loop.has_waiters()
    assert not loop.finished.has_task_to_wake


@pytest.mark.parametrize("way", ["blocking_for_program", "blocking"])
async def test_loop_stands_by_for_no_call_beside_another(nursery, order, way, loop):
    """Whose task may have something to do before this one."""
    call = getattr(loop, way)
    release = threading.Event()
    done = loop.finished
    stand_by, done.stand_by = done.stand_by, None
    nursery.start_soon(call, partial(release.wait, 30))
    await trio.testing.wait_all_tasks_blocked()
    done.stand_by = stand_by
    assert await loop.blocking_for_program(lambda: 7) == 7
    assert not order
    release.set()


async def test_way_is_given_only_where_the_loop_does_not_stand_by(order, loop):
    """It has stood still already."""
    given = []

    class Given(ShortCalls):
        def wait(self, seconds):
            given.append(seconds)
            return super().wait(seconds)

    await loop.blocking_for_program(lambda: 7, Given())
    assert not given
    loop.finished.stand_by = None
    await loop.blocking_for_program(lambda: 7, Given())
    assert len(given) == 1


async def test_call_is_waited_for_although_standing_by_fails(caplog, loop):
    """Else its chunks would be free while it writes, and its end would wake another task."""
    done, release, ended = loop.finished, threading.Event(), []

    def fail(_: FinishedCalls) -> None:
        raise MemoryError("planted")

    def work() -> None:
        release.wait(30)
        ended.append(None)

    done.stand_by = fail
    async with trio.open_nursery() as calls:
        calls.start_soon(loop.blocking_for_program, work)
        await trio.testing.wait_all_tasks_blocked()
        release.set()
    assert ended
    assert done.stand_by is None
    assert "planted" in caplog.text
    assert not loop.has_waiters()
