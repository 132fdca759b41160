"""A random script of verbs and kills over one world, drawn from a seed."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

from kill_acts import Act, Export, Flip, Import, Join, Night, Renew, Return
from kill_world import World

from iifuse import errors

FIRST_GUESS = 0.02
"""Seconds that a verb takes, until it was seen to end."""

OUTSIDE = 0.25
"""How often the kill comes some time before or after the verb."""

TOO_LONG = 45
"""Seconds after which a verb hangs."""


class Script:
    """One act, one kill, one restart and one look at everything a round."""

    def __init__(self, world: World) -> None:
        self.world, self.dice = world, world.dice
        self.round = 0
        self.kills: Counter[str] = Counter()
        self._seconds: dict[str, float] = {}
        self._last = ["", ""]
        self._mine, self._theirs = self._of_the_master(), self._of_the_group()

    # -- what to do next ----------------------------------------------------------------------

    def _of_the_master(self) -> Iterator[Act]:
        """The master's two sets: all verbs in random order, again and again."""
        w = self.world
        both = (w.ind, w.dep)
        verbs: list[Callable[[], Act]] = [
            lambda: Flip(w, "s", w.ind),
            lambda: Flip(w, "s", w.dep),
            *[lambda: Flip(w, "s", *both)] * 3,  # the parts of one command, where most can go wrong
            lambda: Flip(w, "s", w.ind, full=True),
            lambda: Flip(w, "s", w.ind, full=True, abort=True),
            lambda: Flip(w, "m", w.ind),
            lambda: Flip(w, "m", w.dep),
            lambda: Flip(w, "m", w.ind, full=True),
            lambda: Flip(w, "m", w.ind, full=True, abort=True),
            lambda: Renew(w, w.ind),
            lambda: Renew(w, w.dep),
            lambda: Act(w),
        ]
        while True:
            self.dice.shuffle(verbs)
            for verb in verbs:
                yield from self._repairs()
                yield verb()

    def _repairs(self) -> Iterator[Act]:
        """First of all what was disabled comes back, and what was aborted goes on."""
        w = self.world
        while True:
            if not w.ind.enabled or not w.dep.enabled:
                yield Renew(w, w.dep if w.ind.enabled else w.ind)
            elif w.ind.aborted:
                restoring = w.rows()["m.ind"].progress == "to_master"
                yield Flip(w, "m" if restoring else "s", w.ind)
            else:
                return

    def _of_the_group(self) -> Iterator[Act]:
        """Points in time of the group, and nights on the other host."""
        w = self.world
        verbs: list[Callable[[], Act]] = [
            lambda: Flip(w, "s", *w.group),
            lambda: Flip(w, "m", *w.group),
            lambda: Flip(w, "s", *w.group, full=True),
        ]
        while True:
            yield self.dice.choice(verbs)()
            yield Flip(w, "s", *w.group)
            yield self.dice.choice(verbs)()
            for stage, act in (
                ("local", Export), ("exported", Import), ("imported", Return), ("returned", Join),
            ):  # fmt: skip
                while left := [m for m in w.group if m.stage == stage]:
                    yield act(w, *left)
                    if act is Import and self.dice.random() < 0.5:
                        yield Night(w)

    # -- a round ------------------------------------------------------------------------------

    def play(self) -> None:
        """One round. Raises Lost or another AssertionError when anything is not as it must be."""
        self.round += 1
        world = self.world
        act = next(self._mine if self.round % 2 else self._theirs)
        print(f"round {self.round}: {act.name}", flush=True)
        untouched = {id(truth) for truth in act.closed()}
        for truth in world.truths.values():
            if id(truth) not in untouched:
                world.load(truth, 1)
        self._run_and_kill(act)
        if not self.round % 3:
            world.compare()
        if not self.round % 20:
            self._verify()

    def _run_and_kill(self, act: Act) -> None:
        """Every restart is followed by a look at everything."""
        world, failures = self.world, list[BaseException]()
        again = act.name == self._last[self.round % 2]  # cut short before: now it may be done
        self._last[self.round % 2] = act.name
        outside = again or self.dice.random() < OUTSIDE
        # Most of what matters comes late in a verb.
        delay = 1.1 * self._seconds.get(act.name, FIRST_GUESS) * math.sqrt(self.dice.random())
        both = self.dice.random() < 0.2
        victims = [n for n, s in world.services.items() if both or n == act.victim or s.is_old]
        actor = threading.Thread(target=self._act, args=(act, failures), daemon=True)
        actor.start()
        if again:
            actor.join(TOO_LONG)
        if outside:
            delay = self.dice.uniform(0, 0.3)
        else:
            act.given.wait(TOO_LONG)
        time.sleep(delay)
        within = act.begun is not None and act.ended is None
        for name in victims:
            world.kill(name)
        actor.join(TOO_LONG)
        assert not actor.is_alive(), f"{act.name} hangs"
        if failures:
            raise failures[0]
        world.stop_writers()
        world.tally.within += within
        self.kills[act.name] += within
        world.compare_raw()
        for name in victims:
            world.start(name)
        act.learn(world.rows())
        world.check()

    def _act(self, act: Act, failures: list[BaseException]) -> None:
        try:
            act.run()
        except BaseException as error:
            killed = any(event.is_set() for event in self.world.gone.values())
            if not (killed and isinstance(error, OSError | errors.ServiceError)):
                failures.append(error)
        finally:
            act.given.set()
            if act.seconds:
                self._seconds[act.name] = act.seconds

    def _verify(self) -> None:
        """`iiverify`, as an administrator runs it."""
        local = [s for s in self.world.sets if s.kind == "ind" and s.enabled and not s.aborted]
        names = [s.shadow.name for s in local if s.stage == "local"]
        self.world.wait_for_copies()
        if names:
            done = self.world.app.run("iiverify", *names)
            assert done.returncode == 0, done.stdout + done.stderr

    def finish(self) -> None:
        """Bring everything home, without a kill, and compare for the last time."""
        world = self.world
        while any(m.stage != "local" for m in world.group):
            self._calmly(next(self._theirs))
        for act in self._repairs():
            self._calmly(act)
        world.compare()
        world.end()

    def _calmly(self, act: Act) -> None:
        act.run()
        self.world.stop_writers()
        act.learn(self.world.rows())
        self.world.check()

    def report(self) -> str:
        counted = ", ".join(f"{name}: {n}" for name, n in sorted(self.kills.items()))
        return f"{self.world.tally}; {counted}"
