"""Masters, shadows and their bits, a few chunks long, worked on by the steps of the real plan.

What decides is the product's: `core.touch` and `core.change` (orders and what becomes of the bits),
`core.state` (what is allowed), `core.bits`, `verbs.pit` and `verbs.loading` (headers). What
executes is a few lines that do nothing else, so that a crash may come between any two of them.
So this is no second model of what a set shows, as set_model is: it runs what that one judges, and
is judged by promises on whole chunks. What the files show of it, `shown` says for both.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from uuid import UUID

from crash_cells import Cell, Content, Disk, is_legal
from lost import Lost
from shown import Bits as Shown
from shown import of_master, of_shadow, unrecorded

from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import Header
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Kind, Progress, Role
from iifuse.core.touch import Clear, Copy, Mark, Member, Note, Phase, Step, Sync
from iifuse.store.headerlog import HeaderLog
from iifuse.units import Run
from iifuse.verbs import loading

GARBAGE = -1
"""What a shadow's chunk holds that was never written."""

RECORD: Cell = ("T",)
BEFORE_SYNC, WRITTEN = "before a sync", "after a write"
"""The moments at which a crash finds anything new: by power loss, by a kill."""

Action = tuple
"""('put', cell, value) or ('sync', volume)"""
Promise = tuple[frozenset, frozenset]
"""Of a chunk of a file: what a power loss may leave, and what a reader sees."""
Found = tuple[Header, int, int]
"""Header, shadow bits and copy bits of a set."""
World = dict[Cell, list[Promise]]
"""('M', family) or ('S', set) -> a promise for each chunk."""


@dataclass(frozen=True)
class Setup:
    """A set at the beginning. `shadow`: what its raw chunks hold; `copy`: its copy bits."""

    kind: Kind
    progress: Progress = Progress.IDLE
    shadow: int = 0
    copy: bool = False
    master: int = 0

    def header(self, number: int, chunks: int) -> Header:
        return Header(
            UUID(int=number + 1), self.kind, chunks * CHUNK_BYTES, "m", f"s{number}", "b",
            progress=self.progress, copying=self.progress is not Progress.IDLE,
        )  # fmt: skip


@dataclass
class Actor:
    """A set at work. `far`: the bits of the host that has imported its shadow."""

    number: int
    family: int
    header: Header
    bits: Bits
    copied: list[tuple[int, int]] = field(default_factory=list)
    far: Bits | None = None

    @property
    def key(self) -> UUID:
        return self.header.uuid

    @property
    def member(self) -> Member:
        return Member(self.key, self.header.state, self.bits)

    def volume(self, role: Role) -> Cell:
        if role is Role.MASTER:
            return ("M", self.family)
        return ("S" if role is Role.SHADOW else "B", self.number)


class Far(Actor):
    """The host that has imported the shadow of a set: same shadow, a bitmap of its own."""

    def volume(self, role: Role) -> Cell:
        return ("S" if role is Role.SHADOW else "I", self.number)


class Recorder:
    """Stands for the bitmap volume of a set: what is written to it is kept as actions."""

    def __init__(self, number: int, chunks: int) -> None:
        self.actions: list[Action] = []
        self.chunks, self.name = chunks, ("B", number)
        self.volume = SimpleNamespace(sync=lambda: self.actions.append(("sync", self.name)))

    def write_header(self, header: Header) -> Header:
        put = ("put", (*self.name, "header"), header)
        self.actions += [("sync", self.name), put, ("sync", self.name)]
        return header

    def encode_change(self, _header: Header, region: Region, bits: Bitmap) -> Action:
        return ("put", (*self.name, region), bits.word(0, self.chunks))

    def write_sectors(self, action: Action) -> None:
        self.actions.append(action)


class Stage:
    """The sets of one or more masters (families). `worlds`: what the files may show, in one of
    several ways as a whole: during a point in time, before or after it."""

    def __init__(self, setups: Sequence[Setup], chunks: int) -> None:
        self.chunks, self.clock, self.memo = chunks, 100, {}
        self.actors = [
            Actor(n, s.master, s.header(n, chunks), self.bits_of(0, s.copy * ((1 << chunks) - 1)))
            for n, s in enumerate(setups)
        ]
        self.families = sorted({s.master for s in setups})
        durable: Content = {RECORD: None}
        for chunk in range(chunks):
            durable.update({("M", f, chunk): 10 * f for f in self.families})
            durable.update({("S", n, chunk): s.shadow for n, s in enumerate(setups)})
        for actor in self.actors:
            durable["B", actor.number, "header"] = actor.header
            durable["I", actor.number] = None
            for region in Region:
                durable["B", actor.number, region] = self._word(actor.bits, region)
        self.disk = Disk(durable)
        view = self.views(durable, [self._memory(a) for a in self.actors])
        self.worlds: list[World] = [{f: [only(v) for v in view[f]] for f in view}]

    def bits_of(self, shadow: int, copy: int) -> Bits:
        return Bits(self._bitmap(shadow), self._bitmap(copy))

    def _bitmap(self, word: int) -> Bitmap:
        bitmap = Bitmap(self.chunks)
        bitmap.set_runs((c, 1) for c in range(self.chunks) if word >> c & 1)
        return bitmap

    # -- what a disk shows, after a start (design, section 3) ---------------------------------

    def recovered(self, number: int, d: Content) -> tuple[Header, int, int, list[Action]]:
        """(header, shadow bits, copy bits, what a start writes) of a set, by the real recovery."""
        found = [d["B", number, what] for what in ("header", Region.SHADOW, Region.COPY)]
        key = (id(found[0]), found[1], found[2], d[RECORD])
        if key not in self.memo:
            recorder = Recorder(number, self.chunks)
            standing = (d[RECORD],) if d[RECORD] else ()
            header, after = found[0], [self._bitmap(found[1]), self._bitmap(found[2])]
            pending = loading.unfinished(standing, header)
            if pending is not None:
                header, *after = loading.roll_forward(HeaderLog(header, recorder), pending, *after)
            words = [bitmap.word(0, self.chunks) for bitmap in after]
            self.memo[key] = (header, *words, recorder.actions, found[0])
        return self.memo[key][:4]

    def views(self, d: Content, sets: list[Found]) -> dict[Cell, list[object]]:
        """What each file shows. `sets`: of each the header, shadow bits and copy bits."""
        masters = {f: self._raw(d, ("M", f)) for f in self.families}
        found = {("M", f): raw for f, raw in masters.items()}
        for actor, (header, shadow, copy) in zip(self.actors, sets, strict=True):
            raw, family = self._raw(d, ("S", actor.number)), actor.family
            set_bits = Shown(header.kind, header.progress, shadow, copy)
            found["M", family] = of_master(found["M", family], [(set_bits, raw)])
            found["S", actor.number] = of_shadow(masters[family], raw, set_bits)
        return found

    def _raw(self, d: Content, volume: Cell) -> list[object]:
        return [d[(*volume, c)] for c in range(self.chunks)]

    # -- promises -------------------------------------------------------------------------------

    def after_crash(self, d: Content, *, power: bool) -> list[World]:
        """The promises that are left after a crash. Raises Lost."""
        found = [self.recovered(a.number, d)[:3] for a in self.actors]
        views = self.views(d, found)
        self._check_recorded(d, found)
        kept = [w for w in self.worlds if _fits(w, views, power=power)]
        if not kept:
            how = "a power loss" if power else "a kill"
            raise Lost(f"{how} leaves {shown(views)}, promised was {self.worlds}")
        if power:
            return [{f: [only(v) for v in view] for f, view in views.items()}]
        return [_seen(w, views) if w in kept else w for w in self.worlds]

    def _check_recorded(self, d: Content, found: list[Found]) -> None:
        """Independent sets: a difference that no bit names is missing in the next update."""
        for actor, (header, shadow, copy) in zip(self.actors, found, strict=True):
            if header.kind is Kind.DEPENDENT:
                continue
            bits = shadow | copy | (noted_afar(header, d["I", actor.number]) or 0)
            pair = (self._raw(d, v) for v in (("M", actor.family), ("S", actor.number)))
            if wrong := unrecorded(*pair, bits):
                raise Lost(f"chunks {wrong} of s{actor.number} differ, no bit says so")

    def check_live(self) -> None:
        """What readers see now; from now on they see nothing else."""
        views = self.views(self.disk.content(), [self._memory(a) for a in self.actors])
        self.worlds = [w for w in self.worlds if _fits(w, views, power=False)]
        if not self.worlds:
            raise Lost(f"readers see {shown(views)}")

    def _memory(self, actor: Actor) -> Found:
        words = (b.word(0, self.chunks) for b in (actor.bits.shadow, actor.bits.copy))
        return (actor.header, *words)

    def _promise(self, file: Cell, chunk: int, legal: frozenset, now: frozenset) -> None:
        for world in self.worlds:
            world[file] = list(world[file])
            old = world[file][chunk]
            world[file][chunk] = (old[0] | legal, old[1] | now if legal else now)

    # -- executing ------------------------------------------------------------------------------

    def apply(self, actions: Sequence[Action]) -> Iterator[str]:
        for action in actions:
            if action[0] == "put":
                self.disk.put(*action[1:])
                yield WRITTEN
            else:
                yield BEFORE_SYNC
                self.disk.sync(action[1])

    def execute(self, phases: Sequence[Phase], far: Actor | None = None) -> Iterator[str]:
        """Steps on single chunks. `far`: the steps are of the host that has imported its shadow."""
        for phase in phases:
            yield from self._do(phase, far)

    def _do(self, steps: Sequence[Step], far: Actor | None) -> Iterator[str]:
        marked: dict[UUID, Mark] = {}  # of each set, what is not settled yet
        for step in steps:
            actor = far or self.actors[step.key.int - 1]
            bits = actor.bits
            match step:
                case Copy(_, source, target, runs):
                    yield from self.apply(self._copies(actor, source, target, runs))
                case Sync(_, role):
                    yield from self.apply([("sync", actor.volume(role))])
                case Note(_, runs):
                    bits.shadow.set_runs(runs)
                case Mark(_, runs, ahead):
                    bits.mark(list(runs), list(ahead))
                    marked[step.key] = step
                    yield from self.apply(self.stores(actor, ahead, runs))
                case Clear(_, runs):
                    bits.copy.clear_runs(runs)
                    yield from self.apply(self.stores(actor))
        for step in marked.values():
            actor = far or self.actors[step.key.int - 1]
            actor.bits.settle(step.runs, step.ahead)

    def _copies(self, actor: Actor, source: Role, target: Role, runs) -> list[Action]:
        pairs = [((*actor.volume(source), c), (*actor.volume(target), c)) for c in chunks_of(runs)]
        return [("put", to, self.disk.get(found)) for found, to in pairs]

    def stores(
        self, actor: Actor, ahead: Sequence[int] = (), marks: Sequence[Run] = ()
    ) -> list[Action]:
        """The sectors of bits of a set, written as they have to be now."""
        words = {r: self._word(actor.bits, r, ahead, marks) for r in Region}
        if isinstance(actor, Far):
            note = (actor.header.export_number, words[Region.SHADOW])
            return [("put", ("I", actor.number), note)]
        return [("put", ("B", actor.number, r), word) for r, word in words.items()]

    def _word(
        self, bits: Bits, region: Region, ahead: Sequence[int] = (), marks: Sequence[Run] = ()
    ) -> int:
        rows = bits.disk_rows(region, 0, 1, list(ahead), marks)
        return Bitmap(self.chunks, rows.copy()).word(0, self.chunks)


def noted_afar(header: Header, note: tuple[int, int] | None) -> int | None:
    """The bits of the host that has imported this export, if one has."""
    lent = header.custody is Custody.EXPORTED and note and note[0] == header.export_number
    return note[1] if lent else None


def only(value: object) -> Promise:
    """This value and no other, whatever happens."""
    return (frozenset({value}), frozenset({value}))


def _seen(world: World, views: dict[Cell, list[object]]) -> World:
    """The promises of a world in which this was seen. (Another one may still come true: if the
    power fails after the kill and before the start.)"""
    pairs = {file: zip(world[file], views[file], strict=True) for file in world}
    return {f: [(legal, frozenset({v})) for (legal, _), v in pairs[f]] for f in pairs}


def _fits(world: World, views: dict[Cell, list[object]], *, power: bool) -> bool:
    return all(
        is_legal(value, promise[0 if power else 1])
        for file, promises in world.items()
        for promise, value in zip(promises, views[file], strict=True)
    )


def shown(views: dict[Cell, list[object]]) -> str:
    """For people."""
    return ", ".join(f"{kind}{number}: {view}" for (kind, number), view in views.items())


def chunks_of(runs) -> list[int]:
    return [c for first, count in runs for c in range(first, first + count)]
