"""Random walks over all verbs, reads and writes: the real program beside plain Python bytes.

IIFUSE_MODEL_STEPS=N walks longer; IIFUSE_MODEL_SEED=N begins with round N.
"""

import os
import time
import traceback
from contextlib import contextmanager
from functools import wraps
from itertools import count

import pytest
from hang import WATCHDOG
from harness import CHUNK
from hypothesis import HealthCheck, Phase, seed, settings, stateful
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    run_state_machine_as_test,
)
from samples import WHOLE
from set_exchange import TwoHosts
from set_looks import compare
from set_model import ModelSet
from set_world import Hosts, noise

from iifuse.control.protocol import Target

STEPS = int(os.environ.get("IIFUSE_MODEL_STEPS", "2000" if WHOLE else "1000"))
SEED = int(os.environ.get("IIFUSE_MODEL_SEED", "0"))
STEPS_PER_WALK = 50
WALKS_PER_ROUND = 10

SMALL, ODD = 96 * CHUNK, 96 * CHUNK - 12345
REGIONS, BUSY = 300 * CHUNK + 777, 800 * CHUNK + 512
LONG = 4200 * CHUNK + 100
"""More chunks than a sector of bits has; mostly holes."""

LAYOUTS = [
    ([ODD], [(0, "ind")]),
    ([SMALL], [(0, "dep")]),
    ([ODD], [(0, "ind"), (0, "dep")]),
    ([REGIONS], [(0, "ind"), (0, "dep")]),
    ([REGIONS], [(0, "ind"), (0, "ind")]),
    ([SMALL], [(0, "dep"), (0, "dep")]),
    ([SMALL, ODD], [(0, "ind"), (1, "ind"), (1, "dep")]),
    ([SMALL, REGIONS], [(0, "dep"), (1, "ind")]),
    ([BUSY], [(0, "ind"), (0, "dep")]),
    ([BUSY, SMALL], [(0, "ind"), (1, "ind")]),
    ([LONG], [(0, "ind"), (0, "dep")]),
]
"""(sizes of the masters, (master, kind) of the sets)."""

offsets = st.tuples(
    st.one_of(
        st.integers(0, 95),
        st.sampled_from([0, 4, 94, 95, 127, 128, 255, 299, 4063, 4064]),
        st.floats(0, 1, exclude_max=True),
    ),
    st.sampled_from([0, 0, -1, 1, -512, 512, 4096, -4096, 16384, 32767]),
)
lengths = st.sampled_from([1, 511, 512, 4096, CHUNK - 1, CHUNK, CHUNK + 1, 100_000, 300_000])
ways = st.sampled_from(["plain", "direct", "direct", "dsync", "synced", "mapped"])
writes = st.tuples(offsets, lengths, st.booleans(), st.integers(0, 10_000), ways)
picks = st.integers(0, 5)
directions = st.sampled_from("ssm")
subsets = st.sets(st.integers(0, 2), min_size=1)


def extent(size: int, where, length: int, at_end: bool) -> tuple[int, int]:
    """(offset, length) inside the volume; a fraction stands for that part of the volume."""
    length = min(length, size)
    if isinstance(where[0], float):
        where = (int(where[0] * size) // CHUNK, where[1])
    if at_end:
        return size - length, length
    offset = min(max(where[0] * CHUNK + where[1], 0), size - 1)
    return offset, min(length, size - offset)


def rule(**strategies):
    """A rule that notes what it was called with, and keeps the first failure: hypothesis wants to
    see it again, and what hangs on the moment in which a copy ends may not fail twice.
    """

    def decorate(function):
        @wraps(function)
        def noted(self, **values):
            self.notes.append(f"{function.__name__} {values}")
            with self.keeping_the_failure():
                function(self, **values)

        return stateful.rule(**strategies)(noted)

    return decorate


class Walk(RuleBasedStateMachine):
    """Each rule is one step; after each step everything that can be seen is compared."""

    hosts: Hosts | None = None
    steps = 0
    failure: str | None = None

    def __init__(self) -> None:
        super().__init__()
        if Walk.hosts is None:
            Walk.hosts = Hosts().start()
        WATCHDOG.feed()
        self.world: TwoHosts | None = None
        self.notes: list[str] = []
        self.sound = False

    @initialize(layout=st.sampled_from(LAYOUTS), enabled=subsets, group=st.booleans())
    def make(self, layout, enabled, group) -> None:
        self.notes.append(f"{layout} {enabled} {group}")
        with self.keeping_the_failure():
            self.world = TwoHosts(Walk.hosts, *layout)
            for member in self.pick(enabled):
                self.world.enable(member, "all" if group else None)

    @contextmanager
    def keeping_the_failure(self):
        self.sound = False
        try:
            yield
        except BaseException:
            if Walk.failure is None:
                log = Walk.hosts.app.log.read_text()[-3000:]
                Walk.failure = "\n".join([*self.notes, traceback.format_exc(), log])
            raise
        self.sound = True

    def pick(self, numbers) -> list[ModelSet]:
        sets = self.world.sets
        return list({id(s): s for s in (sets[n % len(sets)] for n in sorted(numbers))}.values())

    def pick_enabled(self, numbers) -> list[ModelSet]:
        """Enabled sets, of which there is always one to be had."""
        if not self.world.enabled:
            self.world.enable(self.pick(numbers)[0], None)
        sets = self.world.enabled
        return list({id(s): s for s in (sets[n % len(sets)] for n in sorted(numbers))}.values())

    # -- reads and writes -------------------------------------------------------------------

    @rule(pick=picks, what=writes)
    def write_master(self, pick, what) -> None:
        (master,) = {id(m.master): m.master for m in self.pick_enabled({pick})}.values()
        where, length, at_end, number, how = what
        offset, length = extent(master.content.size, where, length, at_end)
        self.world.write_master(master, offset, noise(number, length), how)

    @rule(pick=picks, what=writes)
    def write_shadow(self, pick, what) -> None:
        world = self.world
        sets = [
            s
            for s in world.enabled
            if s.custody == "local" or (s.name in world.lent and world.backup_runs)
        ]
        if sets:
            member = sets[pick % len(sets)]
            where, length, at_end, number, how = what
            offset, length = extent(member.shadow.size, where, length, at_end)
            world.write_shadow(member, offset, noise(number, length), how)

    @rule(pick=picks, number=st.integers(0, 95), how=ways)
    def write_the_same_chunk_on_both_sides(self, pick, number, how) -> None:
        (member,) = self.pick_enabled({pick})
        world = self.world
        world.write_master(member.master, number * CHUNK + 100, noise(number + 5, 5000), how)
        if member.custody == "local":
            world.write_shadow(member, number * CHUNK + 200, noise(number + 6, 5000), how)

    @rule(pick=picks, number=st.integers(0, 10_000), how=st.sampled_from(["plain", "direct"]))
    def write_here_and_there(self, pick, number, how) -> None:
        """So that the next copy takes many steps, and has something to bring in each."""
        (member,) = self.pick_enabled({pick})
        size = member.master.content.size
        for index in range(24):
            offset = (index * size // 24 + number * 512) % (size - 1000)
            data = noise(number + index, 1000)
            self.world.write_master(member.master, offset, data, how)
            if member.custody == "local" and index % 3 == 0:
                self.world.write_shadow(member, offset + 900, data[:100], how)

    @rule(pick=picks)
    def read_through_the_page_cache(self, pick) -> None:
        (member,) = self.pick_enabled({pick})
        compare(self.world.app.path(member.master.name), member.master.content, cached=True)
        if member.custody == "local":
            compare(self.world.app.path(member.name), member.shadow, cached=True)

    @rule(pick=picks)
    def set_times(self, pick) -> None:
        (member,) = self.pick_enabled({pick})
        os.utime(self.world.app.path(member.master.name), ns=(10**18, 10**18))
        if member.custody == "local":
            os.utime(self.world.app.path(member.name), ns=(10**18, 10**18))

    # -- verbs ------------------------------------------------------------------------------

    @rule(pick=picks, group=st.sampled_from([None, "one", "two"]))
    def enable(self, pick, group) -> None:
        (member,) = self.pick({pick})
        self.world.enable(member, group)

    @rule(numbers=subsets)
    def disable(self, numbers) -> None:
        members = self.pick_enabled(numbers)
        if not any(m.name in self.world.lent for m in members):
            self.world.disable(members)

    @rule(numbers=subsets, direction=directions, full=st.booleans(), at_once=st.booleans())
    def update(self, numbers, direction, full, at_once) -> None:
        """`at_once`: with no wait between the PIT and the next step."""
        members = self.pick_enabled(numbers)
        self.world.flip(direction, full, members, self.world.target(members))
        if not at_once:
            self.world.wait([m for m in members if m.copying])

    @rule(number=st.integers(0, 2), direction=directions, full=st.booleans())
    def update_and_abort(self, number, direction, full) -> None:
        """So that copies stand half-way."""
        members = self.pick_enabled({number})
        self.world.flip(direction, full, members, self.world.target(members))
        self.world.abort(members)

    @rule(group=st.sampled_from(["one", "two", "all"]), direction=st.sampled_from("sm"))
    def update_group(self, group, direction) -> None:
        members = [s for s in self.world.enabled if s.group == group]
        if members:
            self.world.flip(direction, False, members, Target(group=group))

    @rule(numbers=subsets)
    def abort(self, numbers) -> None:
        self.world.abort(self.pick_enabled(numbers))

    @rule(numbers=subsets)
    def wait(self, numbers) -> None:
        self.world.wait(self.pick_enabled(numbers))

    @rule(numbers=subsets, group=st.sampled_from([None, "one", "two"]))
    def move(self, numbers, group) -> None:
        self.world.move(self.pick_enabled(numbers), group)

    # -- two hosts --------------------------------------------------------------------------

    @rule(numbers=subsets)
    def export(self, numbers) -> None:
        self.world.export(self.pick_enabled(numbers))

    @rule(pick=picks, bitmap=st.integers(0, 1))
    def take_in(self, pick, bitmap) -> None:
        lent = [s for s in self.pick_enabled({pick}) if s.custody == "exported"]
        for member in lent if self.world.backup_runs else []:
            self.world.take_in(member, f"{member.name}.sec{bitmap}")

    @rule(pick=picks)
    def give_back(self, pick) -> None:
        names = sorted(self.world.lent) if self.world.backup_runs else []
        for name in names[: pick + 1]:
            self.world.give_back(self.world.set_of(name))

    @rule(pick=picks, accept=st.booleans())
    def join(self, pick, accept) -> None:
        for member in self.pick_enabled({pick}):
            self.world.join(member, accept=accept)
            if not self.world.backup_runs:
                self.world.start_backup()

    @rule(pick=picks, bitmap=st.integers(0, 1))
    def go_on_with_the_exchange(self, pick, bitmap) -> None:
        """The next thing in the life of an export, so that walks come to its end."""
        (member,) = self.pick_enabled({pick})
        world = self.world
        if not world.backup_runs:
            world.start_backup()
        elif member.name in world.lent:
            world.give_back(member)
        elif member.custody == "local":
            world.export([member])
        elif any(not i.joined for i in member.imports.values()):
            world.join(member, accept=False)
        else:
            world.take_in(member, f"{member.name}.sec{bitmap}")

    # -- starts and stops -------------------------------------------------------------------

    @rule(kill=st.booleans())
    def restart(self, kill) -> None:
        self.world.restart(kill=kill)

    @rule(kill=st.booleans())
    def stop_or_start_backup(self, kill) -> None:
        if not self.world.backup_runs:
            self.world.start_backup()
        elif self.world.lent:
            self.world.stop_backup(kill=kill)

    # -- after every step -------------------------------------------------------------------

    @invariant()
    def everything_fits(self) -> None:
        if self.world is not None:
            Walk.steps += 1
            WATCHDOG.feed()
            with self.keeping_the_failure():
                self.world.compare_views()
                self.world.observe()
                self.world.check_raw()

    def teardown(self) -> None:
        try:
            if self.sound:
                with self.keeping_the_failure():
                    self.world.take_down()
        finally:
            if not self.sound:  # what failed may have left anything behind
                Walk.hosts.close()
                Walk.hosts = None


@pytest.fixture
def walks():
    """The class of the walks; its services end with the test."""
    yield Walk
    if Walk.hosts is not None:
        Walk.hosts.close()
        Walk.hosts = None


@pytest.mark.sampled
def test_every_verb_shows_what_the_model_shows(walks, capsys):
    began = time.monotonic()
    round_settings = settings(
        max_examples=WALKS_PER_ROUND,
        stateful_step_count=STEPS_PER_WALK,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        for number in count(SEED):
            if walks.steps >= STEPS:
                break
            run_state_machine_as_test(seed(number)(walks), settings=round_settings)
    except BaseException:
        if walks.failure is not None:
            pytest.fail(f"round {number}: {walks.failure}", pytrace=False)
        raise
    with capsys.disabled():
        print(f"\nmodel: {walks.steps} steps in {time.monotonic() - began:.0f} s")
    assert walks.steps >= STEPS
