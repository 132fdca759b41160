"""The background copy beside writers, and how it ends (invariants 5 and 9)."""

from functools import partial

import pytest
import trio
import trio.lowlevel
import trio.testing
from bitmaps import chunks_of
from copies import Ended, scattered
from fake_volume import Bench, always, chunks, durable, in_chunk
from harness import CHUNK

from iifuse.core.state import Kind, Progress, Role
from iifuse.core.touch import Side, Touch
from iifuse.data.chunklock import Mode
from iifuse.data.copier import STEP_CHUNKS, Copier

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
TO_SHADOW, TO_MASTER = Progress.TO_SHADOW, Progress.TO_MASTER


@pytest.fixture(autouse=True)
def untimed(monkeypatch):
    """No step ends because this machine is slow just now."""
    monkeypatch.setattr("iifuse.data.copier.STEP_S", float("inf"))


@pytest.fixture
def bench():
    return Bench(chunks("a", "b", "c", "d"))


@pytest.fixture
def ended():
    return Ended()


def write_from_thread(view, offset: int, data: bytes):
    """A hook of a volume: another task writes, while the copier's thread stands still."""
    token = trio.lowlevel.current_trio_token()
    return partial(trio.from_thread.run, view.write, offset, data, trio_token=token)


async def test_copy_to_the_shadow_ends_idle_with_durable_zero_copy_bits(bench, ended):
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 1, 3))
    await Copier(bench.family, member, ended).run()
    assert member.shadow.durable == chunks("a", "b", "-", "d")
    header, shadow, copy = durable(member)
    assert (header.progress, header.copying, shadow, copy) == (Progress.IDLE, False, set(), set())
    assert member.copied_chunks == 3
    assert ended.members == [member]


async def test_copy_bit_is_cleared_on_disk_only_after_the_target_was_synced(bench, ended):
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 1, 2, 3))
    seen = []
    member.bitmap.volume.hooks["write"] = lambda: seen.append(member.shadow.durable)
    await Copier(bench.family, member, ended).run()
    assert seen == [chunks("a", "b", "c", "d")]


@pytest.mark.parametrize("side", ["master", "shadow"])
async def test_writer_between_a_copy_and_its_clearing_loses_nothing(bench, ended, side):
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 1, 2, 3))
    shadow = bench.shadow_view(member)
    view = bench.view if side == "master" else shadow
    member.shadow.hooks["sync"] = write_from_thread(view, CHUNK, b"new")
    await Copier(bench.family, member, ended).run()
    new = b"new" + chunks("b")[3:]
    expected = {"master": ("b", new), "shadow": (new, "b")}[side]
    assert await shadow.read(CHUNK, CHUNK) == as_chunk(expected[0])
    assert await bench.view.read(CHUNK, CHUNK) == as_chunk(expected[1])
    header, bits, copy = durable(member)
    assert (header.progress, bits, copy) == (Progress.IDLE, {1}, set())
    assert member.copied_chunks == 4


def as_chunk(content) -> bytes:
    return chunks(content) if isinstance(content, str) else content


@pytest.mark.parametrize("kind", [IND, DEP])
async def test_writer_between_a_restored_chunk_and_its_clearing_loses_nothing(bench, ended, kind):
    member = bench.add("/s", kind, chunks("A", "B", "C", "D"), TO_MASTER, (0, 1))
    shadow = bench.shadow_view(member)
    bench.master.hooks["sync"] = write_from_thread(bench.view, CHUNK, b"new")
    await Copier(bench.family, member, ended).run()
    assert await bench.view.read(0, 2 * CHUNK) == chunks("A") + b"new" + chunks("B")[3:]
    assert await shadow.read(0, 2 * CHUNK) == chunks("A", "B")
    header, bits, copy = durable(member)
    assert (header.progress, bits, copy) == (Progress.IDLE, {1}, set())


async def test_writer_that_is_quicker_than_the_copy_brings_the_chunk_itself(bench, ended):
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 1, 2, 3))
    await bench.view.write(0, b"new")
    assert durable(member)[1:] == ({0}, {1, 2, 3})
    await Copier(bench.family, member, ended).run()
    assert bytes(member.shadow.data) == chunks("a", "b", "c", "d")
    assert bytes(bench.master.data) == b"new" + chunks("a", "b", "c", "d")[3:]
    assert durable(member)[1:] == ({0}, set())


async def test_restore_serves_a_sibling_before_it_overwrites_the_master(bench, ended):
    member = bench.add("/s", IND, chunks("A", "B", "C", "D"), TO_MASTER, (1, 2))
    sibling = bench.add("/t", DEP, chunks("-", "-", "-", "-"))
    await Copier(bench.family, member, ended).run()
    assert bytes(bench.master.data) == chunks("a", "B", "C", "d")
    assert await bench.shadow_view(sibling).read(0, 4 * CHUNK) == chunks("a", "b", "c", "d")
    assert durable(sibling)[1] == {1, 2}


async def test_copy_that_cannot_read_its_master_stops_with_its_bits_kept(bench, ended):
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 2))
    bench.master.breaks.append(in_chunk("read", 2))
    told = []

    async def failed(member, why):
        told.append((member.header.copying, why))

    await Copier(bench.family, member, ended, failed=failed).run()
    header, _, copy = durable(member)
    ((copying, why),) = told
    assert not copying
    assert str(bench.master.path) in why
    assert (header.progress, header.copying, header.offline) == (TO_SHADOW, False, Role(0))
    assert 2 in copy
    assert chunks_of(member.bits.copy) == copy
    assert ended.members == []


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_copy_to_a_shadow_that_fails_takes_it_offline(bench, ended, operation):
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 2))
    member.shadow.breaks.append(always(operation))
    await Copier(bench.family, member, ended).run()
    header, _, copy = durable(member)
    assert (header.copying, header.offline) == (False, Role.SHADOW)
    assert copy == {0, 2}
    await bench.view.write(0, b"goes on")


async def test_restore_that_cannot_write_the_master_stops_and_never_takes_it_offline(bench, ended):
    member = bench.add("/s", IND, chunks("A", "B", "C", "D"), TO_MASTER, (0, 1))
    bench.master.breaks.append(always("sync"))
    await Copier(bench.family, member, ended).run()
    header, _, copy = durable(member)
    assert (header.progress, header.copying, header.offline) == (TO_MASTER, False, Role(0))
    assert copy == {0, 1}
    assert await bench.view.read(0, 2 * CHUNK) == chunks("A", "B")


async def test_abort_that_cannot_be_noted_leaves_no_set_that_copies_for_ever(bench):
    """F8: nobody would end what `-w` waits for."""
    member = bench.add("/s", IND, chunks("-", "-", "-", "-"), TO_SHADOW, (0, 1, 3))
    member.bitmap.volume.breaks.append(always("write"))
    await member.end_copy()
    assert not member.header.copying
    assert member.state.offline & Role.BITMAP


# -- holes ------------------------------------------------------------------------------------


def all_hole(offset: int, stop: int) -> tuple[int, int]:
    return stop, stop


@pytest.mark.parametrize("target", ["device", "hole"])
async def test_step_over_a_hole_is_long_only_where_the_target_has_one_too(
    ended, monkeypatch, target
):
    """A target that has to be written with zeros must not hold a writer up for gigabytes."""
    count = 3 * STEP_CHUNKS + 5
    bench = Bench(bytes(count * CHUNK))
    member = bench.add("/s", IND, b"-" * (count * CHUNK), TO_SHADOW, tuple(range(count)))
    bench.master.data_from = all_hole
    if target == "hole":
        member.shadow.data_from = all_hole
    held = holds_of(bench, monkeypatch)
    await Copier(bench.family, member, ended).run()
    first, *later = ([chunks for _, chunks in runs] for runs in held)
    assert first == [STEP_CHUNKS], "what is there is seen in the first step"
    steps = {"hole": [[count - STEP_CHUNKS]], "device": [[STEP_CHUNKS], [STEP_CHUNKS], [5]]}
    assert later == steps[target]
    assert ended.members == [member]
    if target == "device":
        assert member.shadow.durable == bench.master.data


# -- many runs --------------------------------------------------------------------------------


def holds_of(bench, monkeypatch) -> list[list[tuple[int, int]]]:
    """The runs of each request for a lock that the copier makes from now on."""
    held, hold_runs = [], bench.family.locks.hold_runs

    def spy(mode, runs):
        held.append(list(runs))
        return hold_runs(mode, runs)

    monkeypatch.setattr(bench.family.locks, "hold_runs", spy)
    return held


async def test_one_step_brings_many_runs_and_leaves_free_what_lies_between(ended, monkeypatch):
    bench, member = scattered(9)
    held = holds_of(bench, monkeypatch)
    free = []
    member.shadow.hooks["write"] = lambda: free.extend(
        chunk for chunk in range(9) if bench.family.locks.free(Mode.WRITE, chunk, 1)
    )
    await Copier(bench.family, member, ended).run()
    assert held == [[(0, 1), (2, 1), (4, 1), (6, 1), (8, 1)]]
    assert free == [1, 3, 5, 7]
    assert member.shadow.durable == chunks(*"msmsmsmsm")
    assert member.copied_chunks == 5


async def test_step_that_takes_long_ends_after_its_run(ended, monkeypatch):
    """A writer waits for a disk that seeks once, not a hundred times."""
    monkeypatch.setattr("iifuse.data.copier.STEP_S", -1)
    bench, member = scattered(5)
    held = holds_of(bench, monkeypatch)
    await Copier(bench.family, member, ended).run()
    assert [runs[0] for runs in held] == [(0, 1), (2, 1), (4, 1)]
    assert member.shadow.durable == chunks(*"msmsm")
    assert member.copied_chunks == 3
    assert bench.diary.count(("/s", "sync")) == 2, "one for the stretch, one at the end"


@pytest.mark.parametrize(("name", "value"), [("STRETCH_S", -1), ("STRETCH_RUNS", 1)])
async def test_bits_are_cleared_after_some_time_or_many_runs(ended, monkeypatch, name, value):
    """So that a crash costs little, and clearing holds nobody up."""
    monkeypatch.setattr("iifuse.data.copier.STEP_CHUNKS", 1)
    monkeypatch.setattr(f"iifuse.data.copier.{name}", value)
    bench, member = scattered(5)
    await Copier(bench.family, member, ended).run()
    assert bench.diary.count(("/s", "sync")) == 4, "one for each stretch, one at the end"
    assert member.copied_chunks == 3


@pytest.mark.parametrize(
    ("sync_s", "copied"), [(0, [0, 8, 24, 32]), (0.1, [0, 8, 16, 24, 32]), (1, [0, 8, 12, 14, 15])]
)
async def test_disk_that_syncs_slowly_gets_less_at_a_time(
    ended, monkeypatch, autojump_clock, sync_s, copied
):
    """An abort or a point in time waits for a sync."""
    for name, value in (("STEP_CHUNKS", 1), ("FIRST_CHUNKS", 8)):
        monkeypatch.setattr(f"iifuse.data.copier.{name}", value)
    bench, member = scattered(64)
    seen, token = [], trio.lowlevel.current_trio_token()

    def sync() -> None:
        seen.append(member.copied_chunks)
        trio.from_thread.run(trio.sleep, sync_s, trio_token=token)

    member.shadow.sync = sync
    await Copier(bench.family, member, ended).run()
    assert seen[:5] == copied


async def test_writer_that_was_quicker_than_one_run_of_a_step_is_not_copied_over(ended, nursery):
    """Independent, to the shadow: with the copy bit gone the shadow has its chunk for good."""
    bench, member = scattered(5)
    async with bench.family.locks.hold(Mode.WRITE, 2, 1):
        copier = Copier(bench.family, member, ended)
        nursery.start_soon(copier.run)
        await trio.testing.wait_all_tasks_blocked()
        await bench.family.touch(Touch(Side.MASTER, None, 2, 1))
        bench.master.write(2 * CHUNK, chunks("n"))
    await copier.wait()
    assert bytes(member.shadow.data) == chunks(*"msmsm")


async def test_runs_of_a_restore_share_the_syncs_of_their_siblings(ended):
    bench, member = scattered(9, progress=TO_MASTER)
    sibling = bench.add("/t", DEP, b"-" * (9 * CHUNK))
    await Copier(bench.family, member, ended).run()
    assert bytes(bench.master.data) == chunks(*"smsmsmsms")
    assert await bench.shadow_view(sibling).read(0, 9 * CHUNK) == chunks(*"mmmmmmmmm")
    assert bench.diary.count(("/t", "sync")) == 2, "of the first touch and of all others"


async def test_restore_whose_sibling_cannot_be_noted_stops_before_the_master(ended):
    bench, member = scattered(5, progress=TO_MASTER)
    sibling = bench.add("/t", DEP, b"-" * (5 * CHUNK))
    sibling.log.is_unnoted = True
    await Copier(bench.family, member, ended).run()
    assert bytes(bench.master.data) == chunks(*"mmmmm")
    assert not member.header.copying


# -- early writing ----------------------------------------------------------------------------


async def test_what_was_copied_is_written_early_and_no_lock_waits_for_it(ended, nursery):
    bench, member = scattered(5)
    free, extents, begin = [], [], member.shadow.start_writeback

    def spy(offset: int, length: int) -> None:
        extents.append((offset, length))
        begin(offset, length)

    member.shadow.start_writeback = spy
    member.shadow.hooks["start_writeback"] = lambda: free.append(
        bench.family.locks.free(Mode.WRITE, 0, 5)
    )
    await Copier(bench.family, member, ended).run()
    assert extents == [(0, 5 * CHUNK)]
    assert free == [True]
    steps = [operation for path, operation in bench.diary if path == "/s"]
    assert steps == [*["write"] * 3, "start_writeback", "sync", "sync"]


async def test_target_in_memory_is_not_written_early(ended):
    bench, member = scattered(5)
    member.shadow.has_disk = False
    await Copier(bench.family, member, ended).run()
    assert ("/s", "start_writeback") not in bench.diary
