"""The bitmap of an import is what is joined: one that lost its name is not closed unasked."""

import logging
import os

import pytest
from harness import CHUNK
from real_engine import service

from iifuse import errors
from iifuse.core.state import Kind
from iifuse.verbs import enable, exchange, late, questions
from iifuse.verbs.exchange import Borrowing
from iifuse.verbs.opening import NewSet


@pytest.mark.parametrize("role", ["bitmap", "shadow"])
async def test_disable_of_an_import_asks_before_it_closes_what_lost_its_name(place, caplog, role):
    caplog.set_level(logging.CRITICAL)
    master, shadow, bitmap, second = (str(place / name) for name in ("m", "s", "b", "b2"))
    (place / "m").write_bytes(os.urandom(4 * CHUNK))
    async with service(place / "lender") as instance:
        member = await enable.enable(instance, NewSet(Kind.INDEPENDENT, master, shadow, bitmap))
        copier = instance.running(member)
        if copier is not None:
            await copier.wait()
        await exchange.export(instance, member)
    lost = {"bitmap": second, "shadow": shadow}[role]
    async with service(place / "state") as instance:
        await exchange.take_in(instance, Borrowing(shadow, second))
        member = instance.sets[shadow]
        await questions.before_disable(instance, [member], sure=False)
        os.unlink(lost)
        await late.look(instance)
        with pytest.raises(errors.Question, match=f"{lost}: this would close the file"):
            await questions.before_disable(instance, [member], sure=False)
        await questions.before_disable(instance, [member], sure=True)
