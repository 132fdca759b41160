"""The engine on real files, without a mount: what is written while a verb is under way."""

import threading
from functools import partial

import pytest
import trio
import trio.testing
from bitmaps import chunks_of
from fake_volume import chunks
from harness import CHUNK
from real_engine import service

from iifuse import errors
from iifuse.core.state import Custody, Kind, Policy
from iifuse.verbs import attach, enable, exchange, loading, passthrough
from iifuse.verbs.opening import NewSet


@pytest.fixture
async def stopped(tmp_path):
    """The paths of a whole independent set that was stopped cleanly: master, shadow, bitmap."""
    paths = [str(tmp_path / name) for name in ("m", "s", "b")]
    (tmp_path / "m").write_bytes(chunks("a", "b", "c", "d"))
    async with service(tmp_path / "state") as instance:
        member = await enable.enable(instance, NewSet(Kind.INDEPENDENT, *paths))
        if (copier := instance.copiers.get(member.key)) is not None:
            await copier.wait()
    return paths


async def test_write_that_comes_while_a_set_is_attached_is_noted(tmp_path, stopped, monkeypatch):
    """F15: between the look at the master's times and the first tracked write there is no gap."""
    master, shadow, bitmap = stopped
    look = loading.written_meanwhile
    async with trio.open_nursery() as nursery, service(tmp_path / "new") as instance:

        def look_and_write(*volumes):
            found = look(*volumes)
            write = partial(instance.views[master].write, 2 * CHUNK, b"meanwhile")
            trio.from_thread.run_sync(nursery.start_soon, write)
            trio.from_thread.run(trio.testing.wait_all_tasks_blocked)
            return found

        await passthrough.control(instance, (master,))
        monkeypatch.setattr(loading, "written_meanwhile", look_and_write)
        await attach.attach(instance, (bitmap,), None)
        async with instance.families[0].locks.gate():  # after the write
            assert chunks_of(instance.sets[shadow].bits.shadow) == {2}


@pytest.mark.parametrize("verb", [enable.disable, exchange.export])
async def test_verb_that_waits_for_a_shadow_that_hangs_holds_up_no_write(tmp_path, stopped, verb):
    """F27: it syncs the shadow, and not first of all while it holds the master's gate."""
    master, shadow, _ = stopped
    with trio.fail_after(60):
        async with service(tmp_path / "state") as instance:
            member, released = instance.sets[shadow], threading.Event()
            await enable.tune(instance, member, Policy(limit_s=1))
            real, member.shadow.sync = member.shadow.sync, lambda: released.wait(50)
            try:
                with pytest.raises(errors.Busy, match="has not come back"):
                    await verb(instance, member)
                assert await instance.views[master].write(0, b"new") == 3
            finally:
                released.set()
            member.shadow.sync = real
            assert shadow in instance.views
            assert member.header.custody is Custody.LOCAL
