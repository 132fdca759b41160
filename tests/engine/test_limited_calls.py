"""A shadow that hangs or fails beside its policy: what it may cost, and what it never may."""

import threading
from dataclasses import replace
from types import SimpleNamespace
from uuid import UUID

import pytest
import trio
from bitmaps import chunks_of
from fake_volume import Bench, FakeVolume, always, chunks, durable
from harness import CHUNK

from iifuse.core.bits import HOT_REGIONS_MAX, REGION_CHUNKS, Bits
from iifuse.core.state import Kind, Policy, Progress, Role
from iifuse.data.copier import Copier
from iifuse.store.headerlog import HeaderLog
from iifuse.store.setrow import SetRow
from iifuse.verbs import loading

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
MANY = 60
"""More calls than there are worker threads at a time."""


@pytest.fixture
def bench():
    return Bench(chunks("a", "b", "c", "d"))


@pytest.fixture
def hang():
    """Something to wait for in a thread, which ends with the test whatever happens."""
    released = threading.Event()
    yield lambda: released.wait(60)
    released.set()


def tuned(member, **policy):
    member.amend(replace(member.header, policy=Policy(**policy)))


@pytest.mark.parametrize("break_write", [False, True])
async def test_readers_of_a_shadow_that_hangs_leave_threads_for_everybody_else(
    bench, hang, break_write, loop
):
    """F27: the calls that were given up still run, and may be as many as readers come."""
    member = bench.add("/s", IND, chunks("a", "b", "c", "d"))
    tuned(member, limit_s=1, break_write=break_write)
    view = bench.shadow_view(member)
    member.shadow.read_cached = lambda offset, length: None
    member.shadow.read = lambda offset, length: hang()
    failed = 0

    async def read() -> None:
        nonlocal failed
        try:
            await view.read(0, 10)
        except OSError:
            failed += 1

    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(read)
        await loop.blocking(lambda: None)
    assert failed == MANY


async def test_shadow_that_hangs_while_a_copy_looks_for_holes_fails_no_write(
    bench, hang, monkeypatch
):
    monkeypatch.setattr("iifuse.data.copier.STEP_CHUNKS", 2)
    bench.master.data_from = lambda offset, stop: (stop, stop)
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), Progress.TO_SHADOW, (0, 1, 2, 3))
    tuned(member, limit_s=1)
    member.shadow.data_from = lambda offset, stop: hang()

    async def finished(_member: object) -> None:
        pass

    with trio.fail_after(30):
        await Copier(bench.family, member, finished).run()
        assert await bench.view.write(CHUNK, b"new") == 3
    assert durable(member)[0].offline


async def test_break_shadow_chosen_while_a_call_hangs_lets_writes_go_on(bench, hang):
    member = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    tuned(member, limit_s=1, break_write=True)
    write = member.shadow.write
    member.shadow.write = lambda offset, data: hang()
    with trio.fail_after(30):
        with pytest.raises(OSError, match="no answer"):
            await bench.view.write(CHUNK, b"new")
        with pytest.raises(OSError, match="has not come back"):
            await bench.view.write(CHUNK, b"new")
        tuned(member, limit_s=1)
        assert await bench.view.write(CHUNK, b"new") == 3
    member.shadow.write = write
    assert durable(member)[0].offline


async def test_sync_of_the_master_waits_for_no_shadow_longer_than_its_limit(hang):
    """With durability=process the master's fsync makes its shadows durable too."""
    bench = Bench(chunks("a", "b"), ordered=False)
    member = bench.add("/s", DEP, chunks("-", "-"))
    tuned(member, limit_s=1)
    await bench.view.write(0, b"new")
    member.shadow.sync = hang
    with trio.fail_after(30):
        await bench.view.sync()
    assert bench.master.is_synced
    assert member.state.offline == Role.SHADOW


def test_bits_whose_mark_failed_are_not_ready_when_their_region_cools():
    """Invariant 3: with break=write the set goes on after a mark that never reached the disk."""
    bits = Bits.blank((HOT_REGIONS_MAX + 2) * REGION_CHUNKS)
    bits.mark([(5, 1)], [0])  # fails, so it is never settled
    for region in range(1, HOT_REGIONS_MAX + 1):
        bits.mark([(region * REGION_CHUNKS, 1)], [region])
    assert not bits.note_if_ready(5, 1)
    bits.settle([(5, 1)], [])
    bits.cool_all()
    assert bits.note_if_ready(5, 1)


class _Forgetful(FakeVolume):
    """As Linux after a sync that failed: the page cache has it, the disk never will."""

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(path, data)
        self._unsynced: list[tuple[int, int]] = []

    def write(self, offset: int, data: bytes) -> int:
        self._unsynced.append((offset, len(data)))
        return super().write(offset, data)

    def sync(self) -> None:
        todo, self._unsynced = self._unsynced, []
        self._do("sync")
        disk = bytearray(self.durable)
        for offset, length in todo:
            disk[offset : offset + length] = self.data[offset : offset + length]
        self.durable = bytes(disk)


async def test_bits_that_a_failed_sync_kept_from_the_disk_are_there_before_they_are_believed(
    bench, loop
):
    """F8: with break=write the set goes on after the next start of the service."""
    member = bench.add("/s", IND, chunks("a", "b", "c", "d"))
    tuned(member, break_write=True)
    member.adopt(member.log.commit())
    volume = _Forgetful("/s.b", bytes(member.bitmap.volume.data))
    member.bitmap.volume = volume
    volume.breaks.append(always("sync"))
    with pytest.raises(OSError, match="planted"):
        await bench.view.write(CHUNK, b"new")
    assert durable(member)[1] == set()
    volume.breaks.clear()
    instance = SimpleNamespace(
        transitions=SimpleNamespace(standing=()), boot_id=UUID(int=1), header_log=HeaderLog,
        open_volume=lambda path, **_: volume,
    )  # fmt: skip
    row = SetRow.of(member.header)
    log, bits = await loop.blocking(lambda: loading.load_bitmap(instance, row, []))
    assert bits.ready.count()
    member.log, member.bits = log, bits
    member.adopt(log.header)
    assert durable(member)[1] >= {n for n in range(4) if bits.note_if_ready(n, 1)}


async def test_write_that_is_marked_while_a_lost_bitmap_is_written_anew_stays_marked(bench, loop):
    """F13: its chunk was restored for it, and the restore may not come over it after a restart."""
    copy = (0, 1, 2, 3)
    member = bench.add("/s", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, copy)
    bitmap, begun, go_on = member.bitmap, threading.Event(), threading.Event()
    fails = iter([True])
    bitmap.volume.breaks.append(
        lambda operation, offset, length: (
            operation == "write" and offset < 24 * 1024 and next(fails, False)
        )
    )
    write_anew = bitmap.write_anew

    def write_slowly(*what):
        begun.set()
        go_on.wait(30)
        return write_anew(*what)

    bitmap.write_anew = write_slowly
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(member.take_offline, Role.SHADOW, "planted")
            await loop.blocking(lambda: begun.wait(30))
            assert await bench.view.write(CHUNK, b"new") == 3
            go_on.set()
    header, _, still_to_restore = durable(member)
    assert header.offline
    assert member.header == header
    assert still_to_restore == chunks_of(member.bits.copy) == {0, 2, 3}
