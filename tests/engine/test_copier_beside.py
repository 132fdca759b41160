"""The background copy beside programs that want a thread, and people who stop it."""

import threading
from functools import partial

import pytest
import trio
import trio.testing
from copies import Ended, scattered
from fake_volume import CHUNK, Bench, chunks, durable

from iifuse.core.state import Kind, Progress
from iifuse.data.copier import Copier

IND = Kind.INDEPENDENT
TO_SHADOW, TO_MASTER = Progress.TO_SHADOW, Progress.TO_MASTER


@pytest.fixture
def bench():
    return Bench(chunks("a", "b", "c", "d"))


@pytest.fixture
def ended():
    return Ended()


async def test_copy_that_is_stopped_between_steps_can_be_taken_up_again(ended):
    bench = Bench(bytes(300 * CHUNK))
    member = bench.add("/s", IND, bytes(300 * CHUNK), TO_SHADOW, tuple(range(300)))
    bench.master.data[:] = b"m" * 300 * CHUNK
    first = Copier(bench.family, member, ended)
    async with trio.open_nursery() as nursery:
        token, begin = trio.lowlevel.current_trio_token(), nursery.start_soon
        stop = partial(trio.from_thread.run_sync, begin, first.stop, trio_token=token)
        member.shadow.hooks["write"] = stop
        await first.run()
    assert first.at_rest
    assert durable(member)[2] == set(range(128, 300)), "one step was done, settled, and no more"
    assert member.header.copying
    await Copier(bench.family, member, ended).run()
    assert bytes(member.shadow.data) == bytes(bench.master.data)
    assert member.copied_chunks == 300


@pytest.mark.finding("K8.7")
@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("progress", [TO_SHADOW, TO_MASTER])
async def test_nobody_who_stops_a_copy_waits_for_its_sync(ended, nursery, progress, fails):
    """It may have a GiB to write. What it tells when it ends at last is heard all the same."""
    bench, member = scattered(5, progress=progress)
    target, hangs, go = member.shadow, threading.Event(), threading.Event()
    target = member.shadow if progress is TO_SHADOW else bench.master

    def sync() -> None:
        hangs.set()
        go.wait(60)
        if fails:
            raise OSError(5, "planted", target.path)

    target.hooks["sync"] = sync
    copier = Copier(bench.family, member, ended)
    nursery.start_soon(copier.run)
    try:
        while not hangs.is_set():
            await trio.lowlevel.checkpoint()
        with trio.fail_after(30):
            await copier.stop()
        assert member.bits.copy.count() == 3
        assert not member.state.offline
    finally:
        go.set()
    with trio.fail_after(30):
        while fails and member.header.copying:  # the shadow is offline, or the restore aborted
            await trio.testing.wait_all_tasks_blocked()
    assert bool(member.state.offline) == (fails and progress is TO_SHADOW)
    await Copier(bench.family, member, ended).run()
    assert bool(ended.members) != fails


# -- beside programs --------------------------------------------------------------------------


@pytest.mark.parametrize("progress", [TO_SHADOW, TO_MASTER])
async def test_nobody_who_polls_for_requests_makes_way_for_a_copy(ended, progress):
    """Row 10: programs would be served at a quarter of their speed while it works."""
    bench, member = scattered(5, progress=progress)
    target = member.shadow if progress is TO_SHADOW else bench.master
    busy = []
    for call in ("write", "start_writeback"):
        target.hooks[call] = lambda: busy.append(bench.loop.has_waiters())
    await Copier(bench.family, member, ended).run()
    assert busy == [False, False]


async def test_who_polls_makes_way_for_a_read_of_a_shadow(bench):
    member = bench.add("/s", IND, chunks("a", "b", "c", "d"))
    member.shadow.read_cached = lambda offset, length: None
    busy = []
    member.shadow.hooks["read"] = lambda: busy.append(bench.loop.has_waiters())
    assert await bench.shadow_view(member).read(0, CHUNK) == chunks("a")
    assert busy == [True]


@pytest.mark.parametrize("progress", [TO_SHADOW, TO_MASTER])
async def test_copies_that_hang_leave_threads_for_everybody_else(ended, nursery, progress, loop):
    """Trio has forty; a verb that waits for one would hang as long as the disks do."""
    release = threading.Event()
    try:
        for _ in range(50):
            bench, member = scattered(1, progress=progress)
            target = member.shadow if progress is TO_SHADOW else bench.master
            target.hooks["write"] = partial(release.wait, 60)
            nursery.start_soon(Copier(bench.family, member, ended).run)
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(30):
            await loop.blocking(lambda: None)
    finally:
        release.set()
    with trio.fail_after(30):
        while len(ended.members) < 50:
            await trio.testing.wait_all_tasks_blocked()
