"""`--give-up` is killed at each of its steps: the next start ends it, or nothing has happened."""

import logging

import pytest
from loss_cells import Bench, Cell

from iifuse.control import protocol
from iifuse.core import change
from iifuse.verbs import giveup

STEPS = change.give_up(None)


class Killed(BaseException):
    """No handler of the service takes it for an error of a disk."""


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.parametrize("state", ["ind to_master", "dep to_master"])
@pytest.mark.parametrize("done", range(len(STEPS) + 1))
@pytest.mark.parametrize("shadow", ["there", "lost"])
async def test_give_up_that_is_cut_short_is_ended_by_the_next_start(
    place, monkeypatch, state, done, shadow
):
    lost = (("s", "deleted"),) if shadow == "lost" else ()
    bench, left = Bench(place / "cell", Cell(state, lost, "kill")), done
    await bench.build()
    async with bench.service(cleanly=False):
        before = await row(bench)
        master = bench.paths["m"].read_bytes()
        real = giveup.execute_change

        def until_killed(*step):
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(*step)

        monkeypatch.setattr(giveup, "execute_change", until_killed)
        if done < len(STEPS):
            with pytest.raises(Killed):
                await bench.do("--give-up", sure=True)
        else:
            await bench.do("--give-up", sure=True)
        monkeypatch.setattr(giveup, "execute_change", real)
    async with bench.service(cleanly=False):
        after = await row(bench)
    assert bench.paths["m"].read_bytes() == master
    if not done:
        assert (after.progress, after.copy_bits) == (before.progress, before.copy_bits)
    else:
        assert (after.progress, after.copy_bits) == ("idle", 0)
        assert after.shadow_bits >= before.copy_bits
        assert after.pit == before.pit


async def row(bench):
    (found,) = await bench.ask(protocol.Status(bench.target))
    return found
