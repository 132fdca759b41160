"""Sets in a state of the state table, each for one verb, and whether what is advised leads out.

States that a copy passes through are made by hand, with the service stopped: no luck is needed.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import advice
from harness import CHUNK, Service
from late_sets import SIZE, TO_COPY, Piece, header_of

from iifuse.control.protocol import Target
from iifuse.core.sector import Region
from iifuse.core.state import NOTHING_OFFLINE, Progress, Role
from iifuse.store.statedb import StateDB

STATES = (
    "ind idle", "dep idle", "ind to_shadow", "ind to_master", "dep to_master", "ind exported",
    "ind imported", "ind beside",
)  # fmt: skip
"""Copies stand aborted. beside: another set of the master stands in the middle of a restore."""
LOSSES = ("whole", "shadow away", "master away", "bitmap away", "shadow offline", "bitmap doubted")
VERBS = (
    "iiadm -n -u s S", "iiadm -n -u m S", "iiadm -n -c s S", "iiadm -n -c m S", "iiadm -n -d S",
    "iiadm -E S", "iiadm -w S", "iiadm -a S", "iiadm -n -R S", "iiadm -n --give-up S",
    "iiadm -n -J S B2", "iiadm -n -I S B2", "iiresync -n S", "iiresync -n m S", "iiexport S",
    "iiverify S", "iijoin T", "svadm -d M", "svadm -d S", "iiadm -n -e dep M N NB",
)  # fmt: skip
"""S, M, B2: shadow, master, another bitmap; N, NB: a further set; T: the ticket."""
NOT_FOR_IT = (
    "there is nothing to give up", "only an exported set can be joined", "only an independent",
    "No such file or directory", "is an import itself", "is a set of this service already",
    "with a volume of another service",
)  # fmt: skip
"""Refusals of what is not meant for such a set: there is nothing to lead out of."""
STEPS_MAX = 12


class Stage:
    """One state and loss, with a set of its own for each verb."""

    def __init__(self, host: Service, other: Service | None, place: Path, state: str) -> None:
        self.host, self.other, self.place = host, other, place
        self.kind, self.state = state.split()

    def build(self, loss: str, count: int) -> list[Piece]:
        """So many sets."""
        pieces = [self._piece(f"set{n}") for n in range(count)]
        owner = self.other or self.host
        owner.wait(*(piece.shadow for piece in pieces))
        for piece in pieces:
            owner.write(piece.path("m"), CHUNK, b"after the point in time")
            self._lend(owner, piece)
        self.host.stop()
        db = StateDB(str(self.host.state))
        for piece in pieces:
            self._cut_short(piece, db, loss)
            for part in "msb":
                if loss == f"{ {'m': 'master', 's': 'shadow', 'b': 'bitmap'}[part]} away":
                    os.rename(piece.path(part), f"{piece.path(part)}.away")
        db.close()
        self.host.start()
        return pieces

    def _piece(self, name: str) -> Piece:
        piece = Piece(name, self.place / name, "")
        piece.home.mkdir()
        piece.path("m").write_bytes(os.urandom(SIZE))
        owner = self.other or self.host
        bitmap = piece.home / "b0" if self.other else piece.path("b")
        owner.enable(self.kind, piece.path("m"), piece.shadow, bitmap)
        if self.state == "beside":
            owner.enable("ind", piece.path("m"), piece.home / "s1", piece.home / "b1")
            owner.wait(piece.home / "s1")
        return piece

    def _lend(self, owner: Service, piece: Piece) -> None:
        if self.state in ("exported", "imported"):
            assert owner.run("iiadm", "-E", piece.shadow).returncode == 0
        if self.state == "imported":
            done = self.host.run("iiadm", "-I", piece.shadow, piece.path("b"))
            assert done.returncode == 0, done.stderr

    def _cut_short(self, piece: Piece, db: StateDB, loss: str) -> None:
        """Let its header say so, as after an aborted copy and a failed shadow."""
        if self.state == "beside":
            _edit(piece, db, "b1", Progress.TO_MASTER)
        copies = {"to_shadow": Progress.TO_SHADOW, "to_master": Progress.TO_MASTER}
        progress = copies.get(self.state)
        offline = Role.SHADOW if loss == "shadow offline" else NOTHING_OFFLINE
        if progress is not None or offline:
            _edit(piece, db, "b", progress or Progress.IDLE, offline)
        if loss == "bitmap doubted":
            db.doubt(str(piece.shadow), "it was doubted")

    def words(self, verb: str, piece: Piece) -> list[str]:
        home = piece.home
        names = {"S": piece.shadow, "M": piece.path("m"), "B2": home / "b2", "N": home / "n",
                 "NB": home / "nb", "T": f"{piece.shadow}.iiticket"}  # fmt: skip
        return [str(names.get(word, word)) for word in verb.split()]

    def is_out(self, piece: Piece) -> bool:
        """Is every set of it healthy, or taken apart? A copy that runs comes to its end first."""
        mine = [r for r in self.host.client.status() if r.shadow.startswith(f"{piece.home}/")]
        running = [row.shadow for row in mine if row.copying]
        if running:
            self.host.wait(*running)
            mine = self.host.client.status(Target(tuple(row.shadow for row in mine)))
        custody = ("local", "imported") if self.other else ("local",)
        return all(
            row.custody in custody and row.progress == "idle" and not row.offline
            for row in mine
        )  # fmt: skip


def _edit(
    piece: Piece, db: StateDB, part: str, progress: Progress, offline: Role = NOTHING_OFFLINE
) -> None:
    at = replace(piece)
    at.path = lambda _: piece.home / part  # type: ignore[method-assign]
    with header_of(at) as (bitmap, header):
        if progress is not Progress.IDLE:
            bits, _ = bitmap.read_bits(header, Region.COPY)
            for chunk in TO_COPY:
                bits.set(chunk, 1)
            bitmap.write_region(header, Region.COPY, bits)
        changed = replace(
            header, progress=progress, copying=False, offline=offline,
            offline_reason="its disk failed" if offline else "",
        )  # fmt: skip
        db.remember(bitmap.write_header(changed))


def lead_out(stage: Stage, piece: Piece, verb: str) -> None:
    """Run the verb, and what refusals advise, each with all that its own refusal advises first."""
    said: list[str] = []
    first = stage.words(verb, piece)
    if _follow(stage, piece, first, set(), said):
        return
    if any(text in one for text in NOT_FOR_IT for one in (said[0], said[-1])):
        return
    assert stage.is_out(piece), "no way out:\n  " + "\n  ".join(said)


def _follow(
    stage: Stage,
    piece: Piece,
    words: Sequence[str],
    tried: set[str],
    said: list[str],
    *,
    is_step: bool = False,
) -> bool:
    """Is the command taken now? Of a step on the way it is enough that something is different."""
    tried.add(" ".join(words))
    done = stage.host.run(*words)
    if done.returncode == 0:
        return True
    assert "usage:" not in done.stderr, done.stderr
    said.append(f"{' '.join(words)}: {done.stderr.strip()}")
    for found in advice.commands(done.stderr):
        step = _sure(found)
        if " ".join(step) in tried or "-i" in step or len(said) > STEPS_MAX:
            continue
        if _follow(stage, piece, step, tried, said, is_step=True):
            return stage.is_out(piece) or _follow(stage, piece, words, set(), said) or is_step
    return False


def _sure(words: Sequence[str]) -> list[str]:
    asks = words[0] in ("iiadm", "iijoin", "iiresync", "svadm")
    return [words[0], *(["-n"] if asks else []), *words[1:]]
