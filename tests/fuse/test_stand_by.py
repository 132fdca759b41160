"""Standing by: the service waits in place for a call, when nobody else would go on meanwhile."""

import os
import threading
import time
from functools import partial
from types import SimpleNamespace

import pyfuse3
import pytest
import trio
import trio.testing
from waiting import pipe, waiter_knows

from iifuse.fuse.session import Mount
from iifuse.loop import waiter as polling
from iifuse.loop.waiter import IN_A_ROW_MAX, WATCH_S, Waiter

pytestmark = pytest.mark.alone


async def stands_by(waiter: Waiter, loop) -> bool:
    """Does it watch for a call, and find it?"""
    release, done, watch, found = threading.Event(), loop.finished, waiter._watch, []

    def spy(*how) -> None:
        release.set()
        watch(*how)
        found.append(bool(done))

    waiter._watch, done.stand_by = spy, waiter.stand_by
    threading.Timer(0.05, release.set).start()  # nobody watches: it ends all the same
    await loop.blocking_for_program(partial(release.wait, 30))
    done.stand_by = None
    return found == [True]


@pytest.mark.parametrize("others", ["none", "idle", "at work"])
async def test_waiter_stands_by_for_the_only_request_in_hand(nursery, monkeypatch, others, loop):
    """Else those who could be answered would wait for a disk."""
    monkeypatch.setattr(polling, "STAND_BY_S", 5)
    waiter, stood = Waiter(loop.has_waiters, loop.watchable_calls), []
    go, served = trio.Event(), trio.Event()

    async def serve(fd: int, writer: int, until: trio.Event) -> None:
        async with waiter.reader_lock:
            await waiter_knows(waiter, fd, writer)
        await until.wait()
        stood.append(await stands_by(waiter, loop))
        served.set()

    with pipe() as (fd, writer), trio.fail_after(30):
        nursery.start_soon(serve, fd, writer, go)
        await trio.testing.wait_all_tasks_blocked()
        for _ in range(3 * (others == "idle")):
            nursery.start_soon(read, waiter, fd)
        if others == "at work":
            nursery.start_soon(serve, fd, writer, trio.Event())
        await trio.testing.wait_all_tasks_blocked()
        go.set()
        await served.wait()
        nursery.cancel_scope.cancel()
    assert stood == [others != "at work"]


async def read(waiter: Waiter, fd: int) -> None:
    """A task that has nothing to do."""
    async with waiter.reader_lock:
        await waiter.wait_readable(fd)


async def test_waiter_stands_by_for_no_other_task_than_those_that_serve(nursery, monkeypatch, loop):
    """A copy or a verb: programs must not wait for it."""
    monkeypatch.setattr(polling, "STAND_BY_S", 5)
    waiter = Waiter(loop.has_waiters, loop.watchable_calls)
    with pipe() as (fd, writer):
        nursery.start_soon(waiter_knows, waiter, fd, writer)
        nursery.start_soon(trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        assert not await stands_by(waiter, loop)
        nursery.cancel_scope.cancel()


async def test_waiter_that_stands_by_lets_others_have_their_turn(nursery, monkeypatch, loop):
    """Although each request takes a disk's sync, and they never end."""
    monkeypatch.setattr(polling, "STAND_BY_S", 0)
    waiter, turns, served = Waiter(loop.has_waiters, loop.watchable_calls), [], trio.Event()

    async def serve(fd: int) -> None:
        for _ in range(IN_A_ROW_MAX):
            await read(waiter, fd)
            waiter.stand_by(loop.finished)
        served.set()

    with pipe(full=True) as (fd, _):
        nursery.start_soon(serve, fd)
        while not served.is_set():
            await trio.lowlevel.checkpoint()
            turns.append(None)
    assert len(turns) >= IN_A_ROW_MAX / 4


async def test_waiter_that_stands_by_serves_the_next_request_at_once(nursery, monkeypatch, loop):
    monkeypatch.setattr(polling, "STAND_BY_S", 30)
    waiter, served = Waiter(loop.has_waiters, loop.watchable_calls), trio.Event()

    async def serve(fd: int) -> None:
        await read(waiter, fd)
        began = time.monotonic()  # a second request is there already
        waiter.stand_by(loop.finished)
        assert time.monotonic() - began < 20
        served.set()

    with pipe(full=True) as (fd, _):
        nursery.start_soon(serve, fd)
        await served.wait()


@pytest.mark.parametrize("requests", [1, IN_A_ROW_MAX])
async def test_others_have_their_turn_between_stands(nursery, requests, loop):
    """Of one request or of many: verbs, and a point in time that holds other programs' writes."""
    waiter, turns, served = Waiter(loop.has_waiters, loop.watchable_calls), [], trio.Event()
    loop.finished.stand_by = waiter.stand_by

    async def serve(fd: int, writer: int) -> None:
        for _ in range(requests):
            async with waiter.reader_lock:
                await waiter_knows(waiter, fd, writer)
            for _ in range(IN_A_ROW_MAX // requests):
                await loop.blocking_for_program(lambda: None)
        served.set()

    with pipe() as (fd, writer):
        nursery.start_soon(serve, fd, writer)
        while not served.is_set():
            await trio.lowlevel.checkpoint()
            turns.append(None)
    assert len(turns) >= IN_A_ROW_MAX / 5


async def test_stand_takes_no_longer_than_it_may(nursery, loop):
    """Python's own ways to wait for descriptors round up to a millisecond."""
    waiter, took, served = Waiter(lambda: True, lambda: None), [], trio.Event()

    async def serve(fd: int, writer: int) -> None:
        async with waiter.reader_lock:
            await waiter_knows(waiter, fd, writer)
        for _ in range(21):
            waiter._in_a_row = 0
            began = time.perf_counter()
            waiter.stand_by(loop.finished)
            took.append(time.perf_counter() - began)
        served.set()

    with pipe() as (fd, writer):
        nursery.start_soon(serve, fd, writer)
        await served.wait()
    assert 0.000_3 <= min(took) < 0.000_9, "of 21, one had the processor for itself"


async def test_nobody_sleeps_beside_another_call_while_a_task_could_go_on(nursery, loop):
    """A slow disk beside a quick one: each second call of the quick one took a millisecond more."""
    waiter, release = Waiter(loop.has_waiters, loop.watchable_calls), threading.Event()
    requests, took, ended = 100, [], trio.Event()

    async def serve(fd: int, writer: int) -> None:
        while len(took) < requests:
            await read(waiter, fd)
            os.read(fd, 1)
            began = time.perf_counter()
            await loop.blocking_for_program(lambda: None)
            took.append(time.perf_counter() - began)
            if len(took) < requests:  # else the other one would outlive the pipe
                os.write(writer, b"x")  # the next one, at depth 1
        release.set()
        ended.set()

    with pipe(full=True) as (fd, writer):
        nursery.start_soon(loop.blocking_for_program, partial(release.wait, 30))
        for _ in range(2):
            nursery.start_soon(serve, fd, writer)
        with trio.fail_after(30):
            await ended.wait()
            await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert sorted(took)[requests * 6 // 10] < WATCH_S / 2, "fewer than each second one"


async def test_tasks_with_nothing_to_do_are_counted_while_one_is_woken(nursery):
    """Else the one that is to read the next request would look like one at work."""
    waiter = Waiter(lambda: False, lambda: None)
    for _ in range(3):
        nursery.start_soon(waiter.reader_lock.__aenter__)
        await trio.testing.wait_all_tasks_blocked()
    assert waiter.reader_lock.readers == 3
    await waiter.reader_lock.__aexit__(None, None, None)
    assert waiter.reader_lock.readers == 2, "one is woken, one sleeps"
    await trio.testing.wait_all_tasks_blocked()
    assert waiter.reader_lock.readers == 2
    nursery.cancel_scope.cancel()


async def test_mount_stands_by(monkeypatch, tmp_path, loop):
    async def main(**_: int) -> None:
        """The session ends at once."""

    monkeypatch.setattr(pyfuse3, "main", main)
    monkeypatch.setattr(pyfuse3, "trio", pyfuse3.trio)
    mount = Mount(loop, str(tmp_path), None, writeback_cache=False, in_place=False)
    mount._connection = SimpleNamespace(greet=lambda: False)  # nothing is mounted
    await mount.run()
    waiter = loop.finished.stand_by.__self__
    with pipe(full=True) as (fd, _):  # a request that comes after the greeting
        await pyfuse3.trio.lowlevel.wait_readable(fd)
    assert pyfuse3.trio.lowlevel.wait_readable.__self__ is waiter
    assert pyfuse3.trio.Lock() is waiter.reader_lock
