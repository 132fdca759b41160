"""The record of a file's times is durable before the file changes, and exact when it is quiet."""

import math
import threading
from types import SimpleNamespace

import pytest
import trio
import trio.lowlevel
import trio.testing
from fake_volume import Bench, chunks, durable
from harness import CHUNK

from iifuse import errors
from iifuse.core.header import FileId, Stamp
from iifuse.core.state import Kind
from iifuse.core.times import AHEAD_NS, Times
from iifuse.host.timekeeper import EVERY_S, QUIET_S, Timekeeper
from iifuse.loop.loop import Loop

SOON = QUIET_S + 2 * EVERY_S


class Ledger:
    """The state database's part; `fails` while it is full."""

    def __init__(self):
        self.kept, self.fails, self.tried = Times(), False, 0

    def times(self, path):
        return self.kept, Stamp(), FileId()

    def keep_times(self, path, times, stamp, file):
        self.tried += 1
        if self.fails:
            raise errors.StorageError("/state.db", "is full")
        self.kept = times


class Rig:
    def __init__(self, clock, nursery):
        self.bench, self.ledger, self.clock = Bench(chunks("a", "b")), Ledger(), clock
        self.keeper = Timekeeper(self.ledger, Loop(), ordered=True)
        self.view = self.bench.view
        nursery.start_soon(self.keeper.watch)

    async def begin(self, view=None):
        await self.keeper.begin(view or self.view)

    async def wait(self, seconds):
        """Let the looks of so many seconds happen."""
        for _ in range(int(seconds / EVERY_S)):
            self.clock.jump(EVERY_S)
            with trio.fail_after(1000):
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
            while self.keeper._looked_at:
                await trio.to_thread.run_sync(lambda: None)
                await trio.testing.wait_all_tasks_blocked()


@pytest.fixture
def rig(mock_clock, nursery):
    return Rig(mock_clock, nursery)


async def test_record_says_written_before_the_first_byte_and_is_exact_when_it_is_quiet(
    mock_clock, rig
):
    await rig.begin()
    shown = rig.view.times.exact()
    assert rig.ledger.kept == shown
    seen = []
    rig.bench.master.hooks["write"] = lambda: seen.append(rig.ledger.kept)
    await rig.view.write(0, b"x")
    assert seen[0].ceiling_ns > rig.view.times.ctime_ns > shown.ctime_ns
    tried = rig.ledger.tried
    await rig.view.write(0, b"y")
    assert rig.ledger.tried == tried, "once is enough"
    await rig.wait(SOON)
    assert rig.ledger.kept == rig.view.times.exact()
    assert rig.bench.master.is_synced, "or after a power loss an older content would show it"
    await rig.view.write(0, b"z")
    assert rig.ledger.kept.ceiling_ns


async def test_record_stays_written_while_the_volume_cannot_be_synced(mock_clock, rig):
    await rig.begin()
    await rig.view.write(0, b"x")
    rig.bench.master.breaks.append(lambda operation, offset, length: operation == "sync")
    await rig.wait(SOON)
    assert rig.ledger.kept.ceiling_ns


async def test_record_stays_written_while_a_write_is_under_way(mock_clock, rig):
    await rig.begin()
    await rig.view.write(0, b"x")
    rig.view._changing += 1
    await rig.wait(2 * SOON)
    assert rig.ledger.kept.ceiling_ns
    rig.view._changing -= 1
    await rig.wait(SOON)
    assert rig.ledger.kept == rig.view.times.exact()


async def test_ceiling_is_raised_before_it_is_reached(mock_clock, rig, monkeypatch):
    await rig.begin()
    await rig.view.write(0, b"x")
    first, now = rig.ledger.kept.ceiling_ns, rig.view.times.ctime_ns
    later = SimpleNamespace(time_ns=lambda: now + AHEAD_NS * 3 // 4)
    monkeypatch.setattr("iifuse.host.timekeeper.time", later)
    monkeypatch.setattr("iifuse.data.view.time", later)
    await rig.view.write(0, b"y")
    await rig.wait(2)
    assert rig.ledger.kept.ceiling_ns > first
    assert rig.view.times.ceiling_ns == rig.ledger.kept.ceiling_ns


async def test_record_that_fails_lets_the_write_go_on_and_is_tried_again(mock_clock, rig, caplog):
    await rig.begin()
    rig.ledger.fails = True
    before = rig.view.times.ctime_ns
    assert await rig.view.write(0, b"x") == 1
    assert rig.view.times.ctime_ns > before
    await rig.wait(3)
    assert len([r for r in caplog.records if "cannot be recorded" in r.message]) == 1
    assert not rig.ledger.kept.ceiling_ns
    rig.ledger.fails = False
    await rig.wait(2)
    assert rig.ledger.kept.ceiling_ns


async def test_record_of_a_master_stands_in_each_set_and_a_lost_bitmap_is_passed_over(
    mock_clock, rig
):
    sets = [rig.bench.add(name, Kind.DEPENDENT, chunks("a", "b")) for name in ("/s", "/t")]
    await rig.begin()
    sets[1].log.elsewhere = lambda reason: None
    sets[1].bitmap.volume.breaks.append(lambda operation, offset, length: operation == "write")
    await rig.view.write(0, b"x")
    assert durable(sets[0])[0].master_times.ceiling_ns > rig.view.times.ctime_ns
    assert sets[1].is_lost
    assert rig.ledger.tried == 0
    await rig.wait(SOON)
    assert durable(sets[0])[0].master_times == rig.view.times.exact()


async def test_record_goes_to_a_set_that_is_enabled_while_it_is_made(mock_clock, rig):
    await rig.begin()
    release = threading.Event()
    keep = rig.ledger.keep_times

    def slowly(*what):
        release.wait(30)
        keep(*what)

    rig.ledger.keep_times = slowly
    async with trio.open_nursery() as nursery:
        nursery.start_soon(rig.view.write, CHUNK, b"x")
        await trio.testing.wait_all_tasks_blocked()
        member = rig.bench.add("/s", Kind.DEPENDENT, chunks("a", "b"))
        release.set()
    assert durable(member)[0].master_times.ceiling_ns > rig.view.times.ctime_ns


async def test_late_write_that_was_given_up_moves_the_times_when_it_has_ended(mock_clock, rig):
    member = rig.bench.add("/s", Kind.INDEPENDENT, chunks("a", "b"))
    view = rig.bench.shadow_view(member)
    await rig.begin(view)
    await view.write(0, b"x")
    begun, hang = threading.Event(), threading.Event()

    def write_late():
        begun.set()
        hang.wait(30)

    async def give_up():
        with pytest.raises(OSError, match="no answer"):
            await member.shadow_calls.blocking(write_late, 0.1, "/s")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        while not begun.is_set():  # one that has not begun never does
            await trio.lowlevel.checkpoint()
        mock_clock.autojump_threshold = 0
    mock_clock.autojump_threshold = math.inf
    await rig.wait(SOON)
    assert durable(member)[0].shadow_times.ceiling_ns, "nobody knows what it will show"
    shown = view.times.ctime_ns
    hang.set()
    while member.stuck:
        await trio.lowlevel.checkpoint()
    await rig.wait(1)
    assert view.times.ctime_ns > shown
