"""What a failure drags along, and that nobody else pays for it (invariants 4, 9)."""

import threading
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing
from fake_volume import Bench, always, chunks, durable, in_chunk
from harness import CHUNK

from iifuse.core.state import Kind, Policy, Progress, Role
from iifuse.core.touch import Clear, Side, Sync, Touch
from iifuse.data.family import TouchFailed

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
NOTHING = Role(0)


@pytest.fixture
def bench():
    return Bench(chunks("a", "b", "c", "d"))


async def together(bench, *calls) -> list[Exception | None]:
    """Let calls gather in one batch; what each of them raised."""
    found: list[Exception | None] = [None] * len(calls)

    async def one(number, call) -> None:
        try:
            await call()
        except OSError as error:
            found[number] = error

    commits = bench.family._commits
    async with trio.open_nursery() as nursery:
        commits.is_led = True  # as if a batch were running
        for number, call in enumerate(calls):
            nursery.start_soon(one, number, call)
            await trio.testing.wait_all_tasks_blocked()
        commits._pass_on()
    return found


async def test_first_touch_preserves_then_marks_then_writes(bench):
    member = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    assert await bench.view.write(CHUNK + 5, b"new") == 3
    steps = [step for step in bench.diary if step[1] != "read"]
    writes = [path for path, operation in steps if operation == "write"]
    assert writes == ["/s", "/s.b", "/m"], "of the bitmap only the sector that changes"
    for path in ("/s", "/s.b"):
        assert (path, "sync") in steps[: steps.index(("/m", "write"))]
    assert steps.index(("/s", "sync")) < steps.index(("/s.b", "write"))
    assert member.shadow.durable[CHUNK : 2 * CHUNK] == chunks("b")
    assert durable(member)[1] == {1}
    assert (await bench.shadow_view(member).read(0, 4 * CHUNK)) == chunks("a", "b", "c", "d")


async def test_second_write_of_a_chunk_touches_nothing_but_the_volume(bench):
    bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    await bench.view.write(CHUNK, b"new")
    bench.diary.clear()
    await bench.view.write(CHUNK + 9, b"again")
    assert bench.diary == [("/m", "write")]


async def test_preserve_that_cannot_read_the_master_costs_that_shadow_not_the_write(bench):
    lost = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    safe = bench.add("/t", IND, chunks("a", "b", "c", "d"))
    bench.master.breaks.append(in_chunk("read", 2))
    await bench.view.write(2 * CHUNK, b"new")
    assert bench.master.chunk(2).startswith(b"new")
    assert durable(lost)[0].offline == Role.SHADOW
    assert "planted" in durable(lost)[0].offline_reason
    assert durable(safe)[0].offline == NOTHING
    assert 2 in durable(safe)[1]
    with pytest.raises(OSError, match="planted"):
        await bench.shadow_view(lost).read(0, 10)
    await bench.view.write(3 * CHUNK, b"more")


@pytest.mark.parametrize("operation", ["write", "sync"])
async def test_shadow_that_fails_in_a_preserve_goes_offline_and_the_write_goes_on(bench, operation):
    member = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    member.shadow.breaks.append(always(operation))
    await bench.view.write(0, b"new")
    assert bench.master.chunk(0).startswith(b"new")
    assert durable(member)[0].offline == Role.SHADOW
    assert durable(member)[1] == set(), "no bit may speak of a chunk that was not preserved"


@pytest.mark.parametrize(
    ("kind", "offline"), [(IND, Role.BITMAP), (DEP, Role.BITMAP | Role.SHADOW)]
)
async def test_bitmap_that_fails_goes_offline_with_what_needs_it(bench, kind, offline):
    """Its header can still be written here: sectors of bits are broken, no more."""
    member = bench.add("/s", kind, chunks("a", "b", "c", "d"))
    member.bitmap.volume.breaks.append(
        lambda operation, offset, length: operation == "write" and offset >= 24 * 1024
    )
    await bench.view.write(0, b"new")
    assert bench.master.chunk(0).startswith(b"new")
    assert member.state.offline == durable(member)[0].offline == offline
    with pytest.raises(OSError, match="planted"):
        await bench.shadow_view(member).write(CHUNK, b"x")


async def test_failure_that_cannot_even_be_noted_is_an_error_of_the_write(bench):
    """Design, section 3; else a restart would believe bits that lack this write."""
    member = bench.add("/s", IND, chunks("a", "b", "c", "d"))
    member.bitmap.volume.breaks += [always("write"), always("sync")]
    with pytest.raises(OSError):
        await bench.view.write(0, b"new")
    assert bench.master.chunk(0) == chunks("a")


async def test_restore_error_is_told_to_the_writes_that_need_the_chunk_only(bench):
    member = bench.add("/s", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (0, 1, 2))
    member.shadow.breaks.append(in_chunk("read", 1))
    found = await together(
        bench,
        lambda: bench.view.write(0, b"zero"),
        lambda: bench.view.write(CHUNK, b"one"),
        lambda: bench.view.write(2 * CHUNK, b"two"),
        lambda: bench.view.write(3 * CHUNK, b"three"),
    )
    assert isinstance(found[1], TouchFailed)
    assert found[0] is found[2] is found[3] is None
    assert bench.master.chunk(0) == b"zero" + chunks("A")[4:]
    assert bench.master.chunk(1) == chunks("b"), "nothing is written over half a truth"
    assert bench.master.chunk(2) == b"two" + chunks("C")[3:]
    header, shadow, copy = durable(member)
    assert (shadow, copy) == ({0, 2, 3}, {1})
    assert Role.MASTER not in header.offline


async def test_restore_error_does_not_hurt_a_sibling(bench):
    member = bench.add("/s", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (1,))
    sibling = bench.add("/t", DEP, chunks("-", "-", "-", "-"))
    member.shadow.breaks.append(in_chunk("read", 1))
    with pytest.raises(TouchFailed):
        await bench.view.write(CHUNK, b"one")
    await bench.view.write(0, b"zero")
    assert await bench.shadow_view(sibling).read(0, 4 * CHUNK) == chunks("a", "b", "c", "d")
    assert sibling.state.offline == NOTHING


async def test_cleared_copy_bits_that_fail_do_not_fail_writes_that_share_the_batch(bench):
    """A restore whose bitmap fails while it clears bits: an unrelated write goes on."""
    member = bench.add("/s", IND, chunks("A", "b", "c", "d"), Progress.TO_MASTER, (0,))
    sibling = bench.add("/t", DEP, chunks("-", "-", "-", "-"))
    member.bitmap.volume.breaks.append(
        lambda operation, offset, length: operation == "write" and offset >= 24 * 1024
    )
    found = await together(
        bench,
        lambda: bench.family.clear((Clear(member.key, ((0, 1),)), Sync(member.key, Role.BITMAP))),
        lambda: bench.shadow_view(sibling).write(3 * CHUNK, b"mine"),
    )
    assert found[1] is None
    assert sibling.shadow.chunk(3) == b"mine" + chunks("d")[4:]
    assert sibling.state.offline == NOTHING


async def test_group_commit_of_many_first_touches_syncs_once():
    bench = Bench(bytes(200 * CHUNK))
    bench.add("/s", DEP, bytes(200 * CHUNK))
    writes = [partial(bench.view.write, number * 2 * CHUNK, b"x") for number in range(50)]
    assert not any(await together(bench, *writes))
    assert bench.diary.count(("/s", "sync")) == bench.diary.count(("/s.b", "sync")) == 1


async def test_touch_of_the_raw_master_serves_the_siblings_only(bench):
    member = bench.add("/s", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (1,))
    sibling = bench.add("/t", DEP, chunks("-", "-", "-", "-"))
    await bench.family.touch(Touch(Side.RAW, member.key, 1, 1))
    assert sibling.shadow.chunk(1) == chunks("b")
    assert durable(sibling)[1] == {1}
    assert durable(member)[1:] == (set(), {1})


# -- a plan that is refused half-way ----------------------------------------------------------


@pytest.mark.parametrize("ordered", [True, False])
async def test_refused_write_leaves_no_mark_for_a_later_one_to_write(ordered):
    """Invariant 4: a bit that a restart believes has its chunk on the shadow.

    The mark of the first set was begun when the second one, a restore that lacks its shadow,
    refused the write; the next mark of the first set must know nothing of it.
    """
    bench = Bench(chunks("a", "b", "c", "d"), ordered=ordered)
    sibling = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    lost = bench.add("/t", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (1, 3))
    await lost.take_offline(Role.SHADOW, "planted")
    with pytest.raises(OSError, match="planted"):
        await bench.view.write(CHUNK, b"refused")
    assert await bench.view.write(2 * CHUNK, b"new") == 3
    await bench.view.sync()
    found = durable(sibling)[1]
    assert 2 in found
    for chunk in found:
        assert sibling.shadow.chunk(chunk) == chunks("abcd"[chunk])


# -- a restore and what its siblings preserve -------------------------------------------------


@pytest.mark.parametrize("break_write", [True, False])
async def test_restore_waits_for_what_a_sibling_has_preserved_or_is_noted_to_have_lost(
    bench, break_write
):
    """Invariants 3 and 9: the raw master changes only then, also when the write is refused."""
    sibling = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    sibling.amend(replace(sibling.header, policy=Policy(break_write=break_write)))
    bench.add("/t", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (0, 1, 2, 3))
    sibling.shadow.breaks.append(in_chunk("write", 1))
    noted = []
    bench.master.hooks["write"] = lambda: noted.append(durable(sibling)[0].offline)
    with suppress(TouchFailed):
        await bench.view.write(CHUNK + 5, b"new")
    if break_write:
        assert bench.master.chunk(1) == chunks("b"), "refused, and so nothing has changed"
        assert not noted
    else:
        assert noted == [Role.SHADOW]


async def test_restore_of_a_batch_whose_sibling_fails_once_preserves_the_right_content(bench):
    """What is repeated write by write must not find raw chunks that the first try restored."""
    sibling = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    sibling.amend(replace(sibling.header, policy=Policy(break_write=True)))
    bench.add("/t", IND, chunks("A", "B", "C", "D"), Progress.TO_MASTER, (0, 1, 2, 3))
    sibling.shadow.breaks.append(in_chunk("write", 1))
    writes = [partial(bench.view.write, chunk * CHUNK + 5, b"new") for chunk in range(4)]
    failed = await together(bench, *writes)
    assert [isinstance(error, TouchFailed) for error in failed] == [False, True, False, False]
    seen = await bench.shadow_view(sibling).read(0, 4 * CHUNK)
    assert seen == chunks("a", "b", "c", "d")


async def test_write_refused_by_a_shadow_that_hangs_leaves_no_mark_either():
    bench = Bench(chunks("a", "b", "c", "d"))
    sibling = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    hanging = bench.add("/t", DEP, chunks("-", "-", "-", "-"))
    hanging.amend(replace(hanging.header, policy=Policy(limit_s=1, break_write=True)))
    release = threading.Event()
    hanging.shadow.hooks["write"] = partial(release.wait, 30)
    try:
        with pytest.raises(OSError, match="no answer"):
            await bench.view.write(3 * CHUNK, b"hangs")
        assert hanging.stuck
        with pytest.raises(OSError, match="not come back"):
            await bench.view.write(CHUNK, b"refused")
        hanging.bits.shadow.set(2, 1)
        hanging.bits.ready.set(2, 1)
        assert await bench.view.write(2 * CHUNK, b"new") == 3
        assert 1 not in durable(sibling)[1]
    finally:
        release.set()


async def test_notes_of_a_lost_bitmap_are_written_one_after_the_other(bench):
    """Invariant 9: else the older one's bits may come last, and stay."""
    member = bench.add("/s", DEP, chunks("-", "-", "-", "-"))
    release, order, real = threading.Event(), [], member.bitmap.write_anew

    def write_anew(*what):
        order.append("begins")
        release.wait(30)
        order.append("ends")
        return real(*what)

    member.bitmap.write_anew = write_anew
    async with trio.open_nursery() as notes:
        notes.start_soon(member.note_again)
        notes.start_soon(member.note_again)
        await trio.testing.wait_all_tasks_blocked(0.1)
        assert order == ["begins"]
        release.set()
    assert order == ["begins", "ends"] * 2
