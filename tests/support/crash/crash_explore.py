"""Stop a recording at every event, lose what was not synced, recover, judge."""

import logging
import random
import time
from dataclasses import dataclass, field

from crash_disk import Event, installed
from crash_images import Durable, images
from crash_judge import Case, judge
from crash_rig import Recording, Scenario, record
from lost import found_at

AGAIN_MAX = 30
"""Events of a start, and of what follows a kill, at which the power fails."""
PER_STOP = 100
"""Random images a stop, where not all combinations are made."""


@dataclass
class Tally:
    """What was looked at."""

    images: int = 0
    judged: int = 0
    stops: int = 0
    recordings: int = 0
    seconds: float = 0.0
    seeds: list[int] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        self.images += other.images
        self.judged += other.judged
        self.stops += other.stops
        self.recordings += other.recordings
        self.seconds += other.seconds
        self.seeds += other.seeds

    def __str__(self) -> str:
        rate = self.images / self.seconds if self.seconds else 0
        return (
            f"{self.images} images ({self.judged} different), {self.stops} stops, "
            f"{self.recordings} recordings, {self.seconds:.0f} s, {rate:.0f} images/s, "
            f"seeds {self.seeds[:1]}..{self.seeds[-1:]}"
        )


@dataclass
class Options:
    """`per_stop`: random images a stop. `go_on`: share of images on which the service works on.

    `again`: share of images whose recovery is itself cut short at each of its events. `kill`: share
    of stops at which the service is killed first, and the power fails after the next start.
    `lost`: share of images at which the state directory is lost as well.
    """

    per_stop: int = PER_STOP
    go_on: float = 0.4
    again: float = 0.01
    kill: float = 0.1
    lost: float = 0.03
    images_max: int = 1 << 60


def explore(name: str, scenario: Scenario, seed: int, options: Options | None = None) -> Tally:
    """Record a scenario and judge its images. Raises Lost at the first broken promise."""
    logging.disable(logging.CRITICAL)
    began = time.monotonic()
    try:
        recording = recorded(name, scenario, seed)
        with installed():
            tally = Explorer(recording, options or Options()).run()
    finally:
        logging.disable(logging.NOTSET)
    tally.seconds = time.monotonic() - began
    return tally


def recorded(name: str, scenario: Scenario, seed: int) -> Recording:
    with found_at(lambda: f"{name}, seed {seed}, live"):
        return record(name, scenario, seed)


class Explorer:
    """One recording."""

    def __init__(self, recording: Recording, options: Options) -> None:
        self.recording, self.options = recording, options
        self.chance = random.Random(recording.seed)
        self.tally = Tally(recordings=1, seeds=[recording.seed])
        self._seen: set[tuple[object, ...]] = set()

    def run(self) -> Tally:
        state = Durable(self.recording.base)
        self._stop(state, 0)
        for position, event in enumerate(self.recording.log):
            state.apply(position, event)
            self._stop(state, position + 1)
            if self.tally.images >= self.options.images_max:
                break
        return self.tally

    def _stop(self, state: Durable, position: int) -> None:
        self.tally.stops += 1
        signature = self.recording.history.signature(position)
        for image in images(state, self.chance, self.options.per_stop):
            self.tally.images += 1
            key = (image.key(), signature)
            if key not in self._seen:
                self._seen.add(key)
                self._judge(Case(self.recording, position, image))

        if self.chance.random() < self.options.kill:
            self._kill(state, position)

    def _judge(self, case: Case) -> None:
        go_on, again = (self.chance.random() for _ in range(2))
        self.tally.judged += 1
        log = self._judged(case, go_on=go_on < self.options.go_on)
        if self.chance.random() < self.options.lost:
            lost = Case(case.recording, case.position, case.image, lost=True)
            self._judged(lost, go_on=True)
        if again < self.options.again and log:
            self._again(case, Durable(case.image), log)

    def _judged(self, case: Case, *, go_on: bool, write: bool = False) -> list[Event]:
        name, seed = self.recording.name, self.recording.seed
        with found_at(lambda: f"{name}, seed {seed}, stop {case.position}"):
            return judge(case, go_on=go_on, write=write)

    def _kill(self, state: Durable, position: int) -> None:
        """What a killed service has written is in the page cache, which the power failure takes."""
        case = Case(self.recording, position, state.whole(), killed=True)
        log = self._judged(case, go_on=False, write=True)
        self._again(case, state.restarted(), log)

    def _again(self, case: Case, state: Durable, log: list[Event]) -> None:
        """The power fails at events since the start, at random ones where they are many."""
        signature = self.recording.history.signature(case.position)
        chosen = set(self.chance.sample(range(len(log)), min(len(log), AGAIN_MAX)))
        for position, event in enumerate(log):
            state.apply(position, event)
            if position not in chosen:
                continue
            for image in images(state, self.chance, max(4, self.options.per_stop // 20)):
                self.tally.images += 1
                synced = case.synced if case.synced and position >= case.synced_at else {}
                key = (image.key(), signature, bool(case.after), bool(synced))
                if key not in self._seen:
                    self._seen.add(key)
                    self.tally.judged += 1
                    again = Case(case.recording, case.position, image, case.after, synced)
                    self._judged(again, go_on=False)
