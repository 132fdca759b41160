"""A group's PIT is one instant, with writers running on all of its masters."""

import os
import random
import struct
import threading
from uuid import uuid4

import pytest
from devices import eventually
from harness import CHUNK

from iifuse.control import protocol
from iifuse.control.protocol import SetStatus, Target
from iifuse.core.state import Change
from iifuse.core.transition import Member, Transition
from iifuse.store.transitions import TransitionFile

CELLS = 64
ROUNDS = 12


class DependentWriter(threading.Thread):
    """Writes number n to a cell of the first volume, then to that of the second, and so on.

    Each write begins after the one before was acknowledged, so at any instant the second volume's
    number is the first's or one less.
    """

    def __init__(self, paths, seed):
        super().__init__()
        self.files = [os.open(p, os.O_RDWR) for p in paths]
        self.stopping = threading.Event()
        self.random = random.Random(seed)
        self.numbers = [0] * CELLS
        self.failure = None

    def run(self):
        try:
            while not self.stopping.is_set():
                cell = self.random.randrange(CELLS)
                self.numbers[cell] += 1
                for fd in self.files:
                    os.pwrite(fd, struct.pack("<Q", self.numbers[cell]), cell * CHUNK + 100)
        except OSError as error:
            self.failure = error
        finally:
            for fd in self.files:
                os.close(fd)

    def stop(self):
        self.stopping.set()
        self.join()
        assert self.failure is None


def numbers(data):
    return [struct.unpack_from("<Q", data, cell * CHUNK + 100)[0] for cell in range(CELLS)]


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_group_update_is_one_instant_for_dependent_writes(service, volume, place, kind):
    size = CELLS * CHUNK
    masters = [volume(f"m{i}", size) for i in range(3)]
    for master in masters:
        master.write_bytes(bytes(size))
    shadows = [place / f"s{i}" for i in range(3)]
    for master, shadow in zip(masters, shadows, strict=True):
        service.enable(kind, master, shadow, group="g")
    writer = DependentWriter([service.path(m) for m in masters], seed=kind)
    writer.start()
    try:
        last = [0] * CELLS
        for _ in range(ROUNDS):
            rows = service.client.call(
                protocol.Update("s", False, Target(group="g")), list[SetStatus]
            )
            assert len({row.pit_id for row in rows}) == 1
            seen = [numbers(service.read(s)) for s in shadows]
            for first, second, third in zip(*seen, strict=True):
                assert second in (first, first - 1)
                assert third in (second, second - 1)
                assert first - third <= 1
            assert all(new >= old for new, old in zip(seen[0], last, strict=True))
            last = seen[0]
        assert sum(last) > 0
    finally:
        writer.stop()


def test_group_restore_is_one_instant_and_masters_are_usable_at_once(service, volume, place):
    masters = [volume(f"m{i}") for i in range(2)]
    shadows = [place / f"s{i}" for i in range(2)]
    for master, shadow in zip(masters, shadows, strict=True):
        service.enable("ind", master, shadow, group="g")
    service.wait(*shadows)
    before = [service.read(m) for m in masters]
    for master in masters:
        service.write(master, 1000, os.urandom(5 * CHUNK))
    service.client.call(protocol.Update("m", False, Target(group="g"), sure=True), list[SetStatus])
    assert [service.read(m) for m in masters] == before
    service.wait(*shadows)
    assert [m.read_bytes() for m in masters] == before


def test_group_command_refused_by_one_member_changes_none(service, volume, place):
    masters = [volume(f"m{i}") for i in range(2)]
    shadows = [place / f"s{i}" for i in range(2)]
    for master, shadow in zip(masters, shadows, strict=True):
        service.enable("ind", master, shadow, group="g")
    service.wait(*shadows)
    with service.path(shadows[1]).open("rb"):
        done = service.run("iiadm", "-g", "g", "-u", "s")
    assert done.returncode == 2
    assert str(shadows[1]) in done.stderr
    assert "is open" in done.stderr
    assert [service.status(s).pit for s in shadows] == [1, 1]


def test_refused_restore_of_a_group_lets_no_aborted_one_go_on(service, volume, place):
    """K12: one master is open, and the restore of the other stood aborted."""
    pairs = [(volume(f"m{n}", 64 << 20), place / f"s{n}") for n in range(2)]
    for master, shadow in pairs:
        service.enable("ind", master, shadow, group="g")
        service.wait(shadow)
    aborted, held = pairs
    service.flip("m", aborted[1], full=True)
    service.abort(aborted[1])
    assert service.status(aborted[1]).progress == "to_master"
    before = service.status(aborted[1])
    with service.path(held[0]).open("rb"):
        done = service.run("iiadm", "-n", "-g", "g", "-u", "m")
    assert done.returncode == 2
    assert service.status(aborted[1]) == before
    assert service.run("iiadm", "-n", "-g", "g", "-u", "m").returncode == 0
    service.wait(*(shadow for _, shadow in pairs))
    for master, shadow in pairs:
        assert service.read(master) == service.read(shadow)


def test_member_whose_bitmap_comes_late_follows_though_another_group_came_between(
    service, volume, place
):
    """F5, K4: the record of a group command that was cut short names all who have to follow it."""
    sets = {name: (volume(name), place / f"{name}.s") for name in "abcd"}
    for name, (master, shadow) in sets.items():
        service.enable("ind", master, shadow, group="one" if name in "ab" else "two")
    service.wait(*(shadow for _, shadow in sets.values()))
    shadows = {name: shadow for name, (_, shadow) in sets.items()}
    service.write(sets["b"][0], 0, b"new")
    before = {name: service.status(shadow) for name, shadow in shadows.items()}
    service.stop()
    _cut_short(service, [before["a"], before["b"]])
    bitmap = before["b"].bitmap
    os.rename(bitmap, f"{bitmap}.away")
    service.start()
    assert service.status(shadows["a"]).pit == before["a"].pit + 1
    assert service.status(shadows["b"]).waiting == ("bitmap",)
    service.client.call(protocol.Update("s", False, Target(group="two")), list[SetStatus])
    service.kill()
    service.start()
    os.rename(f"{bitmap}.away", bitmap)
    eventually(lambda: service.status(shadows["b"]).waiting is None, "the bitmap is back")
    service.wait(*shadows.values())
    one, other = (service.status(shadows[name]) for name in "ab")
    assert (one.pit, one.pit_id) == (other.pit, other.pit_id)
    assert service.read(shadows["b"])[:3] == b"new"
    service.stop()
    record = TransitionFile.open(str(service.state))
    assert record.standing == ()
    record.close()


def _cut_short(service, members):
    """A service was killed when the record of a group's update was durable, and nothing else."""
    record = TransitionFile.open(str(service.state))
    rows = (Member(m.uuid, m.pit, m.pit + 1, Change.MERGE_TO_SHADOW) for m in members)
    record.begin(Transition(uuid4(), uuid4(), 10**18, tuple(rows)))
    record.close()
