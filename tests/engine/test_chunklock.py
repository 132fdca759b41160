"""Locks over runs of chunks, and the gate (invariants 8 and 10)."""

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from iifuse.core.bitmap import runs_of
from iifuse.data.chunklock import ChunkLocks, Mode

READ, WRITE, GATE = Mode.READ, Mode.WRITE, Mode.GATE
EVERYTHING = 1 << 40

modes = st.sampled_from([READ, WRITE, WRITE, GATE])
wholes = st.builds(
    lambda first, count: set(range(first, first + count)), st.integers(0, 6), st.integers(1, 4)
)
scattered = st.sets(st.integers(0, 9), min_size=1, max_size=5)
requests = st.lists(st.tuples(modes, wholes | scattered), min_size=1, max_size=9)
"""(mode, chunks)"""


def excludes(a, b) -> bool:
    """May two holders not hold at once? Written down anew, from the design."""
    if a[0] is not GATE and b[0] is not GATE and not a[1] & b[1]:
        return False
    return {a[0], b[0]} not in ({READ}, {READ, GATE})


def held_by(locks: ChunkLocks, mode: Mode, chunks: set[int]):
    """The request, with one run wherever that is possible."""
    if mode is GATE:
        return locks.gate()
    runs = runs_of(sum(1 << chunk for chunk in chunks), 0)
    return locks.hold(mode, *runs[0]) if len(runs) == 1 else locks.hold_runs(mode, runs)


class Crowd:
    """Holders that come in order and let go when they are told."""

    def __init__(self, wanted) -> None:
        self.locks, self.wanted = ChunkLocks(), wanted
        self.go = [trio.Event() for _ in wanted]
        self.holding: set[int] = set()
        self.granted: list[int] = []
        self.left: set[int] = set()
        self.scopes = [trio.CancelScope() for _ in wanted]

    async def come(self, number: int) -> None:
        held = held_by(self.locks, *self.wanted[number])
        with self.scopes[number]:
            async with held:
                self.holding.add(number)
                self.granted.append(number)
                try:
                    await self.go[number].wait()
                finally:
                    self.holding.discard(number)
        self.left.add(number)

    def check(self, arrived: int) -> None:
        """Exactly those hold whom nobody before them excludes."""
        expected = set()
        for number in range(arrived):
            earlier = [n for n in range(number) if n not in self.left]
            if number not in self.left and not any(
                excludes(self.wanted[n], self.wanted[number]) for n in earlier
            ):
                expected.add(number)
        assert self.holding == expected
        figures = self.locks.statistics()
        assert figures.held == len(expected)
        assert figures.waiting == arrived - len(self.left) - len(expected)


@given(requests, st.data())
@settings(deadline=None, max_examples=150)
def test_chunk_locks_exclude_and_serve_first_come_first(wanted, data):
    """Whatever order holders let go or give up in: no two that exclude each other, none starves."""

    async def crowd_of() -> None:
        crowd = Crowd(wanted)
        async with trio.open_nursery() as nursery:
            for number in range(len(wanted)):
                nursery.start_soon(crowd.come, number)
                await trio.testing.wait_all_tasks_blocked()
                crowd.check(number + 1)
            while len(crowd.left) < len(wanted):
                present = sorted(set(range(len(wanted))) - crowd.left)
                number = data.draw(st.sampled_from(present))
                if number in crowd.holding:
                    crowd.go[number].set()
                else:
                    crowd.scopes[number].cancel()
                await trio.testing.wait_all_tasks_blocked()
                assert number in crowd.left
                crowd.check(len(wanted))
        assert crowd.locks.statistics() == type(crowd.locks.statistics())(0, 0, False)

    trio.run(crowd_of)


async def hold_until(locks, mode, first, count, held: trio.Event, go: trio.Event) -> None:
    async with locks.hold(mode, first, count):
        held.set()
        await go.wait()


async def test_gate_drains_writes_and_holds_back_later_ones_but_lets_readers_pass(nursery):
    locks, held, go, entered = ChunkLocks(), trio.Event(), trio.Event(), trio.Event()
    nursery.start_soon(hold_until, locks, WRITE, 3, 1, held, go)
    await held.wait()
    later = trio.Event()

    async def flip() -> None:
        async with locks.gate():
            entered.set()
            assert locks.statistics().gate_closed
            assert not locks.free(WRITE, 90, 1)
            assert locks.free(READ, 90, 1)
            await later.wait()

    nursery.start_soon(flip)
    await trio.testing.wait_all_tasks_blocked()
    assert not entered.is_set()
    assert not locks.free(WRITE, 50, 1), "a write may not overtake a gate that waits"
    written, on = trio.Event(), trio.Event()
    nursery.start_soon(hold_until, locks, WRITE, 50, 1, written, on)
    go.set()
    await entered.wait()
    await trio.testing.wait_all_tasks_blocked()
    assert not written.is_set()
    later.set()
    await written.wait()
    on.set()


async def test_chunk_lock_of_a_reader_keeps_writers_off_and_shares_with_readers(nursery):
    locks, held, go = ChunkLocks(), trio.Event(), trio.Event()
    nursery.start_soon(hold_until, locks, READ, 0, 4, held, go)
    await held.wait()
    assert locks.free(READ, 2, 1)
    assert not locks.free(WRITE, 3, 1)
    assert locks.free(WRITE, 4, 1)
    go.set()
    await trio.testing.wait_all_tasks_blocked()
    assert locks.free(WRITE, 0, EVERYTHING)


async def test_chunk_lock_is_released_by_an_error_inside():
    locks = ChunkLocks()
    with pytest.raises(OSError, match="disk"):
        async with locks.hold(WRITE, 0, 1):
            raise OSError("disk")
    assert locks.statistics().held == 0


async def test_chunk_lock_over_several_runs_leaves_free_what_lies_between():
    locks = ChunkLocks()
    async with locks.hold_runs(WRITE, [(2, 2), (10, 1), (20, 5)]):
        for free in ((0, 2), (4, 6), (11, 9), (25, 9)):
            assert locks.free(WRITE, *free)
        for taken in ((0, 3), (3, 1), (4, 7), (10, 1), (11, 10), (24, 1), (0, EVERYTHING)):
            assert not locks.free(WRITE, *taken)
            assert not locks.free(READ, *taken)


async def test_gate_that_opens_for_many_asks_of_each_a_few_times_only(nursery, monkeypatch):
    """Each asking goes through all who are there: a gate must not open for seconds."""
    asked, real, count = [], ChunkLocks._first_come, 200

    def first_come(locks, index):
        asked.append(index)
        return real(locks, index)

    monkeypatch.setattr(ChunkLocks, "_first_come", first_come)
    locks, done = ChunkLocks(), []

    async def write(chunk: int) -> None:
        async with locks.hold(WRITE, chunk, 1):
            await trio.lowlevel.checkpoint()
            done.append(chunk)

    async with locks.gate():
        for chunk in range(count):
            nursery.start_soon(write, chunk)
        await trio.testing.wait_all_tasks_blocked()
    await trio.testing.wait_all_tasks_blocked()
    assert len(done) == count
    assert len(asked) <= 3 * count
