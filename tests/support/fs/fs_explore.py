"""Fail the power at positions of a recording, and judge what a file system may have kept."""

import random
import time
from dataclasses import dataclass
from unittest.mock import patch

from crash_disk import Image, installed
from crash_explore import Tally
from fault_judge import watched
from fs_images import images, whole
from fs_judge import FsCase, judge, last_act
from fs_log import Durable
from fs_rig import FsRecording
from lost import found_at

from iifuse.store import transitions


@dataclass(frozen=True)
class FsOptions:
    """`per_stop`: images a stop; `stops`: so many, and each answer's.

    `journals`: '' for a file system that promises what POSIX does; 'one' and 'two': journaled ones,
    with state and volumes on one, or each on its own. `go_on`: share of images on which the
    service works on.
    """

    seed: int = 1
    journals: str = ""
    stops: int = 100
    per_stop: int = 4
    go_on: float = 0.1


def explore(recording: FsRecording, scratch: str, options: FsOptions) -> Tally:
    """Raises Lost at the first broken promise."""
    began = time.monotonic()
    with watched(), installed(), patch.object(transitions, "SLOT_BYTES", 1 << 20):
        tally = _Explorer(recording, scratch, options).run()
    tally.seconds = time.monotonic() - began
    return tally


class _Explorer:
    def __init__(self, recording: FsRecording, scratch: str, options: FsOptions) -> None:
        self.recording, self.scratch, self.options = recording, scratch, options
        self.chance = random.Random(f"{recording.name} {options}")
        self.tally = Tally(recordings=1, seeds=[options.seed])
        self._seen: set[tuple[object, ...]] = set()

    def run(self) -> Tally:
        recording, last = self.recording, len(self.recording.log)
        stops = {act.ended for act in recording.acts} | {last}
        chosen = self.chance.sample(range(last + 1), min(last + 1, self.options.stops))
        stops |= set(chosen)
        state = Durable(recording.base.files, recording.base.names, self._journals())
        for position in range(last + 1):
            if position in stops:
                self._stop(state, position)
            if position < last:
                state.apply(position, recording.log[position])
        return self.tally

    def _journals(self) -> tuple[str, ...]:
        root = self.recording.root
        return {"": (), "one": (f"{root}/",), "two": (f"{root}/vol/", f"{root}/")}[
            self.options.journals
        ]

    def _stop(self, state: Durable, position: int) -> None:
        self.tally.stops += 1
        for image in images(state, self.chance, self.options.per_stop, self.recording.root):
            old = frozenset(state.written) if self.chance.random() < 0.5 else frozenset()
            key = (image.key(), old, position)
            if key not in self._seen:
                self._seen.add(key)
                self.tally.images += 1
                self.tally.judged += 1
                self._judge(FsCase(self.recording, position, image, old_times=old))

    def _judge(self, case: FsCase) -> None:
        with found_at(lambda: self._where(case)):
            judge(case, self.scratch, go_on=self.chance.random() < self.options.go_on)

    def _where(self, case: FsCase) -> str:
        act = last_act(case)
        doing = f"after '{act.what}'" if act else "at the beginning"
        where = f"{self.recording.name}, {self.options}, stop {case.position}, {doing}"
        return f"{where}, with\n{self._shown(case.image)}\n"

    def _shown(self, image: Image) -> str:
        """The files of an image, beside what was there."""
        root, names = self.recording.root, sorted(image.names.items())
        return "\n".join(f"  {len(image.files[n]):8} {p.removeprefix(root)}" for p, n in names)


def check_live(recording: FsRecording, scratch: str) -> None:
    """With nothing lost everything holds: the judge understands the recording."""
    state = Durable(recording.base.files, recording.base.names)
    for position, event in enumerate(recording.log):
        state.apply(position, event)
    case = FsCase(recording, len(recording.log), whole(state, recording.root))
    with watched(), installed(), patch.object(transitions, "SLOT_BYTES", 1 << 20):
        judge(case, scratch, go_on=True)
