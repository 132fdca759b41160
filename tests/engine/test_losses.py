"""Every way to lose volumes in every state of the state table, and every verb after it.

Nothing that may be the only copy is overwritten without a question that names it, and from every
state some sequence of verbs leads out, which the refusals themselves name. A sample here, all of
it in `make test-long`.
"""

import logging
from functools import partial

import pytest
import trio
from harness import CHUNK
from loss_cells import VERBS, Bench, Cell, cells, find_losses, find_way_out, verbs_in
from samples import sample

from iifuse import errors

CELLS = list(cells())
FOR_LOSSES, FOR_WAYS = 14, 16
"""So many take about half a minute together."""


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.fixture
def run(place):
    """Run what a cell is asked; its answer."""

    def call(ask, cell):
        return trio.run(partial(ask, place / "cell", cell))

    return call


@pytest.mark.parametrize("cell", sample(CELLS, FOR_LOSSES, "losses"), ids=str)
def test_loss_of_volumes_lets_no_verb_overwrite_the_only_copy(run, cell):
    assert run(find_losses, cell) == []


@pytest.mark.parametrize("cell", sample(CELLS, FOR_WAYS, "ways out"), ids=str)
def test_loss_of_volumes_leaves_a_way_out_that_is_named(run, cell):
    assert run(find_way_out, cell)


def test_losses_are_the_whole_matrix():
    """Six states, one or two of three volumes, five ways each, two ways to go down."""
    assert len(CELLS) == len(set(map(str, CELLS))) == 6 * (3 * 5 + 3 * 25) * 2


def test_message_that_names_verbs_is_read_as_a_user_reads_it():
    text = "put it back ('-R'), or '--give-up'; 'iiadm -u m' goes on (-d), see 'iiadm -i' -E"
    assert verbs_in(text) == ["-R", "--give-up", "-u m", "-d"]
    assert verbs_in(" ".join(f"'{verb}'" for verb in VERBS)) == list(VERBS)


async def _questions(root, cell):
    """The verbs that ask, and what their questions name."""
    bench, found = Bench(root, cell), {}
    await bench.build()
    async with bench.service():
        for verb in VERBS:
            try:
                await bench.do(verb, sure=False)
            except errors.Question as error:
                found[verb] = str(error)
            except errors.IifuseError:
                continue
    return found


def test_question_names_what_is_overwritten(run, place):
    """The matrix looks for changes; this looks at the words."""
    cell = Cell("ind to_master", (("s", "deleted"),), "stop")
    found = run(_questions, cell)
    assert set(found) == {"--give-up"}
    assert str(place / "cell" / "m") in found["--give-up"]
    assert f"{CHUNK // 1024} KiB" in found["--give-up"]
