"""The real service under strace, and a record of what it answered and what that promised."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crash_disk import CHUNK, Image
from crash_history import History, Line, Pit, Put
from crash_rig import Recording
from devices import let_go
from fs_answers import Act, Answer, Told, ask, times_of
from fs_log import DIRECTORY, renumbered
from fs_service import Traced, whole_log
from fs_trace import Call, Replay, calls, tracer
from fs_writers import Writer, run_all
from harness import losetup
from loaded import BIN
from shown import moves
from stamps import SECTOR, stamped

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target

LEFT_OUT = r"/(mnt/.*|log|s\.sock|notify|calls-\d+|faults.*)$"
TICKETS = (".iiticket", ".json")


@dataclass
class FsRecording(Recording):
    """One run of the service: what it did to its files, and what it promised meanwhile."""

    root: str
    acts: list[Act]
    hosts: tuple[str, ...]
    fails_from: int
    """From this position on volumes may be offline."""
    unnoted: bool
    """That they are could be noted nowhere, so that no write went on without them."""
    devices: dict[int, int] = field(default_factory=dict)
    """Files that are block devices, and the inode numbers of what they lie on."""


class FsRig:
    """What a scenario is written with. Everything happens one after the other."""

    def __init__(self, place: Path, *, bug: str | None = None, env: dict[str, str]) -> None:
        self.root, self.bug, self.env = place / "r", bug, env
        self.volumes = self.root / "vol"
        self.volumes.mkdir(parents=True)
        self.services: dict[str, Traced] = {}
        self.history = History()
        self.acts: list[Act] = []
        self.sets: dict[str, str] = {}
        self.fails_from = 1 << 62
        self.unnoted = False
        self.answer = Answer()
        self.base: dict[str, bytes] = {}
        self._stamps = 0x10
        self._rules: list[str] = []
        self.rule = place / "faults"
        self.devices: dict[str, str] = {}
        """Loop devices, and the links to them that are volumes."""
        self.answered = 0
        """When the last answer was there; what it said was looked up afterwards."""
        self._logs: list[Path] = []
        """Of programs that were watched too."""

    # -- services ---------------------------------------------------------------------------

    def up(self, name: str = "main") -> None:
        """Start a host's service."""
        if name not in self.services:
            self.services[name] = Traced(self.root, name, ("stop_wait=2",))
            self.services[name].bug = self.bug
        with self.act(f"start {name}"):
            self.services[name].start(env=self.env)

    def down(self, name: str = "main") -> None:
        with self.act(f"stop {name}"):
            assert self.services[name].stop() == 0

    def kill(self, name: str = "main") -> None:
        with self.act(f"kill {name}"):
            with self.services[name].no_transaction():
                self.services[name].kill()
            self.services[name].clean_up()

    def clean_up(self) -> None:
        for service in self.services.values():
            service.clean_up()
        for device in self.devices:
            let_go(device)

    def fail(self, operation: str, path: str, code: int) -> None:
        """From now on calls on a file fail (fault_shim.c)."""
        self.fails_from = min(self.fails_from, time.time_ns())
        self._rules.append(f"{operation} {code} {path}\n")
        beside = self.rule.with_suffix(".new")
        beside.write_text("".join(self._rules))
        beside.rename(self.rule)

    def repair(self) -> None:
        """From now on nothing fails any more."""
        self._rules.clear()
        self.rule.unlink()

    # -- programs ---------------------------------------------------------------------------

    def run(self, program: str, *words: str, host: str = "main", into: str | None = None) -> None:
        """A program of ours, watched as a service is; its results go `into` a file by a shell."""
        self._logs.append(self.rule.with_name(f"program-{len(self._logs)}"))
        command = [str(BIN / program), *words]
        if into is not None:
            command = ["sh", "-c", f'exec "$0" "$@" > {into}', *command]
        env = {**os.environ, "IIFUSE_SOCKET": str(self.services[host].socket)}
        with self.act(f"{program} {words}"):
            done = subprocess.run(
                [*tracer(str(self._logs[-1])), *command], env=env, capture_output=True, check=False
            )
            assert done.returncode == 0, done.stderr

    def volume(self, name: str, chunks: int = 3, tail: int = 700) -> str:
        """Make a volume that is full of stamps, before the service starts."""
        self._stamps += 1
        path = str(self.volumes / name)
        self.base[path] = stamped(self._stamps, 0, chunks * CHUNK + tail)
        Path(path).write_bytes(self.base[path])
        self.history.lines[path] = Line(self.base[path])
        return path

    def device(self, name: str, chunks: int = 3) -> str:
        """The same on a loop device. A link to it is the volume, as one of LVM may be."""
        path = self.volume(name, chunks, SECTOR)
        below = self.rule.with_name(f"{name}.disk")
        os.rename(path, below)
        device = losetup(below)
        self.devices[device] = path
        os.symlink(device, path)
        return path

    def write(self, name: str, offset: int, length: int, host: str = "main") -> None:
        self._stamps += 1
        put = Put(time.time_ns(), offset, stamped(self._stamps, offset, length))
        self._line(name).puts.append(put)
        with self.act(f"write to {name}"):
            self.services[host].write(name, offset, put.data)
            put.ended = time.time_ns()

    def touch(self, name: str, *chunks: int, host: str = "main") -> None:
        """Write some sectors in the middle of chunks."""
        for chunk in chunks:
            self.write(name, chunk * CHUNK + 5 * SECTOR, 3 * SECTOR, host)

    def sync(self, name: str, host: str = "main") -> None:
        with self.act(f"fsync of {name}"):
            began = time.time_ns()
            fd = os.open(self.services[host].path(name), os.O_RDWR)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._line(name).syncs.append((began, time.time_ns()))

    def at_once(self, *names: str) -> None:
        """A program for each of these files, a file may have several: all write and sync."""
        main = self.services["main"]
        with self.act(f"writers of {names}"):
            run_all([Writer(main, self._line(n), n, number) for number, n in enumerate(names)])

    def _line(self, name: str) -> Line:
        """A shadow that was made by -e begins as zeros."""
        if name not in self.history.lines:
            self.history.lines[name] = Line(bytes(os.path.getsize(name)))
        return self.history.lines[name]

    # -- verbs ------------------------------------------------------------------------------

    def enable(self, kind: str, master: str, shadow: str, group: str | None = None) -> None:
        request = protocol.Enable(kind, master, shadow, f"{shadow}.b", group)  # type: ignore[arg-type]
        self.sets[shadow] = master
        self._tell(request)
        self._note_pit("s", shadow)

    def whole(self, kind: str, master: str, shadow: str, group: str | None = None) -> None:
        """Enable, and wait for the copy."""
        self.enable(kind, master, shadow, group)
        self.wait(shadow)

    def wait(self, *shadows: str) -> None:
        self._tell(protocol.Wait(Target(shadows), 60))

    def flip(self, direction: str, *shadows: str, full: bool = False) -> None:
        with self.act(f"-u {direction} {shadows}"):
            self.services["main"].flip(direction, *shadows, full=full)
        self._note_pit(direction, *shadows)

    def _note_pit(self, direction: str, *shadows: str) -> None:
        """Somewhere between the request and its answer; from the answer on for sure.

        Not of a set whose point in time is as before: the verb was refused.
        """
        act = self.acts[-1]
        before, after = act.before.hosts["main"].sets, act.after.hosts["main"].sets
        new = [s for s in shadows if s in after and _pit(after.get(s)) != _pit(before.get(s))]
        if new:
            views = moves(direction == "m", [(s, self.sets[s]) for s in new])
            self.history.pits.append(Pit(act.began, act.ended, views, tuple(new)))

    def reset(self, shadow: str) -> None:
        """A shadow that was not offline stays what it is."""
        lost = "shadow" in self.told("main", shadow)["offline"]
        self._tell(protocol.Reset(Target((shadow,)), sure=True))
        if lost:
            self._note_pit("s", shadow)

    def give_up(self, shadow: str) -> None:
        """From the answer on the master holds for sure what it held where nothing was restored."""
        master, client = self.sets[shadow], self.services["main"].client
        self.sync(master)  # else that would be promised to nobody
        rest = client.call(protocol.NotRestored(shadow, 0, 1 << 20), protocol.Compared)
        raw, began = Path(master).read_bytes(), time.time_ns()
        parts = [(first * CHUNK, (first + count) * CHUNK) for first, count in rest.runs]
        assert parts, "the restore has brought everything"
        self._tell(protocol.GiveUp(shadow, sure=True))
        line, ended = self._line(master), self.answered
        line.puts += [Put(began, start, raw[start:stop], ended) for start, stop in parts]
        line.syncs.append((ended, ended))

    def disable(self, shadow: str, host: str = "main") -> None:
        if host == "main":
            self.history.retired[shadow] = time.time_ns()
        self._tell(protocol.Disable(Target((shadow,))), host)

    def export(self, *shadows: str) -> None:
        with self.act(f"-E {shadows}"):
            self.services["main"].client.call(protocol.Export(Target(shadows)), list)

    def take_in(self, shadow: str) -> None:
        """Of a device the ticket lies in the state directory."""
        ticket = None if shadow not in self.devices.values() else str(self._tickets()[0])
        self._tell(protocol.Import(shadow, f"{shadow}.b2", ticket), "other")

    def join(self, shadow: str) -> None:
        self._tell(protocol.Join(shadow, f"{shadow}.b2"))

    def move(self, group: str, *shadows: str) -> None:
        self._tell(protocol.Move(group, shadows))

    def control(self, *volumes: str) -> None:
        self._tell(protocol.Control(volumes))

    def release(self, *volumes: str) -> None:
        self._tell(protocol.Release(volumes))

    def _tell(self, request: protocol.AnyRequest, host: str = "main") -> None:
        with self.act(f"{host}: {request}"):
            self.services[host].client.notes(request)

    # -- what was answered ------------------------------------------------------------------

    @contextmanager
    def act(self, what: str) -> Iterator[None]:
        began, failed = time.time_ns(), False
        try:
            yield
        except (errors.IifuseError, OSError) as error:
            if self.fails_from > began:
                raise
            failed, what = True, f"{what}: {error}"  # something was made to fail
        self.answered = time.time_ns()
        before, self.answer = self.answer, self._ask()
        self.acts.append(Act(what, began, time.time_ns(), before, self.answer, failed))

    def _ask(self) -> Answer:
        old = self.answer.hosts
        hosts = {n: ask(s) or old.get(n, Told()) for n, s in self.services.items()}
        volumes = {str(path): times_of(path) for path in self.volumes.iterdir()}
        return Answer(hosts, {str(p): p.read_bytes() for p in self._tickets()}, volumes)

    def told(self, host: str, shadow: str) -> dict[str, Any]:
        """What was last told of a set."""
        return self.answer.hosts[host].sets[shadow]

    def _tickets(self) -> list[Path]:
        places = [self.volumes, *(service.state for service in self.services.values())]
        return [p for place in places for p in place.rglob("*") if p.name.endswith(TICKETS)]

    # -- the end ----------------------------------------------------------------------------

    def finish(self, name: str) -> FsRecording:
        """Kill everything, and put the record together."""
        for service in self.services.values():
            with service.no_transaction():
                service.clean_up()
        replay = Replay(str(self.root), left_out=LEFT_OUT, devices=self.devices)
        for path, data in self.base.items():
            replay.add_file(path, data)
        for directory in (self.volumes, *(s.home for s in self.services.values())):
            replay.names[str(directory)] = DIRECTORY
        first, names = {n: bytes(data) for n, data in replay.files.items()}, dict(replay.names)
        replay.run(self.calls())
        self._expect_whole(replay)
        self._in_positions(replay.position)
        number = _inodes(replay)
        disks = {number(replay.names[p]): _disk_of(p) for p in self.devices.values()}
        files = {number(n): data for n, data in first.items()}
        names = {path: number(n) for path, n in names.items()}
        log = [renumbered(event, number) for event in replay.events]
        base, fails_from = Image(files, names), replay.position(self.fails_from)
        promised = (self.history, self.sets, fails_from < len(log), {}, True)
        host_names = tuple(self.services)
        return FsRecording(
            name, 0, base, log, *promised, str(self.root), self.acts, host_names, fails_from,
            self.unnoted, disks,
        )  # fmt: skip

    def calls(self) -> Iterator[Call]:
        """All calls of services and programs, which have ended."""
        for service in self.services.values():
            for text in service.logs():
                yield from calls(text)
        for log in self._logs:
            yield from calls(whole_log(log))

    def _expect_whole(self, replay: Replay) -> None:
        """What the calls amount to is what lies on the disk."""
        found = {str(p) for p in self.root.rglob("*") if not p.is_dir() and _is_kept(str(p))}
        known = {path for path, number in replay.names.items() if number != DIRECTORY}
        assert found == known, "the trace is not whole"
        for path in found:
            same = Path(path).read_bytes() == replay.files[replay.names[path]]
            assert same, f"the trace is not whole: {path}"

    def _in_positions(self, position: Callable[[int], int]) -> None:
        for line in self.history.lines.values():
            line.syncs = [(position(began), position(ended)) for began, ended in line.syncs]
            for made in line.puts:
                made.began = position(made.began)
                made.ended = None if made.ended is None else position(made.ended)
        for pit in self.history.pits:
            pit.record, pit.durable = position(pit.record), position(pit.durable) - 1
        retired = self.history.retired
        self.history.retired = {name: position(at) for name, at in retired.items()}
        for act in self.acts:
            act.began, act.ended = position(act.began), position(act.ended)


def _pit(row: dict[str, Any] | None) -> object:
    return row["pit_id"] if row else None


def _is_kept(path: str) -> bool:
    return not re.search(LEFT_OUT, path)


def _disk_of(path: str) -> int:
    device = os.path.basename(os.readlink(path))
    return os.stat(Path("/sys/block", device, "loop/backing_file").read_text().strip()).st_ino


def _inodes(replay: Replay) -> Callable[[int], int]:
    """The numbers of files as the file system has them, by which the service knows them."""
    files = [(path, n) for path, n in replay.names.items() if n != DIRECTORY]
    real = {n: os.stat(path).st_ino for path, n in files if path not in replay.devices.values()}
    return lambda number: real.get(number, number and number + (1 << 48))
