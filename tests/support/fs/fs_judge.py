"""Start the real engine on what a file system has kept, and see whether every answer still holds.

Volumes, tickets and the group record are read from the image in memory, as the other explorer does
it; the state database by SQLite, which rolls back what its journal tells it to.
"""

import os
import zlib
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from crash_disk import SYSTEM, Disk, Write
from crash_host import Host
from crash_judge import Case, Check, Future, started
from crash_schedule import run
from crash_unsynced import Resize
from fs_answers import Act, Answer, Told, told_of
from fs_rig import FsRecording
from lost import Lost

from iifuse.control.rows import status
from iifuse.store.statedb import StateDB

Row = dict[str, Any] | None
"""What is told of a set; None: there is no such set."""


class FsHost(Host):
    """A machine whose state directory is a real one."""

    def __init__(self, disk: Disk, name: str, root: str, scratch: str) -> None:
        super().__init__(disk, name)
        self.directory = f"{root}/{name}/state"
        self.boot, self._scratch = uuid4(), f"{scratch}/{name}"
        self._db: StateDB | None = None

    def database(self) -> Any:
        os.makedirs(self._scratch, exist_ok=True)
        for name in os.listdir(self._scratch):
            os.unlink(f"{self._scratch}/{name}")
        for path in [p for p in self.disk.names if p.startswith(f"{self.directory}/state.db")]:
            with open(f"{self._scratch}/{os.path.basename(path)}", "wb") as file:
                file.write(self.disk.content(path))
        self._db = StateDB(self._scratch)
        return self._db

    def close(self) -> None:
        if self._db is not None:
            self._db.close()


NOBODY: Any = SimpleNamespace(
    name="nobody",
    instance=SimpleNamespace(views={}, sets={}, db=SimpleNamespace(sets=list, volumes=list)),
)
"""The other host, where there is none."""


@dataclass
class FsCase(Case):
    """An image, and the position of the log at which the power failed."""

    recording: FsRecording
    old_times: frozenset[int] = frozenset()
    """Files that have the times of before their last write."""


def judge(case: FsCase, scratch: str, *, go_on: bool) -> None:
    """Raises Lost at a broken promise."""
    SYSTEM.disk = Disk(case.image)
    SYSTEM.disk.devices = case.recording.devices
    SYSTEM.disk.stats = looks_of(case)
    hosts = [FsHost(SYSTEM.disk, n, case.recording.root, scratch) for n in case.recording.hosts]
    try:
        _check_tickets(case)
        run(partial(_judge, case, hosts, go_on), case.position)
    finally:
        for host in hosts:
            host.close()


def looks_of(case: FsCase) -> dict[int, dict[str, int]]:
    """A verb, a start too, has moved the times of what it has written or may be writing.

    All else looks as before: a header may still say so. Each of several writes by one verb has the
    times of the last.
    """
    first, *later = answers(case)
    act, names = last_act(case), case.image.names
    found = {names[p]: stat for p, stat in first.stats.items() if p in names}
    if later and act:
        begun = case.recording.log[act.began : case.position + 1]
        written = {event.file for event in begun if isinstance(event, Write | Resize)}
        new = {names[p]: stat for p, stat in later[0].stats.items() if p in names}
        found |= {n: stat for n, stat in new.items() if n in written or n not in found}
    for number in case.old_times & found.keys():
        before = {f"st_{n}time_ns": found[number][f"st_{n}time_ns"] - 10**9 for n in "mc"}
        found[number] = {**found[number], **before}
    return found


async def _judge(case: FsCase, hosts: list[FsHost], go_on: bool) -> None:
    async with started(hosts):
        both = [*hosts, *([NOBODY] * (2 - len(hosts)))]
        FsCheck(case, both).all()
        for host in hosts if not is_failing(case) else ():
            await _check_told(case, host)
            _check_times(case, host)
        if go_on:
            await FsFuture(case, both).all()


class FsCheck(Check):
    """Of volumes with no set too."""

    def _shown(self, bitmaps: Any) -> dict[str, bytes]:
        shown = super()._shown(bitmaps)
        others = {n: self.disk.content(n) for n in self.views if n not in shown}
        return {**others, **shown}

    def _look(self, host: Any, name: str, shown: bytes) -> bytes:
        return shown if name in cut_short(host) else super()._look(host, name, shown)

    def _fit_one_world(self, shown: dict[str, bytes]) -> None:
        if not is_failing(self.case):
            super()._fit_one_world(shown)

    def _other_pit(self, shadow: str, world: Any) -> bool:
        """Whoever has lost a bitmap volume counts from the beginning again."""
        if self.case.position > self.case.recording.fails_from:
            return False
        return super()._other_pit(shadow, world)


class FsFuture(Future):
    """A master that waits for a shadow shows its own part only."""

    def _readable(self, name: str) -> bool:
        return super()._readable(name) and name not in cut_short(self.main)


def cut_short(host: Any) -> set[str]:
    """Masters whose restore waits for a shadow: some of their chunks can be read from nowhere."""
    return {s.header.master for s in host.instance.sets.values() if s.restoring and s.state.offline}


def answers(case: FsCase) -> list[Answer]:
    """What was said last, and what is about to be said by a verb under way."""
    acts = case.recording.acts
    before = [act for act in acts if act.ended <= case.position]
    under_way = [act for act in acts if act.began < case.position < act.ended]
    found = [before[-1].after] if before else [Answer()]
    return found + [act.after for act in under_way]


def is_failing(case: FsCase) -> bool:
    """Is a verb under way that will be refused? What it has begun may be done after all."""
    act = last_act(case)
    return act is not None and act.failed and case.position < act.ended


def last_act(case: FsCase) -> Act | None:
    """What was under way, or was done last."""
    begun = [act for act in case.recording.acts if act.began < case.position]
    return begun[-1] if begun else None


def _check_tickets(case: FsCase) -> None:
    """Before any start: the other host reads a ticket while this one is down."""
    allowed = answers(case)
    for path in {p for answer in allowed for p in answer.tickets}:
        wanted = [answer.tickets.get(path) for answer in allowed]
        found = SYSTEM.disk.content(path) if path in SYSTEM.disk.names else None
        if found not in wanted:
            what = "is gone" if found is None else f"has another content, of {len(found)} bytes"
            raise Lost(f"the ticket {os.path.basename(path)} {what}")


async def _check_told(case: FsCase, host: FsHost) -> None:
    """Nothing that was answered is forgotten: of a verb under way each set has it or has it not."""
    rows = [await status(host.instance, member) for member in host.instance.sets.values()]
    found = {row.shadow: told_of(row) for row in rows}
    allowed = [answer.hosts.get(host.name, Told()) for answer in answers(case)]
    for shadow in {s for told in allowed for s in told.sets} | found.keys():
        row = _as_told_later(found.get(shadow), [told.sets.get(shadow) for told in allowed])
        wrong = [_forgotten(told.sets.get(shadow), row, case) for told in allowed]
        if all(wrong):
            raise Lost(f"{host.name}: {os.path.basename(shadow)}: {' // '.join(wrong)}")
    _check_groups(host.name, allowed, found)
    lost = {shadow for shadow, row in found.items() if row["offline"]}
    _check_shown(host, allowed, lost)


def _as_told_later(found: Row, told: list[Row]) -> Row:
    """What a verb under way has begun may have ended or failed when its answer was looked at."""
    last = told[-1]
    if len(told) == 1 or not found or not last:
        return found
    if set(found["offline"]) < set(last["offline"]):
        return {**found, "offline": last["offline"]}
    if found["copying"] and last["progress"] == "idle":
        return {**found, "progress": "idle", "copying": False}
    return found


def _forgotten(told: Row, found: Row, case: FsCase) -> str:
    """Why a set is not what was told of it; empty if it is."""
    if told is None or found is None:
        return "" if told is found else f"{'is there' if found else 'is not there'} any more"
    roles = frozenset(told["offline"]), frozenset(found["offline"])
    may_fail = case.position > case.recording.fails_from
    if may_fail and case.recording.unnoted:
        return ""
    if not (roles[0] <= roles[1] if may_fail else roles[0] == roles[1]):
        return f"offline is {set(roles[1])}, told was {set(roles[0])}"
    if (told["progress"], found["progress"]) == ("idle", "to_master"):
        return "a restore that was given up, or had ended, is there again"
    names = _OF_EVERY_START if "bitmap" in roles[1] else _OF_THE_HEADER
    for name in names:
        if told[name] != found[name]:
            return f"{name} is {found[name]}, told was {told[name]}"
    copy = [(row["progress"], row["copying"]) for row in (told, found)]
    ended = told["copying"] and found["progress"] == "idle"
    return "" if copy[0] == copy[1] or ended or roles[1] else f"copy: {copy[1]}, told was {copy[0]}"


_OF_EVERY_START = ("master", "bitmap", "uuid", "kind", "custody")
"""What stands in the state database too."""
_OF_THE_HEADER = (*_OF_EVERY_START, "pit", "pit_id", "export_number", "break_write", "limit_s")


def _check_groups(name: str, allowed: list[Told], found: dict[str, dict[str, Any]]) -> None:
    """All sets that a command moves are in their new group, or none is."""
    for told in allowed:
        both = told.sets.keys() & found.keys()
        if all(told.sets[shadow]["group"] == found[shadow]["group"] for shadow in both):
            return
    groups = {os.path.basename(shadow): row["group"] for shadow, row in found.items()}
    raise Lost(f"{name}: groups are {groups}")


def _check_shown(host: FsHost, allowed: list[Told], lost: set[str]) -> None:
    found = set(host.instance.views)
    sure = set.intersection(*(set(told.files) for told in allowed)) - lost
    perhaps = set.union(*(set(told.files) for told in allowed))
    if not sure <= found <= perhaps:
        gone, new = sure - found, found - perhaps
        raise Lost(f"{host.name}: {gone} are not on the mount any more; {new} are there again")


def _check_times(case: FsCase, host: FsHost) -> None:
    """Change times never go backwards, and no two contents have the same times (K2)."""
    seen = [told for act in case.recording.acts if act.ended <= case.position
            for told in act.after.hosts.values()]  # fmt: skip
    for path, view in host.instance.views.items():
        shown = [told.files[path] for told in seen if path in told.files]
        times = view.times.mtime_ns, view.times.ctime_ns
        if any(times[1] < s.times[1] for s in shown):
            raise Lost(f"{host.name}: the change time of {os.path.basename(path)} goes backwards")
        before = {s.content for s in shown if s.times == times} - {None}
        if before and _readable(host, path) and before != {zlib.crc32(host.look(path))}:
            raise Lost(f"{host.name}: {os.path.basename(path)} had the same times before")


def _readable(host: FsHost, path: str) -> bool:
    member = host.instance.sets.get(path)
    return (member is None or not member.state.offline) and path not in cut_short(host)
