"""Group commit: who waits at the same moment shares one batch."""

from itertools import chain

import pytest
import trio
import trio.testing

from iifuse.data.batch import BATCH_MAX, Batcher


class Work:
    """Batches as they come, each held until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.gates: list[trio.Event] = []
        self.errors: dict[str, Exception] = {}
        self.defect: Exception | None = None

    async def __call__(self, items):
        self.batches.append(items)
        self.gates.append(trio.Event())
        await self.gates[-1].wait()
        if self.defect is not None:
            raise self.defect
        return [self.errors.get(item) for item in items]


async def submit(batcher, item, done: dict) -> None:
    try:
        await batcher.submit(item)
        done[item] = None
    except Exception as error:
        done[item] = error


async def start(nursery, batcher, items, done) -> None:
    for item in items:
        nursery.start_soon(submit, batcher, item, done)
        await trio.testing.wait_all_tasks_blocked()


async def test_batch_gathers_all_who_come_while_another_runs(nursery):
    work, done = Work(), {}
    batcher = Batcher(work)
    await start(nursery, batcher, "abcd", done)
    assert work.batches == [["a"]]
    work.gates[0].set()
    await trio.testing.wait_all_tasks_blocked()
    assert work.batches == [["a"], ["b", "c", "d"]]
    assert done == {"a": None}, "nobody returns before the own batch is done"
    work.gates[1].set()
    await trio.testing.wait_all_tasks_blocked()
    assert done == dict.fromkeys("abcd")


async def test_batch_has_a_largest_size_and_nobody_overtakes(nursery):
    work, done, count = Work(), {}, 2 * BATCH_MAX + 5
    batcher = Batcher(work)
    await start(nursery, batcher, [str(number) for number in range(1 + count)], done)
    for number in range(4):
        work.gates[number].set()
        await trio.testing.wait_all_tasks_blocked()
    assert [len(batch) for batch in work.batches] == [1, BATCH_MAX, BATCH_MAX, 5]
    assert list(chain(*work.batches)) == [str(number) for number in range(1 + count)]
    assert len(done) == 1 + count


async def test_batch_errors_reach_those_whose_items_failed(nursery):
    work, done = Work(), {}
    work.errors["c"] = OSError("of c")
    batcher = Batcher(work)
    await start(nursery, batcher, "abcd", done)
    for number in (0, 1):
        work.gates[number].set()
        await trio.testing.wait_all_tasks_blocked()
    assert done == {"a": None, "b": None, "c": work.errors["c"], "d": None}


async def test_batch_that_breaks_tells_all_who_wait_in_it_and_the_next_one_works(nursery):
    work, done = Work(), {}
    batcher = Batcher(work)
    await start(nursery, batcher, "abc", done)
    work.gates[0].set()
    await trio.testing.wait_all_tasks_blocked()
    work.defect = OSError("defect")
    await start(nursery, batcher, "d", done)
    work.gates[1].set()
    await trio.testing.wait_all_tasks_blocked()
    assert done == {"a": None, "b": work.defect, "c": work.defect}
    work.defect = None
    work.gates[2].set()
    await trio.testing.wait_all_tasks_blocked()
    assert done["d"] is None


@pytest.mark.parametrize("number", [0, 1, 2])
async def test_batch_of_a_waiter_that_is_cancelled_is_finished_all_the_same(nursery, number):
    work, done = Work(), {}
    batcher, scopes = Batcher(work), [trio.CancelScope() for _ in range(3)]

    async def cancellable(index: int) -> None:
        with scopes[index]:
            await submit(batcher, index, done)

    for index in range(3):
        nursery.start_soon(cancellable, index)
        await trio.testing.wait_all_tasks_blocked()
    scopes[number].cancel()
    await trio.testing.wait_all_tasks_blocked()
    for batch in (0, 1):
        work.gates[batch].set()
        await trio.testing.wait_all_tasks_blocked()
    assert work.batches == [[0], [1, 2]]
    assert {n for n in range(3) if n in done} >= {0, 1, 2} - {number}
