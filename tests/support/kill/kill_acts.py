"""What is under way when a service is killed: one verb each, and what has come of it afterwards.

`run` does the verb while programs write; `learn` asks after the restart how far it came. Either may
be cut short anywhere.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from kill_sectors import Part, Truth, check_instant, clock, read_windows, tags_in
from kill_world import Member, World, target
from shown import moves

from iifuse.control import protocol
from iifuse.control.protocol import SetStatus
from iifuse.core.ticket import TicketEntry

Rows = dict[str, SetStatus]


def name_of(member: Member) -> str:
    return Path(member.shadow.name).name


class Act:
    """Many programs write and no verb is given.

    `begun`, `ended`: moments between which the verb was under way, None where it did not come to
    that; `seconds`: how long it took.
    """

    name = "heavy load"
    victim = "app"

    def __init__(self, world: World, *members: Member) -> None:
        self.world, self.members = world, members
        self.begun: int | None = None
        self.ended: int | None = None
        self.given = threading.Event()
        self.seconds = 0.0

    def closed(self) -> list[Truth]:
        """Files that nobody may have open when the verb is given."""
        return []

    def run(self) -> None:
        """Raises what the verb raises, and OSError when its service goes away."""
        with self.verb():
            for truth in self.world.truths.values():
                self.world.load(truth, 2)
            time.sleep(0.2)

    @contextlib.contextmanager
    def verb(self) -> Iterator[None]:
        """The verb is under way."""
        start = time.monotonic()
        self.begun = clock()
        self.given.set()
        yield
        self.ended = clock()
        self.seconds = time.monotonic() - start

    def learn(self, rows: Rows) -> None:
        """Adopt what has become of it; raise Lost if it is neither done nor not done."""


class Flip(Act):
    """`-u`, `-c`; with `abort` the copy is stopped at once."""

    def __init__(
        self, world: World, direction: str, *members: Member, full: bool = False,
        abort: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(world, *members)
        self.direction, self.full, self.abort = direction, full, abort
        kinds = "+".join(m.kind for m in members)
        self.name = f"-{'c' if full else 'u'} {direction} {kinds}{' -a' if abort else ''}"
        self.goes_on = direction == "m" and bool(members[0].aborted)
        self.learned = False
        self.moves = moves(direction == "m", [(m.shadow, m.master) for m in members])

    def closed(self) -> list[Truth]:
        return list(self.moves)

    def run(self) -> None:
        app = self.world.app
        self.world.wait_for_copies(name_of(m) for m in self.world.sets)
        request = protocol.Update(self.direction, self.full, target(self.members), sure=True)
        with self.verb():
            rows = app.client.call(request, list[SetStatus])
        for member in self.members:
            member.aborted = False
        if self.abort:
            self._abort()
        self.learn({Path(row.shadow).name: row for row in rows})
        for truth in self.closed():
            self.world.load(truth)
        if not self.abort:
            self.world.wait_for_copies(name_of(m) for m in self.members)

    def learn(self, rows: Rows) -> None:
        """The targets show their sources at one instant, or all are as they were."""
        if self.begun is None or self.learned:
            return
        moved = {rows[name_of(m)].pit - m.pit for m in self.members}
        assert len(moved) == 1, f"{self.name}: a part of the command was done: {moved}"
        if moved == {0}:
            assert self.ended is None or self.goes_on, "it was answered and is not in force"
            if self.goes_on:
                self._taken_up(rows)
            return
        assert moved == {1}
        assert not self.goes_on
        assert len({rows[name_of(m)].pit_id for m in self.members}) == 1
        shown = [tags_in(t.name, self.world.read(Path(t.name).name)) for t in self.closed()]
        moved = zip(self.moves.items(), shown, strict=True)
        parts = [Part(source, to.name, tags) for (to, source), tags in moved]
        check_instant(parts, self.begun, self.ended)
        for member, truth, tags in zip(self.members, self.closed(), shown, strict=True):
            truth.become(tags)
            member.pit = rows[name_of(member)].pit
            if self.ended is None:
                member.aborted = False
        self.learned = True

    def _abort(self) -> None:
        for member in self.members:
            member.aborted = None
        self.world.app.abort(*(m.shadow.name for m in self.members))
        for member in self.members:
            member.aborted = True

    def _taken_up(self, rows: Rows) -> None:
        """The same restore goes on, or is still aborted."""
        for member in self.members:
            row = rows[name_of(member)]
            assert row.copying or row.progress == "idle" or self.ended is None
            member.aborted = row.progress != "idle" and not row.copying


class Renew(Act):
    """`-d` and `-e`: the set is made anew."""

    def __init__(self, world: World, member: Member) -> None:
        super().__init__(world, member)
        self.name = f"-d -e {member.kind}"
        self.member, self.disabled, self.learned = member, not member.enabled, False

    def closed(self) -> list[Truth]:
        return [self.member.shadow]

    def run(self) -> None:
        member, app = self.member, self.world.app
        self.world.wait_for_copies(name_of(m) for m in self.world.sets)
        with self.verb():
            if member.enabled:
                app.disable(member.shadow.name)
                self.disabled = True
            self.begun = clock()
            row = app.enable(member.kind, Path(member.master.name), Path(member.shadow.name), None)
        self.learn({name_of(member): row})
        self.world.load(member.shadow)

    def learn(self, rows: Rows) -> None:
        member, row = self.member, rows.get(name_of(self.member))
        if self.learned:
            assert row is not None, "it was answered and is not in force"
            assert row.uuid == member.uuid
            return
        if row is None:
            assert self.ended is None, "it was answered and is not in force"
            if member.enabled and member.kind == "ind":
                raw = read_windows(Path(member.shadow.name), member.shadow.count)
                member.shadow.settle(raw)
            member.enabled = False
            return
        if member.enabled and row.uuid == member.uuid:
            assert not self.disabled, "it was disabled and is still there"
            return
        assert self.disabled, "a set that nobody made"
        assert self.begun is not None
        assert row.pit == 1
        shown = read_windows(self.world.app.path(member.shadow.name), member.shadow.count)
        tags = tags_in(member.shadow.name, shown)
        check_instant([Part(member.master, member.shadow.name, tags)], self.begun, self.ended)
        member.shadow.become(tags)
        member.enabled, member.uuid, member.pit, member.aborted = True, row.uuid, row.pit, False
        self.learned = True


class Export(Act):
    """`-E` of what is still local."""

    name = "-E"

    def closed(self) -> list[Truth]:
        return [m.shadow for m in self.members]

    def run(self) -> None:
        self.world.wait_for_copies(name_of(m) for m in self.members)
        with self.verb():
            self.world.app.client.call(protocol.Export(target(self.members)), list[TicketEntry])
        self.learn(self.world.rows())

    def learn(self, rows: Rows) -> None:
        for member in self.members:
            if rows[name_of(member)].custody == "exported":
                member.stage = "exported" if member.stage == "local" else member.stage
                assert Path(f"{member.shadow.name}.iiticket").exists()
            else:
                assert self.ended is None, "it was answered and is not in force"


class Import(Act):
    """`-I` on the other host, with the same bitmap volume every night."""

    name, victim = "-I", "backup"

    def run(self) -> None:
        with self.verb():
            for member in self.members:
                request = protocol.Import(member.shadow.name, secondary(member))
                self.world.backup.client.notes(request)
                member.stage = "imported"
        for member in self.members:
            self.world.load(member.shadow)

    def learn(self, rows: Rows) -> None:
        there = self.world.rows(self.world.backup)
        for member in self.members:
            if name_of(member) in there:
                member.stage = "imported"
            assert member.stage == "exported" or name_of(member) in there, "an import is gone"


class Night(Act):
    """The backup host writes to the shadows."""

    name, victim = "heavy load there", "backup"


class Return(Act):
    """`-d` on the other host."""

    name, victim = "-d there", "backup"

    def closed(self) -> list[Truth]:
        return [m.shadow for m in self.members]

    def run(self) -> None:
        with self.verb():
            for member in self.members:
                self.world.backup.disable(member.shadow.name)
                member.stage = "returned"

    def learn(self, rows: Rows) -> None:
        there = self.world.rows(self.world.backup)
        for member in self.members:
            if name_of(member) not in there:
                member.stage = "returned"
            assert member.stage == "imported" or name_of(member) not in there


class Join(Act):
    """`-J` of what came back."""

    name = "-J"

    def run(self) -> None:
        with self.verb():
            for member in self.members:
                request = protocol.Join(member.shadow.name, secondary(member))
                self.world.app.client.notes(request)
                member.stage = "local"
        for member in self.members:
            self.world.load(member.shadow)

    def learn(self, rows: Rows) -> None:
        for member in self.members:
            if rows[name_of(member)].custody == "local":
                member.stage = "local"
            assert member.stage == "returned" or rows[name_of(member)].custody == "local"


def secondary(member: Member) -> str:
    return f"{member.shadow.name}.iibm"
