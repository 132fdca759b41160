"""A verb runs as a task of its own: whatever becomes of it is answered, and ends nothing else."""

import errno

import pytest
import trio
import trio.testing
from fake_volume import chunks
from real_engine import service

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.dispatch import Dispatcher
from iifuse.control.protocol import ServiceInfo, Target
from iifuse.host.verblocks import VerbLocks
from iifuse.verbs import enable, late

BROKEN = {
    "disk": OSError(errno.EIO, "the state database failed"),
    "explained": errors.StorageError("/state", "it is full"),
    "defect": ValueError("a defect"),
}


@pytest.mark.parametrize("error", BROKEN.values(), ids=BROKEN)
async def test_error_of_the_look_before_a_verb_is_answered(tmp_path, monkeypatch, error):
    """Not raised by a task of the loop: that would end the service with every mount."""

    async def look(*_):
        raise error

    master, shadow = tmp_path / "m", str(tmp_path / "s")
    master.write_bytes(chunks("a", "b"))
    enable = protocol.Enable("ind", str(master), shadow, str(tmp_path / "b"), None)
    async with service(tmp_path / "state") as instance:
        dispatcher = Dispatcher(instance, ServiceInfo("", 1, "/mnt", "/state", "/socket"))
        with monkeypatch.context() as patch, pytest.raises(type(error)):
            patch.setattr(late, "look", look)
            await dispatcher.answer(enable)
        await dispatcher.answer(enable)  # nothing is claimed any more
        (found,) = await dispatcher.answer(protocol.Status(Target((shadow,))))
        assert found.shadow == shadow


async def test_verb_works_on_nothing_that_it_has_not_claimed(tmp_path, monkeypatch):
    """A set that comes into a group while a verb looks is claimed before the verb begins."""
    claims = []
    async with service(tmp_path / "state") as instance:
        dispatcher = Dispatcher(instance, ServiceInfo("", 1, "/mnt", "/state", "/socket"))
        masters, shadows = [], []
        for number, group in enumerate(["g", None]):
            masters.append(tmp_path / f"m{number}")
            masters[-1].write_bytes(chunks("a", "b"))
            shadows.append(str(tmp_path / f"s{number}"))
            bitmap = str(tmp_path / f"b{number}")
            await dispatcher.answer(
                protocol.Enable("dep", str(masters[-1]), shadows[-1], bitmap, group)
            )

        async def look(_, held):
            claims.append(held)
            instance.sets[shadows[1]].group = "g"

        monkeypatch.setattr(late, "look", look)
        await dispatcher.answer(protocol.Update("s", False, Target(group="g"), sure=True))
        names = list(map(str, masters))
        assert [claim & set(names) for claim in claims] == [{names[0]}, set(names)]
        assert [instance.sets[s].header.pit.number for s in shadows] == [2, 2]


async def test_enable_by_another_name_waits_for_who_works_on_the_master(tmp_path, monkeypatch):
    """Else a set could begin at a master that is being restored."""
    opened, asked = [], trio.Event()
    real_open, real_also = enable.open_set, VerbLocks.also

    def open_set(*words):
        opened.append(words)
        return real_open(*words)

    def also(locks, what):
        asked.set()
        return real_also(locks, what)

    monkeypatch.setattr(enable, "open_set", open_set)
    master, alias = tmp_path / "m", tmp_path / "alias"
    master.write_bytes(chunks("a", "b"))
    alias.symlink_to(master)
    async with service(tmp_path / "state") as instance:
        dispatcher = Dispatcher(instance, ServiceInfo("", 1, "/mnt", "/state", "/socket"))
        first, second = (
            protocol.Enable("dep", str(path), *(str(tmp_path / f"{n}{number}") for n in "sb"), None)
            for number, path in enumerate((master, alias))
        )
        await dispatcher.answer(first)
        opened.clear()
        monkeypatch.setattr(VerbLocks, "also", also)
        claim = instance.verb_locks.claimed({str(master)})
        async with trio.open_nursery() as nursery, claim:  # which ends first
            nursery.start_soon(dispatcher.answer, second)
            await asked.wait()
            await trio.testing.wait_all_tasks_blocked()
            assert not opened
        assert opened
        assert len(instance.sets) == 2
