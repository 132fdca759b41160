"""The write order keeps its promises whatever a power loss leaves; any other order does not."""

import pytest
from crash_model import GARBAGE, Lost, Machine, Setup, explore

from iifuse.core.plan import Clear, Copy, Mark, Sync
from iifuse.core.state import Kind, Progress, Role

IND, DEP = Kind.INDEPENDENT, Kind.DEPENDENT
dep = Setup(DEP, shadow=GARBAGE)
ind = Setup(IND)
to_shadow = Setup(IND, Progress.TO_SHADOW, shadow=5, copy=True)
ind_to_master = Setup(IND, Progress.TO_MASTER, shadow=5, copy=True)
dep_to_master = Setup(DEP, Progress.TO_MASTER, shadow=5, copy=True)
dep_to_master_unchanged = Setup(DEP, Progress.TO_MASTER, shadow=GARBAGE)

ALONE = {
    "dep": dep,
    "ind": ind,
    "to_shadow": to_shadow,
    "ind-to_master": ind_to_master,
    "dep-to_master": dep_to_master,
    "dep-to_master-unchanged": dep_to_master_unchanged,
}
PAIRS = {
    "dep+dep": [dep, dep],
    "ind+dep": [ind, dep],
    "dep+to_shadow": [dep, to_shadow],
    "dep+ind-to_master": [dep, ind_to_master],
    "dep+dep-to_master": [dep, dep_to_master],
    "ind+dep-to_master": [ind, dep_to_master],
    "to_shadow+ind-to_master": [to_shadow, ind_to_master],
}


@pytest.mark.parametrize("name", ALONE)
def test_write_order_survives_a_power_loss_at_every_step(name):
    assert explore([ALONE[name]], chunks=1, length=5) >= 4 + 4**2 + 4**3 + 4**4 + 4**5


@pytest.mark.parametrize("name", ALONE)
def test_write_order_survives_over_two_chunks_of_one_sector(name):
    explore([ALONE[name]], chunks=2, length=4)


@pytest.mark.parametrize("name", PAIRS)
def test_write_order_survives_with_two_sets_of_one_master(name):
    explore(PAIRS[name], chunks=1, length=4)


# -- planted bugs: the model has to find each of them -----------------------------------------


def without(*kinds, role=None):
    """Leave out the steps of some kind (and role)."""

    def twist(steps):
        return [
            s for s in steps
            if not (isinstance(s, kinds) and (role is None or getattr(s, "role", role) is role))
        ]  # fmt: skip

    return twist


def marks_first(steps):
    """Bits before the chunks that they speak of."""
    bits = [s for s in steps if isinstance(s, Mark) or getattr(s, "role", None) is Role.BITMAP]
    return bits + [s for s in steps if s not in bits]


def clear_first(steps):
    """A copy bit is cleared before the target's chunk is durable."""
    found = [s for s in steps if isinstance(s, Clear)]
    return found + [s for s in steps if s not in found] if found else steps


def late_marks(steps):
    """The bits are written, but durable only some time later."""
    return [s for s in steps if not (isinstance(s, Sync) and s.role is Role.BITMAP)]


def without_siblings(steps):
    """The restore overwrites a chunk of the master that a sibling still needs."""
    restores = any(isinstance(s, Copy) and s.target is Role.MASTER for s in steps)
    raw = not restores and any(isinstance(s, Copy) and s.target is Role.SHADOW for s in steps)
    return [] if raw else steps


BUGS = {
    "mark before preserve, dep": (marks_first, [dep]),
    "mark before preserve, to_shadow": (marks_first, [to_shadow]),
    "mark before restore, ind": (marks_first, [ind_to_master]),
    "mark before restore, dep": (marks_first, [dep_to_master]),
    "no mark, dep": (without(Mark), [dep]),
    "no mark, ind": (without(Mark), [ind]),
    "no mark, to_shadow": (without(Mark), [to_shadow]),
    "mark not durable, dep": (late_marks, [dep]),
    "mark not durable, ind": (late_marks, [ind]),
    "mark not durable, to_shadow": (late_marks, [to_shadow]),
    "mark not durable, to_master": (late_marks, [ind_to_master]),
    "no preserve, dep": (without(Copy), [dep]),
    "no preserve, unchanged part of a restore": (without(Copy), [dep_to_master_unchanged]),
    "preserve not durable, dep": (without(Sync, role=Role.SHADOW), [dep]),
    "preserve not durable, to_shadow": (without(Sync, role=Role.SHADOW), [to_shadow]),
    "restore not durable, ind": (without(Sync, role=Role.MASTER), [ind_to_master]),
    "restore not durable, dep": (without(Sync, role=Role.MASTER), [dep_to_master]),
    "clear before sync, to_shadow": (clear_first, [to_shadow]),
    "clear before sync, to_master": (clear_first, [dep_to_master]),
    "sibling not preserved before a restore": (without_siblings, [dep, ind_to_master]),
}


@pytest.mark.parametrize("name", BUGS)
def test_crash_model_finds_the_planted_bug(name):
    twist, setups = BUGS[name]
    with pytest.raises(Lost):
        explore(setups, chunks=1, length=3, twist=twist)


def test_crash_model_finds_a_write_that_comes_before_its_mark(monkeypatch):
    order = Machine.write

    def hasty(self, file, first, count):
        self.disk.put(("M", first) if file is None else ("S", file, first), self.clock + 1)
        yield from order(self, file, first, count)

    monkeypatch.setattr(Machine, "write", hasty)
    for setup in (dep, ind, to_shadow):
        with pytest.raises(Lost):
            explore([setup], chunks=1, length=2)
