"""A set that waits for its bitmap: what a verb changed would be forgotten when that is back."""

import logging
import os

import pytest
from loss_cells import Bench, Cell

from iifuse import errors
from iifuse.control import protocol


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


async def test_restore_that_would_go_on_is_not_said_to_be_aborted(place):
    bench = Bench(place / "cell", Cell("ind to_master", (), "kill"))
    await bench.build()
    async with bench.service(cleanly=False):
        (member,) = bench.instance.sets.values()
        await member.commit(copying=True)  # as if it had been killed in the middle
    os.rename(bench.paths["b"], place / "away")
    async with bench.service(cleanly=False):
        with pytest.raises(errors.Refused, match="-a is not possible: waiting for the bitmap"):
            await bench.do("-a", sure=True)
        os.rename(place / "away", bench.paths["b"])
        bench.instance.start_copy = lambda _: None
        await bench.do("-a", sure=True)
        (member,) = bench.instance.sets.values()
        assert member.restoring
        assert not member.header.copying


async def test_abort_of_a_set_that_has_nothing_to_abort_is_no_failure(place):
    bench = Bench(place / "cell", Cell("ind idle", (("b", "deleted"),), "stop"))
    await bench.build()
    async with bench.service():
        await bench.do("-a", sure=True)


async def test_export_that_is_given_again_is_refused_in_words(place):
    bench = Bench(place / "cell", Cell("ind exported", (("b", "deleted"),), "stop"))
    await bench.build()
    async with bench.service():
        with pytest.raises(errors.Refused, match="-E is not possible: waiting for the bitmap"):
            await bench.ask(protocol.Export(bench.target, again=True))


async def test_tuning_of_several_sets_of_which_one_waits_changes_none(place):
    """What would refuse one set refuses all, before the first is touched."""
    bench = Bench(place / "cell", Cell("ind idle", (("b", "deleted"),), "stop"))
    await bench.build()
    async with bench.service():
        names = [str(place / "cell" / name) for name in ("m2", "s2", "b2")]
        (place / "cell" / "m2").write_bytes(bytes(1 << 17))
        await bench.ask(protocol.Enable("dep", *names))
        both = protocol.Target((names[1], bench.shadow))
        with pytest.raises(errors.Refused, match="waiting for the bitmap"):
            await bench.ask(protocol.Tune(both, protocol.Tuning(limit_s=5)))
        assert not bench.instance.sets[names[1]].policy.limit_s
