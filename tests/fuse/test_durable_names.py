"""After each answer no file and no name is left to chance, of whatever a promise rests on."""

import errno
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace

import pytest
from fault_service import shim
from fs_log import DIRECTORY, Durable, Entries, rename
from fs_rig import LEFT_OUT, FsRig
from fs_trace import Replay

from iifuse import errors
from iifuse.control import protocol
from iifuse.core.sector import Region
from iifuse.core.state import Progress
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import open_volume

__all__ = ["shim"]


@pytest.fixture
def service_seconds():
    return 300


@dataclass
class Answer:
    """From `at` on somebody relies on the names, from `settled` on on what files hold too.

    In between copies went on that the verb has begun, and what nobody waits for was noted in state
    databases. `volumes`: the program has copied itself.
    """

    what: str
    at: int
    settled: int
    volumes: bool = False


class Night:
    """What one does with two hosts, and when each of it was answered."""

    def __init__(self, place, env):
        self.rig, self.answers = FsRig(place, env=env), []

    def act(self, what, call, *words, volumes=False, **options):
        call(*words, **options)
        at = self.rig.answered
        copied = [name for name, row in self._sets().items() if row["copying"]]
        if copied and "stop" not in what:
            self.rig.wait(*copied)
        self.answers.append(Answer(what, at, self.settled(), volumes))

    def settled(self):
        """A moment at which no service is in the middle of a transaction."""
        with ExitStack() as stack:
            for service in self.rig.services.values():
                stack.enter_context(service.no_transaction())
            return time.time_ns()

    def _sets(self):
        return self.rig.answer.hosts["main"].sets


class NightOfVerbs(Night):
    """Every verb, of two hosts."""

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
        with bitmap.open("rb"), pytest.raises(errors.Busy), self.rig.act("-e that is refused"):
            client.notes(request)
        assert not shadow.exists()
        self.answers.append(Answer("-e that is refused", self.rig.answered, self.settled()))
        bitmap.unlink()


class NightOfPrograms(Night):
    """The companion tools, each a process of its own, and what leads out of a loss."""

    def run(self):
        rig = self.rig
        self.m, self.n, self.s, self.t = (rig.volume(name) for name in ("m", "n", "s", "t"))
        rig.up()
        rig.up("other")
        for master, shadow in ((self.m, self.s), (self.n, self.t)):
            rig.whole("ind", master, shadow, "night")
        self._lend()
        self._resync()
        self._restore_that_fails()
        self._offline_work()
        self._state_is_lost()

    def program(self, *words, **options):
        self.act(" ".join(words[:2]), self.rig.run, *words, **options)

    def _lend(self):
        """With a ticket for all where it is asked for, and where a group's goes by itself."""
        rig, ticket = self.rig, f"{self.rig.volumes}/all.iiticket"
        for words in (["--ticket", ticket], []):
            rig.touch(self.m, 1)
            self.program("iiexport", "-g", "night", *words)
            ticket = ticket if words else f"{rig.volumes}/night.iiticket"
            self.program("iiimport", "-n", ticket, host="other")
            rig.touch(self.s, 2, host="other")
            for shadow in (self.s, self.t):
                rig.disable(shadow, "other")
            self.program("iijoin", ticket)

    def _resync(self):
        self.rig.touch(self.m, 0)
        self.program("iiresync", "-g", "night")
        self.rig.touch(self.m, 1)
        self.program("iiresync", "-n", "m", self.s)

    def _restore_that_fails(self):
        """The list of what is missing goes to a file of its own, or where the shell says."""
        rig, rest = self.rig, f"{self.rig.volumes}/rest"
        for shadow, master in ((self.s, self.m), (self.t, self.n)):
            rig.touch(master, 1)
            rig.fail("read", shadow, errno.EIO)
            rig.flip("m", shadow)
            rig.wait(shadow)
            rig.repair()
            assert rig.told("main", shadow)["progress"] == "to_master"
        words = ("iiadm", "-n", "--give-up")
        self.program(*words, "--extents", rest, self.s)
        self.program(*words, self.t, into=f"{rest}.too")
        for shadow in (self.s, self.t):
            self.act("-R", rig.reset, shadow)

    def _offline_work(self):
        """Copies that were cut short are made by hand, durably, while no service runs."""
        rig, bitmap = self.rig, f"{self.s}.b"
        rig.down()
        self.program("iibitmap", "repair", bitmap, f"{bitmap}.new")
        for progress in (Progress.TO_SHADOW, Progress.TO_MASTER):
            cut_short(bitmap, progress)
            words = ("iibitmap", "finish", "-n", bitmap, self.m, self.s)
            self.program(*words, volumes=True)

    def _state_is_lost(self):
        """Another state directory, and so another service."""
        self.rig.up("third")
        self.program("iiadm", "--attach", f"{self.s}.b", f"{self.t}.b", host="third")
        self.act("stop of the third", self.rig.down, "third")


def cut_short(path, progress):
    """One chunk is still to be copied."""
    volume = open_volume(path, exclusive=False)
    try:
        bitmap = BitmapFile(volume)
        header = bitmap.read_header()
        bits, _ = bitmap.read_bits(header, Region.COPY)
        bits.set(1, 1)
        bitmap.write_region(header, Region.COPY, bits)
        bitmap.write_header(replace(header, progress=progress))
    finally:
        volume.close()


def _replayed(rig):
    replay = Replay(str(rig.root), left_out=LEFT_OUT + r"|/held$")
    for path, data in rig.base.items():
        replay.add_file(path, data)
    for directory in (rig.volumes, *(s.home for s in rig.services.values())):
        replay.names[str(directory)] = DIRECTORY
    names = dict(replay.names)
    replay.run(rig.calls())
    return replay, names


def _state(rig, replay, names, at):
    """What is durable at a moment, and what is not."""
    made = {path for path in rig.base if names[path] != DIRECTORY}
    state = Durable({}, {p: n for p, n in names.items() if p not in made})
    state.entries = [(-1, Entries(((path, names[path]),))) for path in sorted(made)]
    for position, event in enumerate(replay.events[: replay.position(at)]):
        state.apply(position, event)
    return state


def _pending(rig, replay, names, answer):
    """Names and writes that an answer left to chance."""
    answered, settled = (_state(rig, replay, names, at) for at in (answer.at, answer.settled))
    numbers = {n: p for p, n in _shown(settled).items() if answer.volumes or not _is_data(p)}
    written = {numbers[event.file] for _, event in settled.pending if event.file in numbers}
    return _unsure(answered) | _unsure(settled) | written


def _shown(state):
    """The names that everybody sees, as long as the power is there."""
    shown = dict(state.names)
    for _, entry in state.entries:
        rename(shown, entry)
    return shown


def _unsure(state):
    return {path for _, entry in state.entries for path, _ in entry.changes}


def _is_data(path):
    return os.path.basename(path) in ("m", "n", "s", "t", "made", "plain")


@pytest.mark.parametrize("night", [NightOfVerbs, NightOfPrograms])
def test_names_and_notes_are_durable_after_every_answer(place, shim, night):
    """K1: no more is assumed of the file system than POSIX promises."""
    env = {"LD_PRELOAD": str(shim), "FAULTS": str(place / "faults")}
    here = night(place, env)
    try:
        here.run()
    finally:
        here.rig.clean_up()
    replay, names = _replayed(here.rig)
    first = next(n for n, a in enumerate(here.answers) if not a.what.startswith("start"))
    for answer in here.answers[first:]:
        lost = _pending(here.rig, replay, names, answer)
        assert not lost, f"after {answer.what} a power loss may take {sorted(lost)}"
