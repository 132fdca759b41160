"""First touches that go through in one breath, and streams of them in long runs."""

from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

import pytest
import trio
import trio.testing
from fake_volume import Bench, chunks, durable, in_chunk
from harness import CHUNK

from iifuse.core.state import Kind, Policy, Progress, Role
from iifuse.core.touch import Clear, Sync
from iifuse.data import family as family_module
from iifuse.data.chunklock import Mode
from iifuse.data.family import TouchFailed
from iifuse.loop.loop import Loop

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
BLANK = chunks("-", "-", "-", "-")


@contextmanager
def no_thread():
    """Whoever goes to a thread fails."""

    async def refuse(self, call, short=None):
        raise AssertionError("nothing of this needs a thread")

    with patch.object(Loop, "blocking_for_program", refuse):
        yield


def answered(bench: Bench) -> None:
    """The disks have just done what a first touch asked of them."""
    now = trio.current_time()
    for member in bench.family.sets:
        member.shadow.answered = member.bitmap.volume.answered = now


@pytest.fixture
def relaxed():
    return Bench(chunks("a", "b", "c", "d"), ordered=False)


@pytest.fixture
def bench():
    return Bench(chunks("a", "b", "c", "d"))


@pytest.mark.parametrize("kind", [IND, DEP])
async def test_at_once_with_durability_process_a_first_touch_needs_no_thread(relaxed, kind):
    member = relaxed.add("/s", kind, BLANK if kind is DEP else chunks("a", "b", "c", "d"))
    answered(relaxed)
    with no_thread():
        assert await relaxed.view.write(CHUNK - 2, b"four") == 4
    assert await relaxed.shadow_view(member).read(0, 4 * CHUNK) == chunks("a", "b", "c", "d")
    assert {0, 1} <= {c for r in member.bits.shadow.runs() for c in range(r[0], sum(r))}
    relaxed.diary.clear()
    await relaxed.view.write(CHUNK - 2, b"more")
    assert relaxed.diary == [("/m", "write")]


async def test_at_once_the_order_is_that_of_the_plan(relaxed):
    relaxed.add("/s", DEP, BLANK)
    answered(relaxed)
    await relaxed.view.write(0, b"new")
    assert [d for d in relaxed.diary if d[1] != "read"] == [
        ("/s", "write"), ("/s.b", "write"), ("/m", "write"),
    ]  # fmt: skip


async def test_at_once_a_cold_master_is_read_in_a_thread(relaxed):
    member = relaxed.add("/s", DEP, BLANK)
    relaxed.master.read_cached = lambda offset, length: None
    answered(relaxed)
    assert await relaxed.view.write(0, b"new") == 3
    assert member.shadow.chunk(0) == chunks("a")


async def test_at_once_not_for_a_shadow_with_a_time_limit(relaxed):
    member = relaxed.add("/s", DEP, BLANK)
    member.amend(replace(member.header, policy=Policy(limit_s=5)))
    answered(relaxed)
    copied_by = []
    member.shadow.hooks["write"] = lambda: copied_by.append(trio.lowlevel.in_trio_run())
    await relaxed.view.write(0, b"new")
    assert copied_by == [False]


async def test_at_once_not_in_a_restore(relaxed):
    member = relaxed.add("/s", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (0, 1))
    assert not member.answers_at_once
    await relaxed.view.write(5, b"new")
    assert relaxed.master.chunk(0) == b"AAAAAnew" + chunks("A")[8:]


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("broken", ["/s", "/m", "/s.b"])
async def test_at_once_a_failure_takes_the_shadow_offline_and_is_not_tried_again(ordered, broken):
    """Invariant 9; the write goes on."""
    bench = Bench(chunks("a", "b", "c", "d"), ordered=ordered)
    member = bench.add("/s", DEP, BLANK)
    volumes = {"/s": member.shadow, "/m": bench.master, "/s.b": member.bitmap.volume}
    failed = []

    def once(operation, offset, length):
        hit = operation == ("read" if broken == "/m" else "write") and offset >= 0 and not failed
        if hit and (broken != "/s.b" or offset >= 24 * 1024):
            failed.append(operation)
            return True
        return False

    volumes[broken].breaks.append(once)
    answered(bench)
    assert await bench.view.write(CHUNK, b"new") == 3
    assert failed, "it was planted for nothing"
    assert durable(member)[0].offline & Role.SHADOW
    assert "planted" in durable(member)[0].offline_reason
    assert bench.master.chunk(1).startswith(b"new")
    if broken != "/s.b":
        assert durable(member)[1] == set()
        assert member.shadow.data == bytearray(BLANK), "it would have worked the second time"


@pytest.mark.parametrize("ordered", [True, False])
async def test_at_once_with_break_write_only_the_write_that_met_the_failure_fails(ordered):
    bench = Bench(chunks("a", "b", "c", "d"), ordered=ordered)
    member = bench.add("/s", DEP, BLANK)
    member.amend(replace(member.header, policy=Policy(break_write=True)))
    member.shadow.breaks.append(in_chunk("write", 1))
    found: dict[int, object] = {}

    async def write(chunk: int) -> None:
        try:
            found[chunk] = await bench.view.write(chunk * CHUNK, b"new")
        except TouchFailed as error:
            found[chunk] = error

    async with trio.open_nursery() as nursery:
        answered(bench)
        for chunk in range(3):
            nursery.start_soon(write, chunk)
    assert isinstance(found[1], TouchFailed)
    assert found[0] == found[2] == 3
    assert bench.master.chunk(1) == chunks("b")
    assert not member.state.offline
    member.shadow.breaks.clear()
    assert await bench.view.write(CHUNK, b"new") == 3, "nobody else inherits a failure"


async def test_at_once_not_before_the_disks_have_answered_lately(relaxed, autojump_clock):
    """F27: on the event loop, a shadow that hangs would hold up every volume."""
    member, on_loop = relaxed.add("/s", DEP, BLANK), []

    async def touch(chunk: int) -> None:
        member.shadow.hooks["write"] = lambda: on_loop.append(trio.lowlevel.in_trio_run())
        await relaxed.view.write(chunk * CHUNK, b"new")

    await touch(0)
    await touch(1)
    await trio.sleep(family_module.RECENT_S + 0.01)
    await touch(2)
    await touch(3)
    assert on_loop == [False, True, False, True]


async def test_at_once_not_because_another_shadow_has_answered(relaxed):
    """A shadow may have hung for an hour when it is asked for the first time."""
    relaxed.add("/s", DEP, BLANK)
    other, on_loop = relaxed.add("/t", DEP, BLANK), []
    for bitmap in (other.bits.shadow, other.bits.ready):
        bitmap.set(0, 3)
    other.shadow.hooks["write"] = lambda: on_loop.append(trio.lowlevel.in_trio_run())
    for chunk in (0, 1, 3):
        await relaxed.view.write(chunk * CHUNK, b"new")
    assert on_loop == [False]


async def test_at_once_not_because_the_background_copy_has_cleared_bits(relaxed):
    member, on_loop = relaxed.add("/s", IND, BLANK, Progress.TO_SHADOW, (0, 1, 2, 3)), []
    await relaxed.family.clear((Clear(member.key, ((0, 1),)), Sync(member.key, Role.BITMAP)))
    member.shadow.hooks["write"] = lambda: on_loop.append(trio.lowlevel.in_trio_run())
    await relaxed.view.write(CHUNK, b"new")
    assert on_loop == [False]


async def test_at_once_never_in_order(bench):
    """F27 again: with durability=ordered a thread syncs anyway, and so it copies as well."""
    member, on_loop = bench.add("/s", DEP, BLANK), []
    for chunk in (3, 1, 0):
        member.shadow.hooks["write"] = lambda: on_loop.append(trio.lowlevel.in_trio_run())
        await bench.view.write(chunk * CHUNK, b"new")
    assert on_loop == [False] * 3


def big(*, ordered: bool = True) -> Bench:
    """A master of 32 MiB."""
    return Bench(bytes(1024 * CHUNK), ordered=ordered)


async def stream(bench: Bench, writes: int, count: int = 32) -> None:
    """Writes of `count` chunks that follow each other."""
    for number in range(writes):
        await bench.view.write(number * count * CHUNK, bytes(count * CHUNK))


async def test_stream_of_first_touches_is_preserved_in_long_runs_that_share_their_syncs():
    bench = big()
    member = bench.add("/s", DEP, b"-" * 1024 * CHUNK)
    await stream(bench, 32)
    assert bench.diary.count(("/s", "sync")) < 10, "32 without it"
    assert member.shadow.durable == bytes(1024 * CHUNK)
    assert durable(member)[1] == set(range(1024))
    assert await bench.shadow_view(member).read(0, 1024 * CHUNK) == bytes(1024 * CHUNK)


async def test_stream_that_ends_has_preserved_a_bounded_number_of_chunks_in_vain():
    bench = big()
    member = bench.add("/s", DEP, b"-" * 1024 * CHUNK)
    await stream(bench, 3)
    found = durable(member)[1]
    assert set(range(96)) <= found
    assert len(found) <= 96 + family_module.AHEAD_CHUNKS
    await bench.view.write(700 * CHUNK, b"elsewhere")
    assert durable(member)[1] - found == {700}


@pytest.mark.parametrize("kind", [IND, DEP])
async def test_stream_is_not_preserved_ahead_where_a_bit_means_a_change(kind):
    """Of an independent set beside it each bit is a chunk to be copied at the next update."""
    bench = big()
    bench.add("/s", DEP, b"-" * 1024 * CHUNK)
    other = bench.add("/t", kind, bytes(1024 * CHUNK))
    await stream(bench, 4)
    bits = {c for first, count in other.bits.shadow.runs() for c in range(first, first + count)}
    assert (bits == set(range(128))) == (kind is IND)


@pytest.mark.parametrize("why", ["break-write", "limit", "restore"])
async def test_stream_is_not_preserved_ahead_where_a_failure_would_cost_a_write(why):
    """A write must not fail for chunks that it does not touch."""
    bench = big()
    progress = Progress.TO_MASTER if why == "restore" else Progress.IDLE
    copy = tuple(range(1024)) if why == "restore" else ()
    member = bench.add("/s", DEP, b"-" * 1024 * CHUNK, progress, copy)
    policy = {"break-write": Policy(break_write=True), "limit": Policy(limit_s=5)}
    member.amend(replace(member.header, policy=policy.get(why, Policy())))
    for operation in ("read", "write"):
        member.shadow.breaks.append(in_chunk(operation, 200))
    await stream(bench, 6)
    assert not member.state.offline
    assert durable(member)[1] == set(range(192))


async def test_short_writes_that_follow_each_other_are_no_stream():
    bench = big()
    member = bench.add("/s", DEP, b"-" * 1024 * CHUNK)
    count = family_module.STREAM_CHUNKS - 1
    await stream(bench, 20, count)
    assert durable(member)[1] == set(range(20 * count))


async def test_stream_goes_only_as_far_as_nobody_else_holds_chunks(nursery):
    bench = big()
    member = bench.add("/s", DEP, b"-" * 1024 * CHUNK)
    await stream(bench, 1)
    async with bench.family.locks.hold(Mode.READ, 66, 1):
        with trio.fail_after(30):
            await bench.view.write(32 * CHUNK, bytes(32 * CHUNK))
    assert durable(member)[1] == set(range(64))


async def test_random_first_touches_preserve_their_own_chunks_only():
    bench = big()
    member = bench.add("/s", DEP, b"-" * 1024 * CHUNK)
    for chunk in (7, 3, 900, 5, 4):
        await bench.view.write(chunk * CHUNK, b"x")
    assert durable(member)[1] == {7, 3, 900, 5, 4}
