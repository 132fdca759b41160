"""Random reads and writes of master and shadows at once, with verbs, restarts and kills between.

Each volume has a worker of its own (exercise_worker.py) and a model (exercise_model.py). The target
of a point in time must be closed, its source goes on being written: then the point in time is what
the source was at some moment between question and answer, sector for sector.
"""

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from devices import eventually
from exercise_log import LogReader
from exercise_model import Model
from hang import PATIENCE_SECONDS
from harness import CHUNK, Service
from stamps import stamped, tag_of

WORKER = Path(__file__).with_name("exercise_worker.py")
SIZE = 700 * CHUNK + 777
SCATTER = 200
"""Chunks that some workers touch first."""

OPS = (10, 60)
"""What a worker does at the least before something happens to its volume."""


class Part:
    """One volume: its file on the mount, its model and, at times, its worker."""

    def __init__(self, number: int, raw: Path, file: Path, content: bytes) -> None:
        self.raw, self.file = raw, file
        self.model = Model(number, content)
        self.log = LogReader("")
        self.ended = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self, home: Path, seed: int, scatter: int, *, writeback: bool) -> None:
        name = f"{self.raw.name}-{seed}"
        content = home / f"{name}.content"
        content.write_bytes(self.model.content)
        self.log = LogReader(str(home / f"{name}.log"))
        plan = {
            "path": str(self.file), "volume": self.model.volume, "number": self.model.number,
            "writeback": writeback, "seed": seed, "content": str(content), "log": self.log.path,
            "scatter": scatter,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(plan)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def follow(self) -> None:
        self.ended += self.model.follow(self.log.entries())

    def end(self, *, killed: bool = False) -> None:
        """Wait for the worker; what it found is right, even if the service died meanwhile."""
        if self.process is None:
            return
        try:
            _, said = self.process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            self.process.kill()
        code, self.process = self.process.returncode, None
        self.follow()
        Path(self.log.path).unlink(missing_ok=True)
        assert code == 0 or (killed and code != 1), f"exit code {code}: {said}"

    def check(self, allowed=None, what: str = "") -> None:
        """The whole file."""
        found = self.file.read_bytes()
        self.model.judge(found, allowed or {}, f"{self.raw.name}{what}")
        self.model.adopt(found)


class Exercise:
    """A master with its shadows (`kinds`), and what is done to them; `seed` decides all of it."""

    def __init__(
        self, service: Service, place: Path, kinds: list[str], seed: int, *, writeback: bool
    ) -> None:
        self.service, self.place, self.writeback = service, place, writeback
        self.dice = random.Random(seed)
        self.did: Counter[str] = Counter()
        self._actions = {
            self.update: 4, self.restore: 2, self.abort: 1, self.restart: 1, self.kill: 4,
        }  # fmt: skip
        self._deck: list = []
        self.killing = None
        """What is about to be done and, at its point in time, to be interrupted by a kill."""
        content = stamped(tag_of(1, 0), 0, SIZE)
        self.master = self._part(1, "master", content)
        self.master.raw.write_bytes(content)
        self.shadows = [
            self._part(number, f"{kind}{number}", content)
            for number, kind in enumerate(kinds, start=2)
        ]
        self.parts = [self.master, *self.shadows]
        for part, kind in zip(self.shadows, kinds, strict=True):
            service.enable(kind, self.master.raw, part.raw)

    def _part(self, number: int, name: str, content: bytes) -> Part:
        raw = self.place / name
        return Part(number, raw, self.service.path(raw), content)

    @property
    def ops(self) -> int:
        return sum(part.ended for part in self.parts)

    # -- workers ----------------------------------------------------------------------------

    def work(self, parts: list[Part]) -> None:
        """Let those that rest begin."""
        for part in parts:
            if part.process is None:
                scatter = SCATTER if self.killing or self.dice.random() < 0.3 else 0
                seed = self.dice.randrange(1 << 30)
                part.start(self.place, seed, scatter, writeback=self.writeback)

    def end(self, parts: list[Part]) -> None:
        for part in parts:
            part.end()

    def clean_up(self) -> None:
        for part in self.parts:
            if part.process is not None:
                part.process.kill()
                part.process.communicate(timeout=PATIENCE_SECONDS)

    def await_work(self, part: Part) -> None:
        """Until the worker has done something, so that what follows meets it at work."""
        goal = part.ended + self.dice.randint(*OPS) + (SCATTER if self.killing else 0)

        def there() -> bool:
            part.follow()
            return part.ended >= goal or part.process.poll() is not None

        eventually(there, f"the worker on {part.raw.name} is at work")

    def meet_all(self) -> None:
        for part in self.parts:
            self.await_work(part)

    # -- things done ------------------------------------------------------------------------

    def turn(self) -> None:
        """One random thing, while every volume that need not be closed for it is being written."""
        self.work(self.parts)
        if not self._deck:
            self._deck = [a for a, count in self._actions.items() for _ in range(count)]
            self.dice.shuffle(self._deck)
        action = self._deck.pop()
        action()
        self.did[action.__name__] += 1

    def rows(self):
        return {row.shadow: row for row in self.service.client.status()}

    def let_restores_end(self) -> None:
        for part in self.shadows:
            row = self.rows()[str(part.raw)]
            if row.progress == "to_master" and not row.copying:
                self.service.flip("m", part.raw)
            if row.progress == "to_master":
                self.service.wait(part.raw)

    def update(self) -> None:
        """A new point in time of some shadows, of a master that is being written."""
        self.let_restores_end()
        count = self.dice.randint(1, len(self.shadows))
        targets = self.dice.sample(self.shadows, count)
        for part in targets:
            self.await_work(part)
        self.end(targets)
        self.flip("s", self.master, targets, full=self.dice.random() < 0.2)

    def restore(self) -> None:
        """The master becomes a shadow that is being written, and goes on at once."""
        self.let_restores_end()
        self.resume_updates()
        self.service.wait(*(part.raw for part in self.shadows))
        self.await_work(self.master)
        self.end([self.master])
        shadow = self.dice.choice(self.shadows)
        self.flip("m", shadow, [self.master], full=self.dice.random() < 0.2)
        if self.dice.random() < 0.4:
            self.service.abort(shadow.raw)
            self.work([self.master])
            self.await_work(self.master)
            if self.rows()[str(shadow.raw)].progress == "to_master":
                self.service.flip("m", shadow.raw)  # goes on
                self.did["resume"] += 1

    def resume_updates(self) -> None:
        """An update that was aborted is made anew: only that is allowed."""
        for part in self.shadows:
            row = self.rows()[str(part.raw)]
            if row.progress == "to_shadow" and not row.copying:
                self.end([part])
                self.flip("s", self.master, [part], full=False)

    def flip(self, direction: str, source: Part, targets: list[Part], *, full: bool) -> None:
        if self.killing:  # with a copy that takes its time
            self.end([source])
        self.work([source])
        self.await_work(source)
        source.model.mark()
        shadows = targets if direction == "s" else [source]
        self.service.flip(direction, *(part.raw for part in shadows), full=full)
        source.follow()
        point = source.model.snapshot()
        if self.killing:
            self.did["copies killed"] += any(row.copying for row in self.rows().values())
            self.come_back(targets)
        for part in targets:
            found = part.file.read_bytes()
            point.judge(found, point.since, f"{part.raw.name} at its point in time")
            part.model.adopt(found)

    def abort(self) -> None:
        self.update()
        self.service.abort(*(part.raw for part in self.shadows))
        self.work(self.parts)

    def restart(self) -> None:
        """In order: nothing is missing afterwards, synced or not."""
        self.meet_all()
        self.end(self.parts)
        self.service.restart()
        for part in self.parts:
            part.check(what=" after a restart")

    def kill(self) -> None:
        """Under load, or as soon as a copy runs: what was synced is found, the rest old or new."""
        self.killing = self.dice.choice([self.update, self.restore, None])
        if self.killing is not None:
            self.did[f"kill at {self.killing.__name__}"] += 1
            self.killing()
        else:
            self.meet_all()
            self.come_back([])

    def come_back(self, unknown: list[Part]) -> None:
        """Kill, start again, and look at all volumes but these."""
        self.killing = None
        self.service.kill()
        for part in self.parts:
            part.end(killed=True)
        self.service.start()
        for part in self.parts:
            if part not in unknown:
                part.check(part.model.unsure, " after a kill")

    def run(self, ops: int, seconds: float) -> None:
        """Turn after turn, until so much was done or the time is over; then look at everything."""
        stop = time.monotonic() + seconds
        try:
            while self.ops < ops and time.monotonic() < stop:
                self.turn()
            self.finish()
        finally:
            self.clean_up()

    def finish(self) -> None:
        self.let_restores_end()
        self.resume_updates()
        self.service.wait(*(part.raw for part in self.shadows))
        self.end(self.parts)
        for part in self.parts:
            part.check(what=" at the end")
        assert self.service.stop() == 0
        self.master.model.judge(self.master.raw.read_bytes(), {}, "the raw master")
        for part in self.shadows:
            if part.raw.name.startswith("ind"):
                part.model.judge(part.raw.read_bytes(), {}, f"the raw shadow {part.raw.name}")
