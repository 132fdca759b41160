"""What users, other hosts and the background copy may do to the sets of `crash_model`."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from uuid import UUID

from crash_cells import TORN, Cell
from crash_model import RECORD, Actor, Far, Recorder, Stage, World, chunks_of, noted_afar
from shown import moves

from iifuse.core import change as orders
from iifuse.core import state
from iifuse.core import touch as touches
from iifuse.core.bits import Bits
from iifuse.core.change import Act, Chains, Commit, Phase, SetStep, WriteBitmap
from iifuse.core.header import Header
from iifuse.core.state import Custody, Kind, Progress, Role, Verb
from iifuse.core.touch import Side, Sync, Touch
from iifuse.core.transition import Transition
from iifuse.errors import IifuseError
from iifuse.store.headerlog import HeaderLog
from iifuse.verbs import pit

Operation = tuple
"""(name of a method, its arguments...)"""


class Machine(Stage):
    """Each method but `operations` and `allows` is something that may happen; it may be cut."""

    # -- data -----------------------------------------------------------------------------------

    def write(self, file: Cell, first: int, count: int) -> Iterator[str]:
        """A user's write of whole chunks, as the views do it."""
        self._begin_write(file, first, count)
        kind, number = file
        ours = [a for a in self.actors if a.family == number]
        actors = ours if kind == "M" else [self.actors[number]]
        if not all(a.bits.note_if_ready(first, count) for a in actors):
            family = actors[0].family
            side, key = (Side.MASTER, None) if kind == "M" else (Side.SHADOW, actors[0].key)
            yield from self.touch(family, Touch(side, key, first, count))
        yield from self._end_write(file, first, count)

    def _begin_write(self, file: Cell, first: int, count: int) -> None:
        self.clock += 1
        for chunk in range(first, first + count):
            value = frozenset({self.clock})
            self._promise(file, chunk, value | {TORN}, value)

    def _end_write(self, file: Cell, first: int, count: int) -> Iterator[str]:
        value = self.clock
        for chunk in range(first, first + count):
            yield from self.apply([("put", (*file, chunk), value)])
        for chunk in range(first, first + count):
            self._promise(file, chunk, frozenset(), frozenset({value}))

    def touch(self, family: int, touch: Touch) -> Iterator[str]:
        members = [a.member for a in self.actors if a.family == family]
        yield from self.execute(touches.first_touch(members, [touch], ordered=True))

    def fsync(self, file: Cell) -> Iterator[str]:
        yield from self.apply([("sync", file)])
        self.worlds = [{**w, file: [(now, now) for _, now in w[file]]} for w in self.worlds]

    def copy_ahead(self, number: int) -> Iterator[str]:
        """The background copy brings one more chunk; its bit stays for now."""
        actor = self.actors[number]
        run = (self.to_bring(actor)[0], 1)
        if actor.header.state.restoring:
            yield from self.touch(actor.family, Touch(Side.RAW, actor.key, *run))
        yield from self.execute([(touches.copy_step(actor.member, run),)])
        actor.copied.append(run)

    def to_bring(self, actor: Actor) -> list[int]:
        brought = chunks_of(actor.copied)
        return [c for c in range(self.chunks) if actor.bits.copy.any(c, 1) and c not in brought]

    def copied(self, number: int) -> Iterator[str]:
        """The end of a stretch; writers may have come since. The last one ends the copy."""
        actor = self.actors[number]
        runs, actor.copied = actor.copied, []
        if runs:
            yield from self.execute(touches.end_of_stretch(actor.member, runs))
        if actor.bits.copy.is_zero():
            yield from self.execute([touches.sync_target(actor.member)])
            yield from self.commit(actor, progress=Progress.IDLE, copying=False)

    # -- points in time -------------------------------------------------------------------------

    def commit(self, actor: Actor, **changes: object) -> Iterator[str]:
        recorder = Recorder(actor.number, self.chunks)
        header = recorder.write_header(replace(actor.header, **changes))
        yield from self.apply(recorder.actions)
        actor.header = header

    def point(self, verb: Verb, *numbers: int) -> Iterator[str]:
        """A point in time of one set, or of several at one instant."""
        parts = {}
        command = self._command()
        for number in numbers:
            actor = self.actors[number]
            if actor.header.copying:
                yield from self.stop_copy(number)
            change = state.change_for(verb, actor.header.kind)
            parts[actor.key] = pit.prepare(actor, change, command)
        after = [self._flipped(w, verb, numbers) for w in self.worlds]
        self.worlds = [*self.worlds, *after]
        named = {actor.key: actor for actor in map(self.actors.__getitem__, numbers)}
        pits = {key: actor.header.pit.number for key, actor in named.items()}
        record = pit.with_members(command, pits, parts)
        phases = orders.point_in_time({key: part.change for key, part in parts.items()})
        for phase in phases[phases.index(Act.CLOSE_GATES) :]:
            yield from self._pit_phase(phase, parts, record)
        for key, part in parts.items():
            named[key].header, named[key].bits = part.header, Bits(part.shadow, part.copy)
        self.worlds = after

    def _command(self) -> Transition:
        """With the first id that no header and no record has: states stay equal over time."""
        headers = [cell for cell in self.disk.durable if cell[-1] == "header"]
        values = [v for cell in (*headers, RECORD) for v in self.disk.values(cell)]
        used = {a.header.transition_id.int for a in self.actors}
        used |= {v.transition_id.int for v in values if isinstance(v, Header)}
        used |= {v.id.int for v in values if isinstance(v, Transition)}
        free = next(number for number in itertools.count(1) if number not in used)
        return Transition(UUID(int=free), UUID(int=1), 0, ())

    def stop_copy(self, number: int) -> Iterator[str]:
        """The copier comes to rest; what it has brought is noted."""
        if self.actors[number].copied:
            yield from self.copied(number)

    def _flipped(self, world: World, verb: Verb, numbers: Sequence[int]) -> World:
        pairs = [(("S", number), ("M", self.actors[number].family)) for number in numbers]
        moved = moves(verb.to_master, pairs).items()
        return world | {to: [(now, now) for _, now in world[source]] for to, source in moved}

    def _pit_phase(self, phase: Phase, parts: dict, record: Transition) -> Iterator[str]:
        match phase:
            case Act.RECORD:
                yield from self.apply([("put", RECORD, record), ("sync", RECORD)])
            case Act.FORGET_RECORD:
                yield from self.apply([("put", RECORD, None), ("sync", RECORD)])
            case Chains(of):
                for step in itertools.chain(*of.values()):
                    yield from self._pit_step(step, self.actors[step.key.int - 1], parts[step.key])

    def _pit_step(self, step: SetStep, actor: Actor, part: pit.SetChange) -> Iterator[str]:
        if isinstance(step, Sync):
            yield from self.execute([(step,)])
            return
        recorder = Recorder(actor.number, self.chunks)
        pit.execute_change(step, part, HeaderLog(part.header, recorder))
        yield from self.apply(recorder.actions)

    # -- lent shadows ---------------------------------------------------------------------------

    def exact(self, actor: Actor, **changes: object) -> Iterator[str]:
        """VolumeSet.save_exact."""
        actor.bits.cool_all()
        for step in orders.exact_bits(actor.key):
            match step:
                case WriteBitmap(_, region):
                    found = [a for a in self.stores(actor) if a[1][-1] == region]
                    yield from self.apply(found)
                case Commit():
                    yield from self.commit(actor, **changes)
                case _:
                    yield from self.execute([(step,)])

    def lend(self, number: int) -> Iterator[str]:
        actor = self.actors[number]
        yield from self.execute([(Sync(actor.key, Role.SHADOW),)])
        count = actor.header.export_number + 1
        yield from self.exact(actor, custody=Custody.EXPORTED, export_number=count)

    def take_in(self, number: int) -> Iterator[str]:
        actor = self.actors[number]
        note = ("put", ("I", number), (actor.header.export_number, 0))
        yield from self.apply([note, ("sync", ("I", number))])
        actor.far = Bits.blank(self.chunks)

    def far_write(self, number: int, chunk: int) -> Iterator[str]:
        """The other host writes to the shadow and notes it in its own bitmap."""
        file, actor = ("S", number), self.actors[number]
        self._begin_write(file, chunk, 1)
        if not actor.far.note_if_ready(chunk, 1):
            header = replace(actor.header, custody=Custody.IMPORTED)
            far = Far(number, actor.family, header, actor.far)
            touch = Touch(Side.SHADOW, far.key, chunk, 1)
            steps = touches.first_touch([far.member], [touch], ordered=True)
            yield from self.execute(steps, far)
        yield from self._end_write(file, chunk, 1)

    def join(self, number: int) -> Iterator[str]:
        """The other host closes its bitmap, and this one merges it."""
        actor = self.actors[number]
        yield from self.fsync(("S", number))
        actor.far.cool_all()
        note = (actor.header.export_number, actor.far.shadow.word(0, self.chunks))
        yield from self.apply([("put", ("I", number), note), ("sync", ("I", number))])
        actor.bits.shadow.merge(self._bitmap(self.disk.get(("I", number))[1]))
        yield from self._home(actor)

    def take_back(self, number: int) -> Iterator[str]:
        """The other host is gone for good."""
        actor = self.actors[number]
        actor.bits.shadow.fill()
        yield from self._home(actor)

    def _home(self, actor: Actor) -> Iterator[str]:
        yield from self.exact(actor, custody=Custody.LOCAL)
        actor.bits, actor.far = Bits(actor.bits.shadow, actor.bits.copy), None

    # -- after a crash --------------------------------------------------------------------------

    def start(self) -> Iterator[str]:
        """After a crash: what the real start does to the volumes."""
        found = []
        yield from self.apply([("sync", RECORD)])
        for actor in self.actors:
            yield from self.apply([("sync", ("B", actor.number)), ("sync", ("I", actor.number))])
            header, shadow, copy, actions = self.recovered(actor.number, self.disk.content())
            yield from self.apply(actions)
            yield from self.apply([("sync", ("S", actor.number))])
            far = noted_afar(header, self.disk.get(("I", actor.number)))
            own, far = self.bits_of(shadow, copy), far if far is None else self.bits_of(far, 0)
            found.append(Actor(actor.number, actor.family, header, own, [], far))
        if self.disk.get(RECORD) is not None:
            yield from self.apply([("put", RECORD, None), ("sync", RECORD)])
        self.actors = found

    # -- what is possible now -------------------------------------------------------------------

    def operations(
        self, verbs: Sequence[Verb], groups: Sequence[tuple[int, ...]]
    ) -> Iterator[Operation]:
        """Everything that the state of the sets allows, but no fsync with nothing to do."""
        runs = [(c, 1) for c in range(self.chunks)] + [(0, self.chunks)] * (self.chunks > 1)
        for family in self.families:
            yield from (("write", ("M", family), *run) for run in runs)
        for actor in self.actors:
            if actor.header.custody is Custody.LOCAL:
                yield from (("write", ("S", actor.number), *run) for run in runs)
        dirty = {cell[:2] for cell in self.disk.pending}
        yield from (("fsync", file) for file in self.worlds[0] if file in dirty)
        for actor in self.actors:
            yield from self._of_set(actor, verbs)
        for group in groups:
            shared = [v for v in verbs if all(self.allows(self.actors[n], v) for n in group)]
            yield from (("point", verb, *group) for verb in shared)

    def _of_set(self, actor: Actor, verbs: Sequence[Verb]) -> Iterator[Operation]:
        number = actor.number
        if actor.header.copying and self.to_bring(actor):
            yield ("copy_ahead", number)
        if actor.header.copying and (actor.copied or actor.bits.copy.is_zero()):
            yield ("copied", number)
        for verb in verbs:
            if verb is Verb.EXPORT:
                yield from self._exchanges(actor)
            elif self.allows(actor, verb):
                yield ("point", verb, number)

    def _exchanges(self, actor: Actor) -> Iterator[Operation]:
        number = actor.number
        if actor.header.custody is not Custody.EXPORTED:
            yield from [("lend", number)] * self.allows(actor, Verb.EXPORT)
            return
        yield ("take_back", number)
        if actor.far is None:
            yield ("take_in", number)
            return
        yield ("join", number)
        yield from (("far_write", number, c) for c in range(self.chunks))

    def allows(self, actor: Actor, verb: Verb) -> bool:
        """By the state table; and while a master is restored its other sets make no PIT."""
        full = verb in (Verb.COPY_SHADOW, Verb.COPY_MASTER)
        if full and actor.header.kind is Kind.DEPENDENT:
            return False  # the same as an update
        family = [a for a in self.actors if a.family == actor.family and a is not actor]
        if any(a.header.state.restoring for a in family):
            return False
        try:
            state.check("", actor.header.state, verb)
        except IifuseError:
            return False
        return True
