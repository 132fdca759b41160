"""What a volume must show, and what it may show instead once the service was killed.

By the byte, not by the sector as the other judges: one program writes parts of sectors, in requests
of which a kill may leave some, and through a mapping, of which it may leave none.
"""

from exercise_log import DONE, SYNC, THROUGH, Entry
from lost import Lost
from stamps import SECTOR, difference, explain, stamped, tag_of

Versions = dict[int, list[bytes]]
"""Sector -> contents that it had one after the other."""


class Model:
    """The bytes of one volume, by the log of who writes it.

    `content`: with all that was begun. `unsure`: sectors of which older contents may be found after
    a kill. `since`: all contents that sectors had since `mark`, for a point in time that was taken
    meanwhile.
    """

    def __init__(self, volume: int, content: bytes) -> None:
        self.volume, self.content = volume, bytearray(content)
        self.number = 0
        self.unsure: Versions = {}
        self.since: Versions = {}
        self._running: Entry | None = None
        self._before: Versions = {}

    def follow(self, entries) -> int:
        """Do what the log says; the number of operations that were ended."""
        ended = 0
        for entry in entries:
            if entry.kind == DONE:
                self._end(self._running)
                self._running, ended = None, ended + 1
            else:
                self._running = entry
                if entry.kind != SYNC:
                    self._begin(entry)
        return ended

    def mark(self) -> None:
        """From now on `since` counts; a write that is under way belongs to it."""
        self.since = {}
        if self._running is not None and self._running.kind != SYNC:
            self.since = {s: list(versions) for s, versions in self._before.items()}

    def snapshot(self) -> "Model":
        """Content and `since` as they are now."""
        taken = Model(self.volume, self.content)
        taken.since = {s: list(versions) for s, versions in self.since.items()}
        return taken

    def _sector(self, index: int) -> bytes:
        return bytes(self.content[index * SECTOR : (index + 1) * SECTOR])

    def _data(self, entry: Entry) -> bytes:
        return stamped(tag_of(self.volume, entry.number), entry.offset, entry.length)

    def _begin(self, entry: Entry) -> None:
        self.number = entry.number
        offset, length = entry.offset, entry.length
        touched = range(offset // SECTOR, (offset + length - 1) // SECTOR + 1)
        old = {index: self._sector(index) for index in touched}
        data = self._data(entry)
        self.content[offset : offset + length] = data
        self._before = {index: [old[index], self._sector(index)] for index in touched}
        for index in touched:
            new = self._sector(index)
            for versions in (self.unsure, self.since):
                versions.setdefault(index, [old[index]]).append(new)

    def _end(self, entry: Entry) -> None:
        if entry.kind == SYNC:
            self.unsure = {}
        elif entry.kind == THROUGH:
            self._settle(entry)

    def _settle(self, entry: Entry) -> None:
        """These bytes stand on the volume; others of the same sectors may still be old."""
        data = self._data(entry)
        for index in self._before:
            start = index * SECTOR
            low, high = max(entry.offset, start), min(entry.offset + entry.length, start + SECTOR)
            part = data[low - entry.offset : high - entry.offset]
            kept = {v[: low - start] + part + v[high - start :] for v in self.unsure[index]}
            if len(kept) == 1:
                del self.unsure[index]
            else:
                self.unsure[index] = list(kept)

    # -- judging ----------------------------------------------------------------------------

    def judge(self, found: bytes, allowed: Versions, what: str) -> None:
        """Raise Lost unless each sector is as it must be or, byte for byte, as it may be."""
        if found == self.content:
            return
        if len(found) != len(self.content):
            raise Lost(f"{what}: {len(found)} bytes instead of {len(self.content)}")
        for at in range(0, len(found), 64 * SECTOR):
            if found[at : at + 64 * SECTOR] != self.content[at : at + 64 * SECTOR]:
                for start in range(at, min(at + 64 * SECTOR, len(found)), SECTOR):
                    self._judge_sector(start, found[start : start + SECTOR], allowed, what)

    def _judge_sector(self, start: int, found: bytes, allowed: Versions, what: str) -> None:
        index = start // SECTOR
        want = self._sector(index)
        versions = [*allowed.get(index, []), want]
        if found in versions:
            return
        if all(byte in {v[i] for v in versions} for i, byte in enumerate(found)):
            return  # parts of it were written by different requests
        may = "; or ".join(sorted({explain(v) for v in versions}))
        raise Lost(f"{what}: {difference(start, found, want)} (may be {may})")

    def adopt(self, found: bytes) -> None:
        """What was found is what it shows from now on."""
        self.content = bytearray(found)
        self.unsure, self.since, self._running = {}, {}, None
