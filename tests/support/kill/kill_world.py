"""Two services that are killed over and over, their sets, and the truth kept beside them."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import bitmap_format as fmt
from harness import Service
from kill_sectors import WINDOW, Truth, offset_of, read_windows, size_of
from kill_writers import HOW, Writer
from shown import INDEPENDENT, TO_MASTER, chunks, unrecorded
from stamps import SECTOR, stamped

from iifuse.control import protocol
from iifuse.control.protocol import SetStatus, Target

SECTORS = {"m": 3 * WINDOW + 515, "a": 2 * WINDOW + 301, "b": 2 * WINDOW}
"""Sectors of each master that are ever written; two of them end within a chunk."""

COLD = 1
"""The window of the masters that only restores write to: only shadows' bits are set there."""

START_CUT = 0.2
"""How often a start is killed too."""


AGE_MAX = 60
"""Seconds after which a service is killed though it is not its turn."""

class Aging(Service):
    """It knows how long it has run."""

    born = 0.0

    def start(self, *, env: dict[str, str] | None = None) -> Service:
        self.born = time.monotonic()
        return super().start(env=env)

    @property
    def is_old(self) -> bool:
        return time.monotonic() - self.born > AGE_MAX


@dataclass
class Member:
    """A set, as far as it is known; `stage` goes local, exported, imported, returned, local."""

    kind: str
    master: Truth
    shadow: Truth
    group: str | None = None
    enabled: bool = False
    stage: str = "local"
    pit: int = 0
    uuid: object = None
    aborted: bool | None = False
    """Its copy was told to stop; None: it may have been."""


@dataclass
class Tally:
    """Kills by what was under way."""

    kills: int = 0
    starts_cut: int = 0
    within: int = 0
    writes: int = 0
    compared: int = 0


class World:
    """`app` holds all sets; `backup` takes in what the group lends."""

    def __init__(self, place: Path, seed: int) -> None:
        self.place, self.dice, self.tally = place, random.Random(seed), Tally()
        self.services = {name: Aging(place, name, ("stop_wait=2",)) for name in ("app", "backup")}
        self.gone = {name: threading.Event() for name in self.services}
        self.truths: dict[str, Truth] = {}
        for number, name in enumerate(("m", "a", "b", "m.ind", "m.dep", "a.ind", "b.ind"), 1):
            self.truths[name] = Truth(str(place / name), number, SECTORS[name[0]])
        for name in SECTORS:
            truth = self.truths[name]
            truth.windows.remove(COLD)
            with (place / name).open("wb") as file:
                for first in range(0, truth.count, WINDOW):
                    count = min(WINDOW, truth.count - first)
                    file.seek(offset_of(first))
                    file.write(stamped(int(truth.tags[0]), first * SECTOR, count * SECTOR))
        for name in ("a.ind", "b.ind"):
            self.truths[name].windows += [COLD, COLD]
        self.ind, self.dep = self._member("m.ind"), self._member("m.dep")
        self.group = [self._member("a.ind", "g"), self._member("b.ind", "g")]
        self.sets = [self.ind, self.dep, *self.group]
        self._writers: list[Writer] = []

    def _member(self, name: str, group: str | None = None) -> Member:
        return Member(name[2:], self.truths[name[0]], self.truths[name], group)

    @property
    def app(self) -> Service:
        return self.services["app"]

    @property
    def backup(self) -> Service:
        return self.services["backup"]

    def begin(self) -> None:
        """Both services run and all sets are enabled."""
        for service in self.services.values():
            service.start()
        for member in self.sets:
            paths = (Path(member.master.name), Path(member.shadow.name))
            row = self.app.enable(member.kind, *paths, group=member.group)
            member.enabled, member.uuid, member.pit = True, row.uuid, row.pit
            member.shadow.become(member.master.tags.copy())
        self.check()

    def close(self) -> None:
        """Whatever happened: no service, no mount."""
        for event in self.gone.values():
            event.set()
        for service in self.services.values():
            service.clean_up()

    # -- services -----------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """SIGKILL, and nothing else may have ended it."""
        self.gone[name].set()
        process = self.services[name].process
        assert process is not None
        process.kill()
        self._buried(name)
        self.tally.kills += 1

    def _buried(self, name: str) -> None:
        code = self.services[name].wait_for_end(30)
        assert code == -signal.SIGKILL, f"{name}: {code}\n{self.log(name)}"

    def log(self, name: str) -> str:
        return self.services[name].log.read_text()[-3000:]

    def start(self, name: str) -> None:
        """Start again, perhaps after a start that is killed itself."""
        while self.dice.random() < START_CUT:
            self._start_and_kill(name)
        self.gone[name].clear()
        self.services[name].start()
        point = str(self.services[name].mountpoint)
        with open("/proc/self/mounts") as mounts:
            assert sum(line.split()[1] == point for line in mounts) == 1, "a dead mount is left"

    def _start_and_kill(self, name: str) -> None:
        service, delay = self.services[name], self.dice.uniform(0.1, 0.5)

        def kill() -> None:
            while service.process is None:
                time.sleep(0.001)
            time.sleep(delay)
            service.process.kill()

        killer = threading.Thread(target=kill)
        killer.start()
        with contextlib.suppress(AssertionError):  # its own end is told from a kill below
            service.start()
        killer.join()
        self._buried(name)
        self.tally.kills += 1
        self.tally.starts_cut += 1

    def rows(self, service: Service | None = None) -> dict[str, SetStatus]:
        return {Path(row.shadow).name: row for row in (service or self.app).client.status()}

    def wait_for_copies(self, names: Iterable[str] | None = None) -> None:
        """Until none of them is copying; an aborted one is left alone."""
        rows = self.rows()
        copying = [n for n in (names or rows) if n in rows and rows[n].copying]
        if copying:
            self.app.wait(*(self.place / n for n in copying))

    # -- writers ------------------------------------------------------------------------------

    def path_of(self, name: str) -> tuple[str, Path] | None:
        """Which service shows the file, and where; None while nobody does."""
        member = next((s for s in self.sets if s.shadow is self.truths[name]), None)
        if member is None or (member.enabled and member.stage == "local"):
            return "app", self.app.path(self.place / name)
        if member.stage == "imported":
            return "backup", self.backup.path(self.place / name)
        return None

    def load(self, truth: Truth, count: int = 2) -> None:
        """Let programs write to a file, if it is shown."""
        shown = self.path_of(Path(truth.name).name)
        if shown is not None:
            for _ in range(count):
                how, seed = self.dice.choice(list(HOW)), self.dice.randrange(1 << 30)
                self._writers.append(Writer(truth, shown[1], how, seed, self.gone[shown[0]]))

    def stop_writers(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.stop()
        self.tally.writes += sum(len(truth.writes) for truth in self.truths.values())

    # -- what must hold after a restart -------------------------------------------------------

    def read(self, name: str) -> bytes:
        """What a file shows; of a lent shadow that nobody has in use, the raw volume."""
        shown = self.path_of(name)
        return read_windows(shown[1] if shown else self.place / name, self.truths[name].count)

    def check(self) -> None:
        """Every view is what it has to be; the rows of the sets fit."""
        rows = self.rows()
        assert rows.keys() == {Path(s.shadow.name).name for s in self.sets if s.enabled}
        for member in self.sets:
            if member.enabled:
                self._check_row(member, rows[Path(member.shadow.name).name])
        shadows = {Path(s.shadow.name).name: s for s in self.sets}
        for name, truth in self.truths.items():
            if name not in shadows or shadows[name].enabled:
                truth.settle(self.read(name))

    def _check_row(self, member: Member, row: SetStatus) -> None:
        assert not row.offline, row.offline_reason
        assert row.pit == member.pit, "a point in time that nobody asked for"
        assert row.group == member.group
        assert row.custody == ("local" if member.stage == "local" else "exported")
        if row.progress != "idle" and member.aborted is not None:
            assert row.copying != member.aborted, "a running copy goes on, an aborted one does not"
        member.aborted = row.progress != "idle" and not row.copying

    def compare(self) -> None:
        """Once no copy runs, what the bits call equal is equal: asked of the service."""
        self.wait_for_copies()
        for name, row in self.rows().items():
            if (row.kind, row.progress, row.custody) == ("independent", "idle", "local"):
                request = protocol.Compare(str(self.place / name), 0, row.chunks)
                found = self.app.client.call(request, protocol.Compared)
                assert not found.runs, f"{name}: {found.runs} differ with their bits clear"
                self.tally.compared += row.chunks

    def compare_raw(self) -> None:
        """The same of the raw volumes and the bits on disk, read by the tests' own parser.

        Of sets with no change pending, and whose master is not being restored.
        """
        enabled = [(s, fmt.read(Path(bitmap(s)).read_bytes())) for s in self.sets if s.enabled]
        changing = {
            member.master.name for member, found in enabled
            if found and (found.progress == TO_MASTER or found.pending)
        }  # fmt: skip
        for member, found in enabled:
            if found and comparable(found) and member.master.name not in changing:
                size = size_of(member.master.count)
                pair = (Path(t.name).read_bytes()[:size] for t in (member.master, member.shadow))
                wrong = unrecorded(*map(chunks, pair), found.shadow | found.copy)
                assert not wrong, f"{member.shadow.name}: {wrong} differ, their bits on disk clear"

    def end(self) -> None:
        """A last update, and master and shadow are equal; the raw files too."""
        ready = [s for s in self.sets if s.stage == "local" and s.kind == "ind" and s.enabled]
        self.app.flip("s", *(s.shadow.name for s in ready))
        self.app.wait(*(s.shadow.name for s in ready))
        done = self.app.run("iiverify", *(s.shadow.name for s in ready))
        assert done.returncode == 0, done.stdout + done.stderr
        assert self.app.stop() == 0
        for member in ready:
            raw = [Path(truth.name).read_bytes() for truth in (member.master, member.shadow)]
            assert raw[0] == raw[1][: size_of(member.master.count)]
            member.master.settle(read_windows(Path(member.master.name), member.master.count))


def comparable(found: fmt.Found) -> bool:
    """Is the set in use, at home and independent?"""
    in_use = not found.closure and found.custody == fmt.LOCAL
    return in_use and found.kind == INDEPENDENT


def bitmap(member: Member) -> str:
    return f"{member.shadow.name}.bmp"


def target(members: Iterable[Member]) -> Target:
    return Target(tuple(m.shadow.name for m in members))
