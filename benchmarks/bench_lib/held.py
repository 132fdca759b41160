"""Row 8: how long a point in time holds up a program that writes."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Final

from iifuse.control import protocol
from iifuse.control.protocol import Target
from iifuse.core.bitmap import Bitmap
from iifuse.core.sector import Region
from iifuse.core.state import Verb
from iifuse.core.ticket import TicketEntry
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.volume import open_volume

from .figures import OURS, Case
from .fio import Work
from .latency import Client, Seen
from .place import GIB, Place

SETS: Final = 5
SET_BYTES: Final = 100 * GIB
LIMIT_MS: Final = 20.0
PEER: Final = "cp --reflink"


def updates(place: Place) -> list[Case]:
    """One update of five large sets, every chunk dirty, against one clone of one file."""
    ours, peer = _Group(place), _Clone(place)
    each = -(-place.scale.updates // place.scale.rounds)
    clones = max(1, each // 3)  # a clone takes seconds; the worst of fewer is not to our advantage
    case = Case(
        8,
        f"longest 4 KiB O_DIRECT write while a point in time is made of {SETS} sets of "
        f"{SET_BYTES // GIB} GiB, all chunks dirty; worst of "
        f"{each * place.scale.rounds}, the peer's of {clones * place.scale.rounds}",
        "ms",
        {OURS: lambda: ours.worst(each), PEER: lambda: peer.worst(clones)},
        {PEER: 1.0}, LIMIT_MS, smaller_is_better=True, worst=True,
    )  # fmt: skip
    ours.notes = peer.notes = case.notes  # what is found while it is measured
    return [case]


class _Contender:
    """Makes points in time, again and again, while a client writes."""

    notes: list[str]
    name: str

    def __init__(self) -> None:
        self._turn = 0
        self._writes: list[int] = []
        self._took_ms: list[float] = []

    def worst(self, count: int) -> float:
        """Milliseconds of the longest write of so many points in time."""
        worst = max(self._once().longest_ms for _ in range(count))
        self.notes[:] = [note for note in self.notes if not note.startswith(f"{self.name}:")]
        self.notes += [f"{self.name}: {note}" for note in self.facts()]
        return worst

    def facts(self) -> list[str]:
        """What the points in time were like."""
        writes, took = sorted(self._writes), sorted(self._took_ms)
        commands = f"{len(took)} commands of {took[0]:.0f} to {took[-1]:.0f} ms"
        return [f"{commands}, {writes[0]} to {writes[-1]} writes under way in one"]

    def prepare(self) -> Path:
        """Everything up to the command; the file that the client writes to."""
        raise NotImplementedError

    def command(self) -> None:
        """The point in time itself."""
        raise NotImplementedError

    def _once(self) -> Seen:
        path = self.prepare()
        os.sync()
        self._turn += 1
        with Client(path, self._turn) as client:
            began = time.monotonic_ns()
            self.command()
            ended = time.monotonic_ns()
            seen = client.seen(began, ended)
        self._writes.append(seen.writes)
        self._took_ms.append((ended - began) / 1e6)
        return seen


class _Group(_Contender):
    """Five sets in a group. All bits come from a second service that has borrowed the shadows."""

    name = OURS

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.service, self.other = place.service("lender"), place.service("borrower")
        self.shadows = [place.disk / f"shadow{number}" for number in range(SETS)]
        self.masters = [place.disk / f"master{number}" for number in range(SETS)]
        for master, shadow in zip(self.masters, self.shadows, strict=True):
            for volume in (master, shadow):
                volume.touch()
                os.truncate(volume, SET_BYTES)
            self.service.enable("ind", master, shadow, group="all")
        self.group = Target(group="all")

    def prepare(self) -> Path:
        """Every chunk of every set differs, as far as the bits know."""
        wait = protocol.Wait(self.group)
        self.service.client.notes(wait)
        self.service.client.call(protocol.Export(self.group), list[TicketEntry])
        for shadow in self.shadows:
            bitmap = shadow.with_suffix(".secondary")
            self.other.client.notes(protocol.Import(str(shadow), str(bitmap)))
            self.other.disable(shadow)
            _mark_all(bitmap)
            self.service.client.notes(protocol.Join(str(shadow), str(bitmap)))
        for status in self.service.client.status(self.group):
            assert status.shadow_bits == status.chunks, f"{status.shadow} is not all dirty"
        return self.service.path(self.masters[0])

    def command(self) -> None:
        """One update of all sets at one instant."""
        self.service.client.call(
            protocol.Update("s", full=False, target=self.group), list[protocol.SetStatus]
        )

    def facts(self) -> list[str]:
        """And what the service itself knows of it."""
        with closing(sqlite3.connect(self.service.state / "state.db")) as database:
            query = "SELECT max(held_ms) FROM history WHERE event = ?"
            (held,) = database.execute(query, [Verb.UPDATE_SHADOW.told]).fetchone()
        return [*super().facts(), f"writes held for {held:.1f} ms at most, says its history"]


def _mark_all(bitmap: Path) -> None:
    """As if the borrower had written to every chunk."""
    volume = open_volume(str(bitmap), exclusive=False)
    try:
        file = BitmapFile(volume)
        header = file.read_header()
        bits = Bitmap(header.geometry.chunks)
        bits.set(0, bits.chunks)
        file.write_region(header, Region.SHADOW, bits)
    finally:
        volume.close()


class _Clone(_Contender):
    """A file in many pieces on an XFS that can share them."""

    name = PEER

    def __init__(self, place: Place) -> None:
        super().__init__()
        size, image = 2 * place.scale.volume, place.disk / "xfs.image"
        image.touch()
        os.truncate(image, 8 * GIB)
        device = place.loop(image, "--direct-io=on")
        place.run("mkfs.xfs", "-q", "-m", "reflink=1", device)
        directory = place.mount(device, "xfs")
        self.run = place.run
        self.file, self.clone = directory / "file", directory / "clone"
        self.file.touch()
        os.truncate(self.file, size)
        Work("randwrite", depth=16).run(str(self.file))
        place.run("sync", self.file)
        self.size_mib, self.pieces = size >> 20, self._pieces()

    def _pieces(self) -> int:
        """Extents of the file. `filefrag` answers "PATH: N extents found"."""
        return int(self.run("filefrag", self.file).rpartition(": ")[2].split()[0])

    def prepare(self) -> Path:
        """No clone is left of the last time, so that nothing is shared."""
        self.clone.unlink(missing_ok=True)
        return self.file

    def command(self) -> None:
        """All pieces are shared from here on."""
        self.run("cp", "--reflink=always", self.file, self.clone)

    def facts(self) -> list[str]:
        """And of how many pieces the file is made."""
        return [*super().facts(), f"a file of {self.size_mib} MiB in {self.pieces} extents"]
