"""No thread can be started, or memory is short: nobody is punished for it."""

import errno
import threading
import weakref
from functools import partial

import pytest
import trio
from bitmaps import chunks_of
from fake_volume import Bench, always, chunks, durable
from harness import CHUNK

from iifuse.core.state import Kind, Progress
from iifuse.loop.limitedcalls import LimitedCalls
from iifuse.loop.threadpool import OutOfResources, ThreadPool

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
WAYS = {
    "for a program": lambda loop: loop.blocking_for_program,
    "blocking": lambda loop: loop.blocking,
    "in the background": lambda loop: loop.blocking_low_priority,
    "within a limit": lambda loop: lambda call: LimitedCalls(loop).blocking(call, 30, "/s"),
    "without a limit": lambda loop: lambda call: LimitedCalls(loop).blocking(call, 0, "/s"),
}


@pytest.fixture
def no_thread(monkeypatch, loop):
    """From now on none can be started; what trio has kept of earlier tests is gone."""
    loop.start_reserve_threads()

    def start(_thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("trio._core._thread_cache.THREAD_CACHE._idle_workers", {})
    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_calls_are_made_by_the_threads_that_are_there(no_thread, way, loop):
    seen: set[int] = set()
    lock = threading.Lock()

    def call() -> None:
        with lock:
            seen.add(threading.get_ident())

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(way(loop), call)
    assert seen
    assert threading.get_ident() not in seen


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_error_of_a_call_is_its_own(way, loop):
    """A call that itself raises what the want of a thread raises is not made twice."""
    calls = []

    def call() -> None:
        calls.append(1)
        raise RuntimeError("of the call itself")

    with pytest.raises(RuntimeError, match="of the call itself"):
        await way(loop)(call)
    assert len(calls) == 1


async def test_calls_that_wait_for_one_another_have_threads_of_their_own(no_thread, loop):
    """A verb waits for a program's write, which waits for a slow shadow: as many as there are."""
    gone_on = threading.Event()
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(loop.blocking, partial(gone_on.wait, 20))
            await trio.sleep(0.05)
            await LimitedCalls(loop).blocking(lambda: None, 30, "/s")
            await loop.blocking_for_program(gone_on.set)


async def test_call_that_never_got_a_thread_is_nobodys_fault(no_thread, loop):
    """All that are there hang on another volume: EAGAIN, and this one counts as well."""
    hang, other, stuck = threading.Event(), LimitedCalls(loop), LimitedCalls(loop)
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(40):
                nursery.start_soon(other.blocking, partial(hang.wait, 20), 20, "/other")
            await trio.sleep(0.05)
            with pytest.raises(OutOfResources) as caught:
                await stuck.blocking(lambda: None, 0.2, "/s")
            hang.set()
    assert caught.value.errno == errno.EAGAIN
    assert not stuck.hang


async def test_crew_without_any_thread_says_so(no_thread):
    with pytest.raises(OutOfResources):
        ThreadPool(1).fill()


@pytest.mark.parametrize("kind", [IND, DEP])
@pytest.mark.parametrize("call", ["read", "write", "sync"])
@pytest.mark.parametrize("of", ["master", "shadow", "bitmap"])
async def test_memory_that_lacks_for_one_request_costs_that_request(kind, call, of):
    """Planted at each call of a first touch: what was begun is done again by the next write."""
    bench = Bench(chunks("a", "b", "c", "d"))
    shadow = chunks("-", "-", "-", "-") if kind is DEP else chunks("a", "b", "c", "d")
    member = bench.add("/s", kind, shadow)
    volume = {"master": bench.master, "shadow": member.shadow, "bitmap": member.bitmap.volume}[of]
    planted = []

    def fail() -> None:
        planted.append(1)
        raise MemoryError

    volume.hooks[call] = fail
    outcome = None
    try:
        await bench.view.write(CHUNK + 5, b"new")
    except (OSError, MemoryError) as error:
        outcome = error
    volume.hooks.clear()
    assert bool(planted) == (outcome is not None)
    assert not member.state.offline
    assert await bench.view.write(CHUNK + 5, b"new") == 3
    assert not durable(member)[0].offline
    assert 1 in durable(member)[1]
    if kind is DEP:
        assert bytes(await bench.shadow_view(member).read(0, 4 * CHUNK)) == chunks(*"abcd")


async def test_memory_that_lacks_when_copied_chunks_are_noted_forgets_no_copy_bit(monkeypatch):
    """Memory that says 'copied' and a disk that does not would copy over a later write."""
    bench = Bench(chunks("a", "b"))
    member = bench.add("/s", IND, chunks("-", "-"), Progress.TO_SHADOW, (0, 1))
    monkeypatch.setattr(member.bitmap, "encode", _no_memory)
    with pytest.raises(MemoryError):
        member.clear([(0, 2)])
    assert chunks_of(member.bits.copy) == durable(member)[2] == {0, 1}


def _no_memory(*_words):
    raise MemoryError


@pytest.mark.parametrize("kind", [IND, DEP])
async def test_shadow_whose_call_finds_no_thread_stays(kind, monkeypatch):
    bench = Bench(chunks("a", "b", "c", "d"))
    shadow = chunks("-", "-", "-", "-") if kind is DEP else chunks("a", "b", "c", "d")
    member = bench.add("/s", kind, shadow)
    within_limit = member.within_limit

    async def starving(call):
        raise OutOfResources("/s")

    monkeypatch.setattr(bench.family, "_limited", lambda step: member)
    monkeypatch.setattr(member, "within_limit", starving)
    with pytest.raises(OSError, match="temporarily") as caught:
        await bench.view.write(CHUNK, b"new")
    assert caught.value.errno == errno.EAGAIN
    assert not member.state.offline
    monkeypatch.setattr(member, "within_limit", within_limit)
    assert await bench.view.write(CHUNK, b"new") == 3
    assert durable(member)[1] >= {1}


def test_planted_failure_is_one_of_a_volume():
    """The same plant as an error of the disk costs the shadow: the tests above can fail."""
    bench = Bench(chunks("a", "b"))
    member = bench.add("/s", DEP, chunks("-", "-"))
    member.shadow.breaks.append(always("write"))
    trio.run(bench.view.write, CHUNK, b"new")
    assert member.state.offline


class Held:
    """What a call needs: a volume, a set with its bits."""

    def use(self):
        pass


@pytest.mark.finding("K11.1")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_thread_that_waits_keeps_nothing_of_its_last_call(way, loop):
    """Else what is gone, a disabled set for one, would stay until the thread has more to do."""
    held = Held()
    gone = threading.Event()
    weakref.finalize(held, gone.set)
    await way(loop)(held.use)
    del held
    assert await trio.to_thread.run_sync(gone.wait, 30)
