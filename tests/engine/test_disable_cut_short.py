"""A disable that was cut short is ended as soon as the bitmap tells how far it had come."""

import logging
import os

import pytest
from loss_cells import Bench, Cell

from iifuse.core.header import Closure
from iifuse.core.state import Custody, Progress, Role
from iifuse.verbs import late


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


async def cut_short(bench, *, closed):
    """The disable has begun, and the service is killed; its bitmap is away at the next starts."""
    await bench.build()
    async with bench.service(cleanly=False):
        (member,) = bench.instance.sets.values()
        bench.instance.db.closing(bench.shadow, True)
        if closed:
            await member.save_exact(closure=Closure.CLOSED, clean=True)
    os.rename(bench.paths["b"], bench.root / "away")
    for _ in range(2):
        async with bench.service(cleanly=False):
            (member,) = bench.instance.sets.values()
            assert member.lacks(Role.BITMAP)


@pytest.mark.parametrize("state", ["ind idle", "dep idle"])
async def test_bitmap_that_was_closed_ends_the_disable_when_it_is_back(place, state):
    bench = Bench(place / "cell", Cell(state, (), "kill"))
    await cut_short(bench, closed=True)
    before = bench.paths["s"].read_bytes()
    async with bench.service():
        os.rename(bench.root / "away", bench.paths["b"])
        view = bench.instance.views[bench.shadow]
        view.opens += 1
        await late.look(bench.instance)
        assert bench.shadow in bench.instance.sets, "somebody has it open"
        view.opens -= 1
        await late.look(bench.instance)
        assert not bench.instance.sets
        assert not bench.instance.families
        assert not bench.instance.views
        assert bench.instance.db.sets() == []
        assert (bench.paths["s"].read_bytes() == before) == (state == "ind idle"), "wiped"


async def test_bitmap_that_was_not_closed_brings_its_set_back(place):
    bench = Bench(place / "cell", Cell("ind idle", (), "kill"))
    await cut_short(bench, closed=False)
    async with bench.service():
        os.rename(bench.root / "away", bench.paths["b"])
        await late.look(bench.instance)
        (member,) = bench.instance.sets.values()
        assert not member.missing
        assert not bench.instance.db.sets()[0].closing


async def test_end_of_a_copy_takes_nothing_back_that_a_verb_has_announced(place):
    """A start without the bitmap would show a shadow that is lent."""
    bench = Bench(place / "cell", Cell("ind idle", (), "stop"))
    await bench.build()
    async with bench.service():
        (member,) = bench.instance.sets.values()
        notes, db = bench.instance.notes, bench.instance.db
        async with notes.announced({member: (Progress.IDLE, Custody.EXPORTED)}):
            await notes.remember(member)
            assert db.sets()[0].custody is Custody.EXPORTED
        assert db.sets()[0].custody is Custody.LOCAL, "what came in between is made up for"
