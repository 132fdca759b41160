"""What an exerciser notes before and after each thing that it does, for whoever judges it."""

import os
import struct
from collections.abc import Iterator
from typing import NamedTuple

_RECORD = struct.Struct("<cIII")

THROUGH = b"t"
"""A write that reaches the volume before it is acknowledged."""

LAZY = b"l"
"""A write that may stay in the page cache: through a mapping, or with writeback_cache."""

SYNC = b"s"
"""A sync of the whole file."""

DONE = b"."
"""What was noted last has been acknowledged."""


class Entry(NamedTuple):
    """`offset`, `length` in bytes; `number` is what the stamps of a write say."""

    kind: bytes
    offset: int = 0
    length: int = 0
    number: int = 0


class Log:
    """The writer's side."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, entry: Entry) -> None:
        os.write(self._fd, _RECORD.pack(*entry))


class LogReader:
    """Reads on from where it was; the writer may still be at work."""

    def __init__(self, path: str) -> None:
        self.path, self._at = path, 0

    def entries(self) -> Iterator[Entry]:
        if not os.path.exists(self.path):
            return
        with open(self.path, "rb") as file:
            file.seek(self._at)
            data = file.read()
        whole = len(data) // _RECORD.size * _RECORD.size
        self._at += whole
        yield from map(Entry._make, _RECORD.iter_unpack(data[:whole]))
