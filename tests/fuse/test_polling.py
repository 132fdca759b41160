"""Who reads the next request, how long to look before sleeping, and that nobody else starves."""

import fcntl
import os
import resource
import threading
import time
from contextlib import ExitStack
from functools import partial

import pyfuse3
import pytest
import trio
import trio.testing
from waiting import pipe, waiter_knows

from iifuse.fuse import waits
from iifuse.loop.waiter import (
    IN_A_ROW_BUSY_MAX,
    IN_A_ROW_MAX,
    LOOK_NS_MAX,
    WATCH_S,
    WATCHES_MAX,
    Patience,
    ReaderLock,
    Waiter,
)

pytestmark = pytest.mark.alone


async def test_baton_stays_with_who_comes_back_first(nursery):
    lock, order = ReaderLock(), []

    async def serve(name: str, turns: int) -> None:
        for _ in range(turns):
            async with lock:
                order.append(name)

    nursery.start_soon(serve, "a", 3)
    await trio.testing.wait_all_tasks_blocked()
    assert order == ["a"] * 3, "free, it is had without a trip through the scheduler"

    async with lock:
        for name in "bc":
            nursery.start_soon(serve, name, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert order == ["a"] * 3, "one has it"
    async with lock:
        order.append("main")
    await trio.testing.wait_all_tasks_blocked()
    assert order[3] == "main"
    assert sorted(order[4:]) == ["b", "b", "c", "c"], "all get it in the end"


async def test_baton_is_passed_on_when_its_holder_is_cancelled(nursery):
    lock, done = ReaderLock(), trio.Event()
    scope = trio.CancelScope()

    async def hold() -> None:
        with scope:
            async with lock:
                await trio.sleep_forever()

    async def follow() -> None:
        async with lock:
            done.set()

    nursery.start_soon(hold)
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(follow)
    await trio.testing.wait_all_tasks_blocked()
    assert not done.is_set()
    scope.cancel()
    with trio.fail_after(30):
        await done.wait()


@pytest.mark.parametrize("number", [0, 1])
async def test_baton_of_a_waiter_that_is_cancelled_goes_to_the_others(nursery, number):
    lock, had = ReaderLock(), []
    scopes = [trio.CancelScope(), trio.CancelScope()]

    async def wait(index: int) -> None:
        with scopes[index]:
            async with lock:
                had.append(index)

    async with lock:
        for index in range(2):
            nursery.start_soon(wait, index)
            await trio.testing.wait_all_tasks_blocked()
        scopes[number].cancel()
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert had == [1 - number]


def test_patience_grows_while_requests_come_soon_and_ends_when_they_do_not():
    patience = Patience()
    assert patience.look_ns == 0, "an idle service does not look"
    for _ in range(10):
        patience.slept(20_000)
    assert patience.look_ns == LOOK_NS_MAX
    for _ in range(10):
        patience.slept(5_000_000)
    assert patience.look_ns == 0


@pytest.mark.parametrize(("busy", "in_a_row"), [(False, IN_A_ROW_MAX), (True, IN_A_ROW_BUSY_MAX)])
async def test_waiter_lets_others_have_their_turn_although_requests_never_end(
    nursery, busy, in_a_row
):
    """More often while a thread is at work."""
    waiter, turns = Waiter(lambda: busy, lambda: None), []

    async def other() -> None:
        while True:
            turns.append(None)
            await trio.lowlevel.checkpoint()

    with pipe(full=True) as (fd, _):
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        before = len(turns)
        for _ in range(4 * in_a_row):
            await waiter.wait_readable(fd)
        assert 3 <= len(turns) - before <= 6
    nursery.cancel_scope.cancel()


async def test_waiter_sleeps_and_is_woken(nursery):
    waiter, woken = Waiter(lambda: False, lambda: None), trio.Event()

    async def wait(fd: int) -> None:
        await waiter.wait_readable(fd)
        woken.set()

    with pipe() as (fd, writer):
        nursery.start_soon(wait, fd)
        await trio.testing.wait_all_tasks_blocked()
        assert not woken.is_set()
        os.write(writer, b"x")
        with trio.fail_after(30):
            await woken.wait()


@pytest.mark.parametrize(("busy", "looks"), [(False, True), (True, False)])
async def test_waiter_looks_only_when_it_holds_up_nobody(nursery, busy, looks):
    waiter, looked = Waiter(lambda: busy, lambda: None), []
    waiter._patience.look_ns = LOOK_NS_MAX
    with pipe() as (fd, writer):
        waiter._fd = fd
        waiter._poll = _Poll(looked)
        nursery.start_soon(waiter.wait_readable, fd)
        await trio.testing.wait_all_tasks_blocked()
        assert (len(looked) > 1) == looks
        os.write(writer, b"x")


class _Poll:
    """Never readable; counts who asks."""

    def __init__(self, looked: list) -> None:
        self.looked = looked

    def poll(self, _: int) -> list:
        self.looked.append(None)
        return []


@pytest.mark.parametrize(
    ("busy", "begins"),
    [(False, trio.testing.wait_all_tasks_blocked), (True, trio.lowlevel.checkpoint)],
    ids=["while it sleeps", "while a verb has a thread"],
)
async def test_waiter_ends_with_the_session(nursery, busy, begins):
    """It may end while it gives others a turn, and then trio tells nobody any more."""
    waiter, ended = Waiter(lambda: busy, lambda: None), trio.Event()

    async def wait(fd: int) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await waiter.wait_readable(fd)
        ended.set()

    with pipe() as (fd, _):
        nursery.start_soon(wait, fd)
        await begins()
        waiter.notify_closing(fd)
        with trio.fail_after(30):
            await ended.wait()


async def call_that_lasts(release: threading.Event, back: trio.Event, loop) -> None:
    await loop.blocking_for_program(partial(release.wait, 30))
    back.set()


async def test_waiter_watches_descriptors_of_any_number(nursery, loop):
    """With some hundred sets a descriptor is too high for select(2)."""
    old = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(old[0], 2048), max(old[1], 2048)))
    release, back = threading.Event(), trio.Event()
    waiter = Waiter(loop.has_waiters, loop.watchable_calls)
    with pipe() as (fd, writer), ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, old)
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 1500)
        stack.callback(os.close, high)
        stack.callback(release.set)
        nursery.start_soon(call_that_lasts, release, back, loop)
        nursery.start_soon(waiter.wait_readable, high)
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        release.set()
        with trio.fail_after(30):
            await back.wait()
        os.write(writer, b"x")
        await trio.testing.wait_all_tasks_blocked()


async def test_waiter_that_fails_leaves_nobody_waiting_for_a_call(nursery, loop):
    """Else the call would only write to a descriptor at which nobody looks any more."""
    release, back = threading.Event(), trio.Event()
    waiter = Waiter(loop.has_waiters, loop.watchable_calls)
    waiter._two = _Broken()
    nursery.start_soon(call_that_lasts, release, back, loop)
    await trio.lowlevel.checkpoint()
    try:
        with pytest.raises(OSError, match="planted"):
            waiter._watch(loop.finished, WATCH_S)
    finally:
        release.set()
    with trio.fail_after(30):
        await back.wait()


class _Broken:
    def watch(self, *_: int) -> None:
        """Taken, and of no use."""

    def wait(self, _: float) -> None:
        raise OSError(5, "planted")


async def test_waiter_is_not_kept_from_sleeping_by_a_call_that_told_late(nursery, loop):
    """A worker may write to the descriptor after its call was found already."""
    release, back, slept = threading.Event(), trio.Event(), []
    nursery.start_soon(call_that_lasts, release, back, loop)
    await trio.lowlevel.checkpoint()
    waiter = Waiter(loop.has_waiters, loop.watchable_calls)
    os.eventfd_write(loop.finished.fd, 1)
    try:
        with pipe() as (fd, _):
            waiter._fd = fd
            for _ in range(3):
                began = time.perf_counter()
                waiter._watch(loop.finished, WATCH_S)
                slept.append(time.perf_counter() - began)
    finally:
        release.set()
    assert min(slept) >= WATCH_S


async def test_waiter_that_watches_sees_a_call_come_back_and_then_a_request(nursery, loop):
    waiter, readable = Waiter(loop.has_waiters, loop.watchable_calls), trio.Event()
    back, release = trio.Event(), threading.Event()

    async def call() -> None:
        assert await loop.blocking_for_program(lambda: release.wait(30)) is True
        back.set()

    async def wait(fd: int) -> None:
        await waiter.wait_readable(fd)
        readable.set()

    with pipe() as (fd, writer):
        nursery.start_soon(call)
        while not loop.has_waiters():
            await trio.lowlevel.checkpoint()
        release.set()
        nursery.start_soon(wait, fd)
        with trio.fail_after(30):
            await back.wait()
        assert not readable.is_set()
        os.write(writer, b"x")
        with trio.fail_after(30):
            await readable.wait()


async def test_waiter_that_watches_holds_up_nobody_for_long(nursery, loop):
    """A call that takes long: others have their turns, and after a while trio waits for it."""
    waiter, release, turns = Waiter(loop.has_waiters, loop.watchable_calls), threading.Event(), 0
    nursery.start_soon(loop.blocking_for_program, partial(release.wait, 30))
    try:
        with pipe() as (fd, _):
            nursery.start_soon(waiter.wait_readable, fd)
            began = trio.current_time()
            for turns in range(3 * WATCHES_MAX):  # noqa: B007
                await trio.lowlevel.checkpoint()
            assert trio.current_time() - began < 3 * WATCHES_MAX * 0.1
            with trio.fail_after(30):
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
    finally:
        release.set()


async def test_waiter_that_watches_ends_with_the_session(nursery, loop):
    waiter, ended = Waiter(lambda: True, loop.watchable_calls), trio.Event()
    release = threading.Event()
    nursery.start_soon(loop.blocking_for_program, partial(release.wait, 30))

    async def wait(fd: int) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await waiter.wait_readable(fd)
        ended.set()

    try:
        with pipe() as (fd, _):
            nursery.start_soon(wait, fd)
            await trio.lowlevel.checkpoint()
            waiter.notify_closing(fd)
            with trio.fail_after(30):
                await ended.wait()
    finally:
        release.set()


class _Back:
    """A call that is back, and whose task has not had its turn yet."""

    watched, has_task_to_wake, fd = False, True, -1

    def __bool__(self) -> bool:
        return False


async def test_waiter_lets_a_task_go_on_whose_call_is_back_instead_of_sleeping(nursery):
    """It would sleep for a millisecond, and the task's answer would wait for it."""
    running, looked = [True], []
    waiter = Waiter(lambda: bool(running), lambda: _Back() if running else None)

    async def go_on() -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        running.clear()

    with pipe() as (fd, writer):
        waiter._two = _Broken()
        await waiter_knows(waiter, fd, writer)
        waiter._poll, waiter._patience.look_ns = _Poll(looked), LOOK_NS_MAX
        nursery.start_soon(go_on)
        nursery.start_soon(waiter.wait_readable, fd)
        await trio.testing.wait_all_tasks_blocked()
        assert not running
        assert len(looked) > 10, "and looks for the next request"
        os.write(writer, b"x")


def test_polling_leaves_pyfuse3_the_rest_of_trio():
    before = pyfuse3.trio
    try:
        waiter = Waiter(lambda: False, lambda: None)
        waits.install(waiter, lambda: False)
        assert pyfuse3.trio.Lock() is waiter.reader_lock
        assert pyfuse3.trio.open_nursery is trio.open_nursery
        assert pyfuse3.trio.ClosedResourceError is trio.ClosedResourceError
        assert pyfuse3.trio.lowlevel.current_task is trio.lowlevel.current_task
    finally:
        pyfuse3.trio = before


async def test_polling_begins_when_the_kernel_is_greeted():
    """Until then libfuse reads from a pair of sockets, where a request waits already."""
    before, greeted = pyfuse3.trio, iter([True, False])
    try:
        waiter = Waiter(lambda: False, lambda: None)
        waits.install(waiter, lambda: next(greeted))
        with pipe() as (fd, writer):
            with trio.fail_after(30):
                await pyfuse3.trio.lowlevel.wait_readable(fd)
            os.write(writer, b"x")
            for _ in range(2):
                await pyfuse3.trio.lowlevel.wait_readable(fd)
        assert pyfuse3.trio.lowlevel.wait_readable == waiter.wait_readable
    finally:
        pyfuse3.trio = before
