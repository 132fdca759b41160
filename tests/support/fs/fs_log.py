"""Files and directories as a file system sees them: every event may be lost until its own sync.

No more is assumed than POSIX promises: what a file holds and its size are durable by a sync of the
file, its name by a sync of the directory, in any order. A *journaled* file system (ext4 is one)
promises more: names become durable in the order in which they were made, and those that a synced
new file needs are made durable with it. A block device is a file whose name and size are durable
from the beginning.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

from crash_disk import Image, Sync, Write
from crash_unsynced import NEVER, Choice, FailedSync, Resize, Unsynced

DIRECTORY = 0
"""The number of every directory: what tells them apart is their path."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Names in one directory that come, go (None) or mean another file, all at once."""

    changes: tuple[tuple[str, int | None], ...]

    @property
    def directory(self) -> str:
        return os.path.dirname(self.changes[0][0])


@dataclass(frozen=True, slots=True)
class DirectorySync:
    """A sync has returned: the entries of a directory from before `began` are durable."""

    directory: str
    began: int


@dataclass(frozen=True, slots=True)
class FullSync(Sync):
    """An fsync, which keeps a file's times too; fdatasync leaves them to chance."""


Event = Write | Resize | Entries | Sync | DirectorySync | FailedSync


def renumbered(event: Event, number: Callable[[int], int]) -> Event:
    """The same of files with other numbers."""
    if isinstance(event, DirectorySync):
        return event
    if isinstance(event, Entries):
        return Entries(tuple((p, None if n is None else number(n)) for p, n in event.changes))
    return replace(event, file=number(event.file))


class Durable(Unsynced):
    """What surely survives, and what may, while a log is walked.

    `file_systems`: prefixes of paths, each with a journal of its own; empty: no journal anywhere.
    """

    def __init__(
        self, files: dict[int, bytes], names: dict[str, int], file_systems: tuple[str, ...] = ()
    ) -> None:
        super().__init__(files)
        self.names, self.file_systems = dict(names), file_systems
        self.entries: list[tuple[int, Entries]] = []
        self.written: dict[int, int] = {}
        """Files whose times may be those of before, and where they were last written."""

    def apply(self, position: int, event: Event) -> None:
        super().apply(position, event)
        match event:
            case Write() | Resize():
                self.written[event.file] = position
            case Entries():
                self.entries.append((position, event))
            case Sync(file, began):
                if isinstance(event, FullSync) and self.written.get(file, NEVER) < began:
                    del self.written[file]
                if self.file_systems:
                    self._sync_name_of(file, began)
            case DirectorySync(directory, began):
                self._sync_directory(directory, began)

    def _sync_directory(self, directory: str, began: int) -> None:
        ours = [n for n, e in self.entries if e.directory == directory and n < began]
        if self.file_systems and ours:
            self._commit(directory, max(ours))
            return
        self._settle(set(ours))

    def _sync_name_of(self, file: int, began: int) -> None:
        """A journaled file system commits what a new file's name needs."""
        for n, e in reversed(self.entries):
            if n < began and any(number == file for _, number in e.changes):
                self._commit(e.directory, n)
                return

    def _commit(self, directory: str, last: int) -> None:
        """Everything up to a position of one journal."""
        journal = self.journal_of(directory)
        here = (n for n, e in self.entries if self.journal_of(e.directory) == journal)
        self._settle({n for n in here if n <= last})

    def _settle(self, positions: set[int]) -> None:
        for n, e in self.entries:
            if n in positions:
                rename(self.names, e)
        self.entries = [(n, e) for n, e in self.entries if n not in positions]

    def journal_of(self, directory: str) -> str:
        """The file system that a directory lies on."""
        return next((p for p in self.file_systems if f"{directory}/".startswith(p)), "")


def rename(names: dict[str, int], entries: Entries) -> None:
    """Change what names mean."""
    for name, number in entries.changes:
        if number is None:
            names.pop(name, None)
        else:
            names[name] = number


def built(state: Durable, data: Choice, entries: list[Entries], root: str) -> Image:
    """The files that a machine finds after a loss: only those whose directories are there too."""
    files, names = state.with_done(data), dict(state.names)
    for entry in entries:
        rename(names, entry)
    found = {
        name: number for name, number in names.items()
        if number != DIRECTORY and _is_reached(name, names, root)
    }  # fmt: skip
    return Image({number: files.get(number, b"") for number in found.values()}, found)


def _is_reached(name: str, names: dict[str, int], root: str) -> bool:
    directory = os.path.dirname(name)
    while directory != root:
        if names.get(directory) != DIRECTORY:
            return False
        directory = os.path.dirname(directory)
    return True
