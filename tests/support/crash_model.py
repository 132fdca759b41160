"""A few chunks, and every state in which a power loss may leave them.

Every chunk of a volume and every sector of bits is a cell: a durable value and the values that
were written since its last sync. A power loss leaves each cell, by itself, with one of them. The
steps are those of the real plan; what executes them here is a dozen lines that do nothing else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from uuid import UUID

from iifuse.core import plan
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.plan import Clear, Copy, Mark, Member, Note, Side, Step, Sync, Touch
from iifuse.core.sector import Region
from iifuse.core.state import Kind, Progress, Role, SetState

Cell = tuple[object, ...]
Twist = Callable[[list[Step]], list[Step]]

GARBAGE = -1
"""What a shadow's chunk holds that was never written."""


class Lost(AssertionError):
    """A promise of the write path is broken."""


@dataclass
class Setup:
    """A set at the beginning. `shadow`: what its raw chunks hold; `copy`: its copy bits."""

    kind: Kind
    progress: Progress = Progress.IDLE
    shadow: int = 0
    copy: bool = False

    @property
    def state(self) -> SetState:
        return SetState(self.kind, self.progress, copying=self.progress is not Progress.IDLE)


class Disk:
    """Cells, and what a crash may make of them."""

    def __init__(self) -> None:
        self.durable: dict[Cell, object] = {}
        self.pending: dict[Cell, list[object]] = {}

    def put(self, cell: Cell, value: object) -> None:
        self.pending.setdefault(cell, []).append(value)

    def get(self, cell: Cell) -> object:
        return self.pending[cell][-1] if self.pending.get(cell) else self.durable[cell]

    def sync(self, volume: Cell) -> None:
        """`volume`: the cells whose name begins so."""
        for cell in [c for c in self.pending if c[: len(volume)] == volume]:
            self.durable[cell] = self.pending.pop(cell)[-1]

    def crashes(self) -> Iterator[dict[Cell, object]]:
        cells = list(self.pending)
        choices = [{self.durable[c], *self.pending[c]} for c in cells]
        for values in product(*choices):
            yield {**self.durable, **dict(zip(cells, values, strict=True))}


@dataclass
class Actor:
    """A set at work: its bits in memory, and the background copy that is not cleared yet."""

    number: int
    state: SetState
    bits: Bits
    copied: list[tuple[int, int]] = field(default_factory=list)

    @property
    def key(self) -> UUID:
        return UUID(int=self.number + 1)

    @property
    def member(self) -> Member:
        return Member(self.key, self.state, self.bits)

    def volume(self, role: Role) -> Cell:
        if role is Role.MASTER:
            return ("M",)
        return ("S" if role is Role.SHADOW else "B", self.number)


class Machine:
    """A master and its sets. `twist` changes each plan, to see whether that is found out."""

    def __init__(self, setups: list[Setup], chunks: int, twist: Twist = list) -> None:
        self.chunks, self.twist = chunks, twist
        self.disk = Disk()
        self.actors = [self._actor(n, s) for n, s in enumerate(setups)]
        for chunk in range(chunks):
            self.disk.durable["M", chunk] = 0
            for number, setup in enumerate(setups):
                self.disk.durable["S", number, chunk] = setup.shadow
        for actor in self.actors:
            self._put_bits(actor, ())
        self.disk.sync(())
        self.legal = {f: [{v} for v in self.view(f, self.disk.durable)] for f in self.files}
        self.now = {f: [*self.view(f, self.disk.durable)] for f in self.files}
        self.clock = 100

    def _actor(self, number: int, setup: Setup) -> Actor:
        shadow, copy = Bitmap(self.chunks), Bitmap(self.chunks)
        if setup.copy:
            copy.fill()
        return Actor(number, setup.state, Bits(shadow, copy))

    @property
    def files(self) -> list[int | None]:
        """None is the master's file, a number a shadow's."""
        return [None, *range(len(self.actors))]

    # -- what a disk shows (design, section 3) ----------------------------------------------

    def view(self, file: int | None, d: dict[Cell, object]) -> Iterator[object]:
        for chunk in range(self.chunks):
            if file is None:
                restoring = [
                    a.number for a in self.actors
                    if a.state.restoring and d["B", a.number, Region.COPY][chunk]
                ]  # fmt: skip
                yield d["S", restoring[0], chunk] if restoring else d["M", chunk]
            else:
                yield self._shadow_view(self.actors[file], chunk, d)

    def _shadow_view(self, actor: Actor, chunk: int, d: dict[Cell, object]) -> object:
        shadow, copy = (d["B", actor.number, region][chunk] for region in Region)
        on_shadow = True
        if actor.state.kind is Kind.DEPENDENT:
            on_shadow = shadow or copy
        elif actor.state.progress is Progress.TO_SHADOW:
            on_shadow = not copy
        return d["S", actor.number, chunk] if on_shadow else d["M", chunk]

    def check(self, d: dict[Cell, object]) -> None:
        for file in self.files:
            for chunk, value in enumerate(self.view(file, d)):
                if value not in self.legal[file][chunk]:
                    raise Lost(f"file {file} shows {value} in chunk {chunk} of {d}")
        for actor in self.actors:
            if actor.state.kind is Kind.INDEPENDENT:
                self._check_recorded(actor, d)

    def _check_recorded(self, actor: Actor, d: dict[Cell, object]) -> None:
        for chunk in range(self.chunks):
            bits = [d["B", actor.number, region][chunk] for region in Region]
            if d["M", chunk] != d["S", actor.number, chunk] and not any(bits):
                raise Lost(f"the difference of chunk {chunk} is not recorded in {d}")

    def check_live(self) -> None:
        memory = {cell: self.disk.get(cell) for cell in self.disk.durable}
        for actor in self.actors:
            memory["B", actor.number, Region.SHADOW] = self._tuple(actor.bits.shadow)
            memory["B", actor.number, Region.COPY] = self._tuple(actor.bits.copy)
        for file in self.files:
            if [*self.view(file, memory)] != self.now[file]:
                raise Lost(f"file {file} shows {[*self.view(file, memory)]}, not {self.now[file]}")

    # -- executing steps --------------------------------------------------------------------

    def execute(self, steps: list[Step]) -> Iterator[None]:
        steps = self.twist(steps)
        for step in steps:
            actor = self.actors[step.key.int - 1]
            match step:
                case Copy(_, source, target, runs):
                    for chunk in chunks_of(runs):
                        value = self.disk.get((*actor.volume(source), chunk))
                        self.disk.put((*actor.volume(target), chunk), value)
                case Sync(_, role):
                    self.disk.sync(actor.volume(role))
                case Note(_, runs):
                    actor.bits.shadow.set_runs(runs)
                case Mark(_, runs, ahead):
                    actor.bits.mark(list(runs), list(ahead))
                    self._put_bits(actor, ahead)
                case Clear(_, runs):
                    actor.bits.copy.clear_runs(runs)
                    self._put_bits(actor, ())
            yield
        for step in steps:
            if isinstance(step, Mark):
                actor = self.actors[step.key.int - 1]
                actor.bits.settle(list(step.runs), list(step.ahead))

    def _put_bits(self, actor: Actor, ahead: tuple[int, ...]) -> None:
        for region in Region:
            rows = actor.bits.disk_rows(region, 0, 1, list(ahead)).copy()
            value = self._tuple(Bitmap(self.chunks, rows))
            cell = ("B", actor.number, region)
            if cell not in self.disk.durable:
                self.disk.durable[cell] = value
            self.disk.put(cell, value)

    def _tuple(self, bitmap: Bitmap) -> tuple[bool, ...]:
        return tuple(bitmap.any(chunk, 1) for chunk in range(self.chunks))

    # -- what may happen --------------------------------------------------------------------

    def write(self, file: int | None, first: int, count: int) -> Iterator[None]:
        """A user's write of whole chunks, as the views do it."""
        self.clock += 1
        for chunk in range(first, first + count):
            self.legal[file][chunk].add(self.clock)
            self.now[file][chunk] = self.clock
        actors = self.actors if file is None else [self.actors[file]]
        if not all(a.bits.covers(first, count) for a in actors):
            side, key = (Side.MASTER, None) if file is None else (Side.SHADOW, actors[0].key)
            yield from self.touch(Touch(side, key, first, count))
        volume = ("M",) if file is None else ("S", file)
        for chunk in range(first, first + count):
            self.disk.put((*volume, chunk), self.clock)
            yield

    def touch(self, touch: Touch) -> Iterator[None]:
        members = [a.member for a in self.actors]
        yield from self.execute(plan.first_touch(members, [touch], ordered=True))

    def copy_ahead(self, number: int) -> Iterator[None]:
        """The background copy brings the first run that it finds; the bits stay for now."""
        actor = self.actors[number]
        first = next((c for c in range(self.chunks) if self._to_bring(actor, c)), None)
        if first is not None:
            run = (first, actor.bits.copy.run_from(first, self.chunks))
            if actor.state.restoring:
                yield from self.touch(Touch(Side.RAW, actor.key, *run))
            yield from self.execute(list(plan.copy_ahead(actor.member, run)))
            actor.copied.append(run)

    def _to_bring(self, actor: Actor, chunk: int) -> bool:
        return actor.bits.copy.any(chunk, 1) and chunk not in chunks_of(actor.copied)

    def copied(self, number: int) -> Iterator[None]:
        """The end of a stretch; writers may have come since the copy."""
        actor = self.actors[number]
        runs, actor.copied = actor.copied, []
        if runs:
            yield from self.execute(plan.copied(actor.member, runs))

    def fsync(self, file: int | None) -> Iterator[None]:
        self.disk.sync(("M",) if file is None else ("S", file))
        self.legal[file] = [{value} for value in self.now[file]]
        yield


def chunks_of(runs) -> list[int]:
    return [c for first, count in runs for c in range(first, first + count)]


Operation = tuple[str, tuple[object, ...]]


def operations(setups: list[Setup], chunks: int) -> list[Operation]:
    """Everything that may happen, as (method, arguments)."""
    runs = [(0, chunks)] if chunks == 1 else [(0, chunks), *((c, 1) for c in range(chunks))]
    files: list[int | None] = [None, *range(len(setups))]
    found: list[Operation] = [("write", (f, *run)) for f in files for run in runs]
    found += [("fsync", (f,)) for f in files]
    for number, setup in enumerate(setups):
        if setup.copy:
            found += [("copy_ahead", (number,)), ("copied", (number,))]
    return found


def explore(setups: list[Setup], chunks: int, length: int, twist: Twist = list) -> int:
    """Every script up to a length, a crash after every step; the number of scripts. Raises Lost.

    Only the last operation of a script is looked at: the others were the last of shorter ones.
    """
    known, count = operations(setups, chunks), 0
    for size in range(1, length + 1):
        for script in product(known, repeat=size):
            count += 1
            run(Machine(setups, chunks, twist), script)
    return count


def run(machine: Machine, script: tuple[Operation, ...]) -> None:
    *before, last = script
    for name, arguments in before:
        for _ in getattr(machine, name)(*arguments):
            pass
    try:
        for _ in getattr(machine, last[0])(*last[1]):
            for state in machine.disk.crashes():
                machine.check(state)
        machine.check_live()
    except Lost as lost:
        raise Lost(f"{lost} after {script}") from None
