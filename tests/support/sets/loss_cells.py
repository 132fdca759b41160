"""A set in some state, some of its volumes lost in some way, and what every verb makes of it.

The engine runs in process on real files, without a mount: a cell takes tenths of a second. It is
told of no terminal: whatever may be the only copy is to be asked about before it changes.
"""

import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path

import trio
from crash_host import BOOT, Hooks
from harness import CHUNK

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.dispatch import Dispatcher
from iifuse.control.protocol import Target
from iifuse.host.instance import Instance
from iifuse.loop.loop import Loop
from iifuse.store.statedb import StateDB
from iifuse.store.transitions import TransitionFile
from iifuse.verbs import recovery, stop

CHUNKS = 6
STATES = ("ind idle", "ind to_shadow", "ind to_master", "ind exported", "dep idle", "dep to_master")
HOWS = ("deleted", "empty", "stranger", "older", "unreadable")
ROLES = ("m", "s", "b")
VERBS = ("-u s", "-c s", "-u m", "-c m", "-d", "-E", "-a", "-R", "--give-up")
STEPS_MAX = 12


@dataclass(frozen=True)
class Cell:
    """`lost`: (role, how) of one or two volumes, while the service was down after `down`."""

    state: str
    lost: tuple[tuple[str, str], ...]
    down: str

    def __str__(self) -> str:
        lost = ", ".join(f"{role} {how}" for role, how in self.lost)
        return f"{self.state}, {self.down}, {lost}"

    def how(self, role: str) -> str | None:
        return dict(self.lost).get(role)

    def may_be_the_only_copy(self, role: str) -> bool:
        """Of master or shadow; as design and issue have it."""
        if self.how(role) in ("stranger", "unreadable"):
            return True
        return role == "m" or self.how("m") is not None or "to_master" in self.state


def cells() -> Iterator[Cell]:
    losses = [((role, how),) for role in ROLES for how in HOWS]
    losses += [
        ((one, first), (two, second))
        for one, two in combinations(ROLES, 2)
        for first, second in product(HOWS, HOWS)
    ]
    for state, lost, down in product(STATES, losses, ("stop", "kill")):
        yield Cell(state, lost, down)


class Bench:
    """One cell's files below `root`, and the service on them."""

    def __init__(self, root: Path, cell: Cell) -> None:
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        self.root, self.cell = root, cell
        self.paths = {role: root / role for role in ROLES}
        self.shadow = str(self.paths["s"])
        self.target = Target((self.shadow,))
        self.instance: Instance
        self.answer: Dispatcher

    @asynccontextmanager
    async def service(self, *, cleanly: bool = True) -> AsyncIterator[None]:
        state = self.root / "state"
        state.mkdir(exist_ok=True)
        db, transitions = StateDB(str(state)), TransitionFile.open(str(state))
        async with trio.open_nursery() as nursery:
            self.instance = Instance(
                loop=Loop(),
                directory=str(state), db=db, transitions=transitions, hooks=Hooks(),
                nursery=nursery, boot_id=BOOT,
            )  # fmt: skip
            info = protocol.ServiceInfo("0", 1, "/mnt", str(state))
            self.answer = Dispatcher(self.instance, info)
            await recovery.start(self.instance)
            try:
                yield
            finally:
                with trio.CancelScope(shield=True):
                    await self._end(cleanly)
                nursery.cancel_scope.cancel()
        transitions.close()
        db.close()

    async def _end(self, cleanly: bool) -> None:
        for member in self.instance.sets.values():
            await self.instance.stop_copy(member)
        if cleanly:
            await stop.stop(self.instance)
            return
        for family in self.instance.families:  # the descriptors go, and nothing is written
            for member in family.sets:
                member.close()
            if family.master is not None:
                family.master.close()

    # -- making the cell ----------------------------------------------------------------------

    async def build(self) -> None:
        kind, state = self.cell.state.split()
        self.paths["m"].write_bytes(b"".join(tag("A", n) for n in range(CHUNKS)))
        older = {}
        async with self.service(cleanly=self.cell.down == "stop"):
            names = [str(path) for path in self.paths.values()]
            await self.ask(protocol.Enable(kind, *names))  # type: ignore[arg-type]
            await self._settle()
            older = {role: path.read_bytes() for role, path in self.paths.items()}
            await self._write("m", 1, "B")
            await self._write("m", 2, "B")
            await self._to(state)
        for role, how in self.cell.lost:
            lose(self.paths[role], how, older[role])

    async def _to(self, state: str) -> None:
        if state == "idle":
            return
        if state == "exported":
            await self.ask(protocol.Update("s", False, self.target))
            await self._settle()
            await self.ask(protocol.Export(self.target))
            return
        start, self.instance.start_copy = self.instance.start_copy, lambda _: None  # type: ignore[method-assign]
        direction = "s" if state == "to_shadow" else "m"
        await self.ask(protocol.Update(direction, False, self.target, sure=True))
        await self.ask(protocol.Abort(self.target))
        self.instance.start_copy = start  # type: ignore[method-assign]
        await self._write("m", 1, "C")  # that chunk is brought

    async def _write(self, role: str, chunk: int, letter: str) -> None:
        view = self.instance.views[str(self.paths[role])]
        await view.write(chunk * CHUNK, tag(letter, chunk))

    async def _settle(self) -> None:
        """Until no copy runs."""
        for member in list(self.instance.sets.values()):
            copier = self.instance.running(member)
            if copier is not None:
                await copier.wait()

    # -- verbs --------------------------------------------------------------------------------

    async def ask(self, request: protocol.AnyRequest) -> object:
        return await self.answer.answer(request)

    async def do(self, verb: str, *, sure: bool) -> None:
        """Raises what the service answers; copies have come to rest."""
        requests = {
            "-d": protocol.Disable(self.target, sure),
            "-E": protocol.Export(self.target),
            "-a": protocol.Abort(self.target),
            "-R": protocol.Reset(self.target, sure),
            "--give-up": protocol.GiveUp(self.shadow, sure),
        }
        for letter, direction in product("uc", "sm"):
            flip = protocol.Update(direction, letter == "c", self.target, sure)  # type: ignore[arg-type]
            requests[f"-{letter} {direction}"] = flip
        await self.ask(requests[verb])
        await self._settle()

    def contents(self) -> dict[str, bytes | None]:
        return {role: content(path) for role, path in self.paths.items()}

    async def is_out(self) -> bool:
        """Is the set healthy, or taken apart?"""
        rows = await self.ask(protocol.Status(Target()))
        return all(
            not row.offline and row.custody != "exported" and row.progress == "idle"
            and not getattr(row, "waiting", ()) and not getattr(row, "replaced", ())
            for row in rows  # type: ignore[attr-defined]
        )  # fmt: skip


def tag(letter: str, chunk: int) -> bytes:
    return f"{letter}{chunk}".encode().ljust(CHUNK, b".")


def content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def lose(path: Path, how: str, older: bytes) -> None:
    """Another file, or none, takes its place; the old one is kept, so that no inode comes back."""
    now = path.read_bytes()
    path.rename(f"{path}.lost")
    if how == "empty":
        path.write_bytes(bytes(len(now)))
    elif how == "stranger":
        path.write_bytes(b"somebody else's ".ljust(64, b"!") * (len(now) // 64))
    elif how == "older":
        path.write_bytes(older)
    elif how == "unreadable":
        path.mkdir()


# -- what is asked of a cell ------------------------------------------------------------------


async def find_losses(root: Path, cell: Cell) -> list[str]:
    """What verbs have overwritten without a question; empty: nothing."""
    found: list[str] = []
    verbs = list(VERBS)
    while verbs:
        bench = Bench(root, cell)
        await bench.build()
        async with bench.service():
            while verbs:
                verb = verbs.pop(0)
                before, done = bench.contents(), True
                try:
                    await bench.do(verb, sure=False)
                except errors.IifuseError as error:
                    done = False
                    found += _of_answer(cell, verb, error)
                after = bench.contents()
                found += [
                    f"{cell}: {verb} has changed {role} without a question"
                    for role in ("m", "s")
                    if changed(before[role], after[role]) and cell.may_be_the_only_copy(role)
                ]
                if cell.how("b") == "stranger" and changed(before["b"], after["b"]):
                    found.append(f"{cell}: {verb} has made a bitmap volume of somebody's file")
                if done or before != after:
                    break  # the next verb meets the cell as it was
    return found


def changed(before: bytes | None, after: bytes | None) -> bool:
    """Has something been lost? What was not there, or blank, was not."""
    return before is not None and any(before) and before != after


def _of_answer(cell: Cell, verb: str, error: errors.IifuseError) -> list[str]:
    if isinstance(error, errors.InternalError | errors.ProtocolError):
        return [f"{cell}: {verb} met a defect: {error}"]
    return []


async def find_way_out(root: Path, cell: Cell) -> list[str]:
    """Verbs that lead out, each named by a refusal before it. Raises Lost where there is none."""
    bench = Bench(root, cell)
    await bench.build()
    way: list[str] = []
    said: list[str] = []
    named, tried = ["-u s"], set[str]()
    async with bench.service():
        for _ in range(STEPS_MAX):
            if way and await bench.is_out():
                return way
            verb = next((v for v in reversed(named) if v not in tried), None)
            if verb is None:
                break
            tried.add(verb)
            try:
                await bench.do(verb, sure=True)
            except errors.IifuseError as error:
                said.append(f"{verb}: {error}")
                named += [v for v in reversed(verbs_in(str(error))) if v not in named]
            else:
                way.append(verb)
                tried, named = set(), ["-u s"]
        if way and await bench.is_out():
            return way
    raise Lost(f"{cell}: no way out after {way}:\n  " + "\n  ".join(said))


class Lost(AssertionError):
    """A state that nothing named leads out of."""


_VERB = re.compile(r"'(?:iiadm )?(-u [sm]|-c [sm]|-[dEaR]|--give-up)\b|\((-[dEaR]|--give-up)\)")


def verbs_in(text: str) -> list[str]:
    """The verbs that a message names, in quotes or in brackets."""
    return [one or two for one, two in _VERB.findall(text)]
