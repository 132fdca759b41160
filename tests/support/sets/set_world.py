"""Every verb against the real program through a real mount, and against the model beside it.

`Hosts` are two services that share a directory; `World` does a verb to both, the program and the
model, and compares them. tests/model makes the random walks.
"""

import mmap
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from hang import PREFIX, WATCHDOG
from harness import CHUNK, Service
from set_looks import LARGE_CHUNKS, assert_copied, assert_row, compare, raw_content
from set_model import WIPED, Content, Import, ModelMaster, ModelSet

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import SetStatus, Target

DEFECTS = (errors.InternalError, errors.StorageError, errors.ProtocolError, errors.ServiceError)
"""Never the answer to a verb that is merely not allowed."""

NOISE = random.Random(20).randbytes(1 << 20)
DEFAULT_OPTIONS = ("stop_wait=2",)


def noise(seed: int, length: int) -> bytes:
    start = seed * 7919 % (len(NOISE) - 400_000)
    assert length <= 400_000
    return NOISE[start : start + length]


class Hosts:
    """Two services on one machine; fresh ones after a failure."""

    def __init__(self, base: str | None = "/dev/shm") -> None:
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        self.app = Service(self.root, "app", DEFAULT_OPTIONS)
        self.backup = Service(self.root, "backup", DEFAULT_OPTIONS)

    def start(self) -> "Hosts":
        WATCHDOG.watch()
        self.app.start()
        self.backup.start()
        return self

    def close(self) -> None:
        self.app.clean_up()
        self.backup.clean_up()
        WATCHDOG.rest()
        shutil.rmtree(self.root, ignore_errors=True)


def write_file(path: Path, offset: int, data: bytes, how: str) -> None:
    """One write through the mount, the file closed again; done at once or not at all."""
    flags = {"direct": os.O_DIRECT, "dsync": os.O_DSYNC}.get(how, 0)
    fd = os.open(path, os.O_RDWR | flags)
    try:
        if how == "mapped":
            with mmap.mmap(fd, 0) as mapped:
                mapped[offset : offset + len(data)] = data
        else:
            assert os.pwrite(fd, data, offset) == len(data)
        if how == "synced":
            os.fsync(fd)
    finally:
        os.close(fd)


class World:
    """A directory with masters and sets, on the services and in the model."""

    def __init__(self, hosts: Hosts, masters: list[int], kinds: list[tuple[int, str]]) -> None:
        self.hosts, self.app, self.backup = hosts, hosts.app, hosts.backup
        self.place = Path(tempfile.mkdtemp(prefix="w", dir=hosts.root))
        self.masters = [self._make_master(i, size) for i, size in enumerate(masters)]
        self.sets: list[ModelSet] = []
        for number, (master, kind) in enumerate(kinds):
            member = ModelSet(str(self.place / f"s{number}"), kind, self.masters[master])
            if number % 2:  # a shadow that is there already, longer, and full of old bytes
                size = member.master.content.size
                Path(member.name).write_bytes((NOISE * (size // len(NOISE) + 2))[: size + 5000])
            member.master.sets.append(member)
            self.sets.append(member)
        self.lent: dict[str, Import] = {}  # shadow -> what the backup host has in use
        self.abandoned: set[str] = set()  # shadows disabled while lent: their tickets stay
        self.backup_runs = True

    def _make_master(self, number: int, size: int) -> ModelMaster:
        content = Content(size)
        step = 1 if content.count < LARGE_CHUNKS else 41
        for chunk in range(0, content.count, step):
            if (chunk // 8) % 5 != 4:  # with holes
                content.chunks[chunk] = noise(chunk + number, CHUNK)
        path = self.place / f"m{number}"
        with path.open("wb") as file:
            file.truncate(size)
            for chunk in content.chunks:
                file.seek(chunk * CHUNK)
                file.write(content.chunk(chunk))
        return ModelMaster(str(path), content)

    # -- asking -----------------------------------------------------------------------------

    def statuses(self) -> dict[str, SetStatus]:
        return {row.shadow: row for row in self.app.client.status()}

    @property
    def enabled(self) -> list[ModelSet]:
        return [s for s in self.sets if s.enabled]

    def target(self, members: Iterable[ModelSet]) -> Target:
        return Target(tuple(s.name for s in members))

    def attempt(self, call: Callable[[], object], allowed: set[bool]) -> bool:
        """Did the verb work? It must if it may; refused, it must leave everything as it was."""
        before = self.statuses()
        try:
            call()
        except DEFECTS:
            raise
        except errors.IifuseError as error:
            assert False in allowed, f"refused, though allowed: {error}"
            self.assert_unchanged(before)
            return False
        assert True in allowed, "allowed, though the state table refuses it"
        return True

    def assert_unchanged(self, before: dict[str, SetStatus]) -> None:
        after = self.statuses()
        assert before.keys() == after.keys(), "a refused verb has changed the list of sets"
        if not any(row.copying for row in before.values()):
            assert after == before, "a refused verb has changed a set"

    def verdicts(self, verb: str, members: Iterable[ModelSet]) -> set[bool]:
        """What the state table says, now and once the running copies have ended."""
        members = list(members)
        return {
            all(m.allows(verb, copies_ended=ended) for m in members) for ended in (False, True)
        }

    # -- what must hold after every step ----------------------------------------------------

    def observe(self) -> None:
        """The status of every set fits the model, which learns what copies have ended."""
        rows = self.statuses()
        assert rows.keys() == {s.name for s in self.enabled}
        for member in self.enabled:
            row = rows[member.name]
            if member.copying and row.progress == "idle":
                assert_copied(member, row)
                member.finish()
        for member in self.enabled:
            assert_row(member, rows[member.name])

    def compare_views(self) -> None:
        for master in self.masters:
            if master.enabled:
                compare(self.app.path(master.name), master.content)
        for member in self.enabled:
            if member.custody == "local":
                compare(self.app.path(member.name), member.shadow)
            elif member.name in self.lent and self.backup_runs:
                compare(self.backup.path(member.name), member.shadow)

    def check_raw(self) -> None:
        """In an idle independent set every chunk whose raw bytes differ has its bit."""
        rows = self.statuses()
        for member in self.enabled:
            if (member.kind, member.row) == ("ind", "idle"):
                differing = self.raw_differences(member)
                assert differing <= member.upper
                assert len(differing) <= rows[member.name].shadow_bits

    def raw_differences(self, member: ModelSet) -> set[int]:
        if any(s.progress == "to_master" for s in member.siblings):
            return set()  # part of the raw master is still to come
        raw = [raw_content(n, member.master.content) for n in (member.master.name, member.name)]
        return raw[0].differing(raw[1])

    # -- writing ----------------------------------------------------------------------------

    def write_master(self, master: ModelMaster, offset: int, data: bytes, how: str) -> None:
        write_file(self.app.path(master.name), offset, data, how)
        master.write(offset, data)

    def write_shadow(self, member: ModelSet, offset: int, data: bytes, how: str) -> None:
        if member.custody == "local":
            write_file(self.app.path(member.name), offset, data, how)
            member.wrote(member.shadow.write(offset, data))
        else:
            loan = self.lent[member.name]
            write_file(self.backup.path(member.name), offset, data, how)
            touched = member.shadow.write(offset, data)
            loan.lower |= touched
            loan.upper |= touched

    # -- verbs ------------------------------------------------------------------------------

    def enable(self, member: ModelSet, group: str | None) -> None:
        free = not member.enabled and member.name not in self.lent
        verdicts = {
            free and not member.is_held_by_sibling(copies_ended=ended) for ended in (False, True)
        }
        names = (member.master.name, member.name, f"{member.name}.bmp")

        def enable() -> None:
            self.app.client.notes(protocol.Enable(member.kind, *names, group))

        if member.name in self.abandoned and not member.enabled:
            assert not self.attempt(enable, {False})
            Path(f"{member.name}.iiticket").unlink()  # as the refusal says
            self.abandoned.remove(member.name)
        if self.attempt(enable, verdicts):
            self.observe_restores_before(member)
            member.enable()
            member.group = group

    def observe_restores_before(self, member: ModelSet) -> None:
        """What was allowed only because a sibling's restore has ended meanwhile."""
        for sibling in member.siblings:
            if sibling.copying and sibling.progress == "to_master":
                sibling.finish()

    def disable(self, members: list[ModelSet]) -> None:
        verdicts = self.verdicts("-d", members)
        if not self.attempt(lambda: self.app.disable(*(s.name for s in members)), verdicts):
            return
        for member in members:
            if member.copying:
                member.finish()
            self.check_left_behind(member)
            if member.custody == "exported":
                self.abandoned.add(member.name)
            member.disable()
        for master in {id(m.master): m.master for m in members}.values():
            if not master.enabled:
                assert raw_content(master.name, master.content).differing(master.content) == set()

    def check_left_behind(self, member: ModelSet) -> None:
        """A complete shadow is a plain volume now; an incomplete one was wiped."""
        if member.custody == "exported":
            return
        raw = Path(member.name)
        if member.is_incomplete:
            with raw.open("rb") as file:
                assert not any(file.read(WIPED[1])[WIPED[0] :])
        else:
            assert raw_content(member.name, member.shadow).differing(member.shadow) == set()

    def flip(self, direction: str, full: bool, members: list[ModelSet], target: Target) -> None:
        verb = f"-{'c' if full else 'u'} {direction}"
        verdicts = self.verdicts(verb, members)
        if direction == "m" and len({id(m.master) for m in members}) < len(members):
            verdicts = {False}
        replies: list[SetStatus] = []
        request = protocol.Update(direction, full, target, sure=True)
        if not self.attempt(
            lambda: replies.extend(self.app.client.call(request, list[SetStatus])), verdicts
        ):
            return
        by_name = {row.shadow: row for row in replies}
        assert by_name.keys() == {m.name for m in members}
        flipped = []
        for member in members:
            if direction == "m" and member.row == "to_master aborted":
                member.copying = True
                assert by_name[member.name].pit == member.pit
            else:
                flipped.append(member)
        for member in flipped:
            self._flipped(member, direction, full, by_name[member.name])
        assert len({by_name[m.name].pit_id for m in flipped}) <= 1

    def _flipped(self, member: ModelSet, direction: str, full: bool, row: SetStatus) -> None:
        self.observe_restores_before(member)
        if member.copying and member.progress == "to_master":
            member.finish()
        low, high = member.flip(direction, full)
        assert low <= row.copy_bits <= high, "the union of the changed chunks is to be copied"
        assert row.shadow_bits == 0
        assert row.pit == member.pit
        member.union = row.copy_bits

    def abort(self, members: list[ModelSet]) -> None:
        self.app.client.notes(protocol.Abort(self.target(members)))
        rows = self.statuses()
        for member in members:
            row = rows[member.name]
            assert not row.copying
            if member.copying and row.progress != "idle":
                member.copying, member.left = False, row.copy_bits

    def wait(self, members: list[ModelSet]) -> None:
        aborted = any(m.progress != "idle" and not m.copying for m in members)
        try:
            self.app.wait(*(m.name for m in members))
        except errors.CopyStopped:
            assert aborted
            return
        assert not aborted
        rows = self.statuses()
        assert all(rows[m.name].progress == "idle" for m in members)

    def move(self, members: list[ModelSet], group: str | None) -> None:
        names = tuple(m.name for m in members)
        self.app.client.notes(protocol.Move(group or "", names))
        for member in members:
            member.group = group
        groups = self.app.client.call(protocol.Groups(), list[str])
        assert groups == sorted({s.group for s in self.enabled if s.group})
