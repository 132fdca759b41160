"""Time limits count only while the event loop turns."""

import threading

import pytest
import trio
from trio.testing import MockClock

from iifuse.loop.limitedcalls import LimitedCalls
from iifuse.loop.timelimits import LATE_S, TICK_S, TimeLimits


@pytest.fixture
def autojump_clock():
    return MockClock(autojump_threshold=0)


@pytest.fixture
def limits():
    return TimeLimits()


async def _paused(clock: MockClock, seconds: float) -> None:
    """Stop everything in the middle of a wait."""
    await trio.sleep(TICK_S / 3)
    clock.jump(seconds)


async def test_limit_is_kept_while_the_loop_turns(limits, autojump_clock):
    began = trio.current_time()
    with limits.move_on_after(5) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert 5 <= trio.current_time() - began <= 5 + 3 * TICK_S


@pytest.mark.parametrize("pauses", [1, 3])
async def test_pause_does_not_count(limits, autojump_clock, pauses):
    with limits.move_on_after(5) as scope:
        for _ in range(pauses):
            await _paused(autojump_clock, 60)
            await trio.sleep(1)
    assert not scope.cancelled_caught
    began = trio.current_time()
    with limits.move_on_after(5) as scope:
        await _paused(autojump_clock, 60)
        await trio.sleep_forever()
    assert trio.current_time() - began + LATE_S >= 65
    assert scope.cancelled_caught


async def test_deadline_that_several_waits_share_is_one(limits, autojump_clock):
    began, deadline = trio.current_time(), limits.now() + 2
    for _ in range(4):
        with limits.move_on_after(max(0, deadline - limits.now())):
            await trio.sleep_forever()
    assert 2 <= trio.current_time() - began <= 2 + 6 * TICK_S


async def test_limit_of_no_seconds_lets_nobody_wait(limits, autojump_clock):
    began = trio.current_time()
    with limits.move_on_after(0) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught
    assert trio.current_time() == began


async def test_nobody_ticks_when_there_is_no_limit(limits, autojump_clock):
    before = trio.lowlevel.current_statistics().tasks_living
    with limits.move_on_after(5):
        await trio.sleep(1)
        assert trio.lowlevel.current_statistics().tasks_living == before + 1
    await trio.sleep(1)
    assert trio.lowlevel.current_statistics().tasks_living == before
    with limits.move_on_after(1) as scope:
        await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_call_on_a_shadow_is_not_given_up_for_a_pause(autojump_clock, loop):
    """K9: the thread stood still as long as the loop did."""
    stuck, go_on = LimitedCalls(loop), threading.Event()
    results = []

    async def call() -> None:
        results.append(await stuck.blocking(lambda: go_on.wait(30), 5, "/s"))

    autojump_clock.autojump_threshold = float("inf")  # the thread is real
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        for _ in range(3):
            await trio.testing.wait_all_tasks_blocked()
            autojump_clock.jump(60)
            await trio.testing.wait_all_tasks_blocked()
        go_on.set()
    assert results == [True]
    assert not stuck.hang
