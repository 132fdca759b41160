"""After each answer no file and no name is left to chance, of whatever a promise rests on."""

import os
import time

import pytest
from fs_log import DIRECTORY, Durable, Entries
from fs_rig import LEFT_OUT, FsRig
from fs_trace import Replay, calls

from iifuse import errors
from iifuse.control import protocol


@pytest.fixture
def service_seconds():
    return 300


class Night:
    """Every verb, of two hosts; `answers`: (verb, when it was answered)."""

    def __init__(self, place):
        self.rig, self.answers = FsRig(place, env={}), []

    def act(self, what, call, *words, **options):
        call(*words, **options)
        copied = [name for name, row in self._sets().items() if row["copying"]]
        if copied and "stop" not in what:
            self.rig.wait(*copied)
        self.answers.append((what, self.rig.acts[-1].ended))

    def _sets(self):
        return self.rig._answer.hosts["main"].sets

    def run(self):
        rig = self.rig
        m, n, s, d = (rig.volume(name) for name in ("m", "n", "s", "plain"))
        rig.volume("s.b", 3, 0)  # made by somebody, and perhaps not synced
        made = str(rig.volumes / "made")
        self.act("start", rig.up)
        self.act("start of the other host", rig.up, "other")
        self.act("-e of what is there", rig.enable, "ind", m, s)
        self.act("-e that makes both", rig.enable, "dep", n, made)
        self._refused(m)
        self.act("svadm -e", rig.control, d)
        self.act("svadm -d", rig.release, d)
        rig.touch(m, 1)
        self.act("-u s of two", rig.flip, "s", s, made)
        self.act("-u m", rig.flip, "m", s)
        self.act("-g -m", rig.move, "g", s, made)
        self.act("-E", rig.export, s)
        self.act("-I", rig.take_in, s)
        self.act("-d of an import", rig.disable, s, "other")
        self.act("-J", rig.join, s)
        self.act("-E again", rig.export, s)
        self.act("-R", rig.reset, s)
        self.act("-d", rig.disable, made)
        self.act("stop", rig.down)
        os.unlink(f"{s}.b")
        self.act("start without a bitmap", rig.up)
        self.act("-R that makes one", rig.reset, s)
        self.act("last stop", rig.down)
        self.act("last stop of the other host", rig.down, "other")

    def _refused(self, master):
        """The shadow was made when it is seen that somebody has the bitmap open: it goes again."""
        volumes, client = self.rig.volumes, self.rig.services["main"].client
        shadow, bitmap = volumes / "no", volumes / "held"
        bitmap.write_bytes(bytes(1 << 17))
        request = protocol.Enable("ind", master, str(shadow), str(bitmap), None)
        with bitmap.open("rb"), pytest.raises(errors.Busy), self.rig._act("-e that is refused"):
            client.notes(request)
        assert not shadow.exists()
        self.answers.append(("-e that is refused", time.time_ns()))
        bitmap.unlink()


def _replayed(rig):
    replay = Replay(str(rig.root), left_out=LEFT_OUT + r"|/held$")
    for path, data in rig._base.items():
        replay.add_file(path, data)
    for directory in (rig.volumes, *(s.home for s in rig.services.values())):
        replay.names[str(directory)] = DIRECTORY
    names = dict(replay.names)
    logs = [text for service in rig.services.values() for text in service.logs()]
    replay.run(call for text in logs for call in calls(text))
    return replay, names


def _pending(rig, replay, names, answered):
    """Names and writes that the answer at this moment left to chance."""
    made = {path for path in rig._base if names[path] != DIRECTORY}
    state = Durable({}, {p: n for p, n in names.items() if p not in made})
    state.entries = [(-1, Entries(((path, names[path]),))) for path in sorted(made)]
    for position, event in enumerate(replay.events[: replay.position(answered)]):
        state.apply(position, event)
    kept = {n for path, n in replay.names.items() if "/state/" in path or not _is_data(path)}
    entries = {path for _, entry in state.entries for path, _ in entry.changes}
    return entries, {event.file for _, event in state.data} & kept


def _is_data(path):
    return os.path.basename(path) in ("m", "n", "s", "made", "plain")


def test_names_and_notes_are_durable_after_every_answer(place):
    """K1: no more is assumed of the file system than POSIX promises."""
    night = Night(place)
    try:
        night.run()
    finally:
        night.rig.clean_up()
    replay, names = _replayed(night.rig)
    paths = {number: path for path, number in replay.names.items()}
    first = next(n for n, (what, _) in enumerate(night.answers) if what.startswith("-e of"))
    for what, answered in night.answers[first:]:
        entries, files = _pending(night.rig, replay, names, answered)
        lost = entries | {paths.get(number, "?") for number in files}
        assert not lost, f"after {what} a power loss may take {sorted(lost)}"
