"""What the service has told, and may not forget."""

import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import Service

from iifuse.control import protocol
from iifuse.control.protocol import SetStatus


@dataclass(frozen=True)
class Told:
    """What a host has told about its sets, and which files it shows."""

    sets: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, "Shown"] = field(default_factory=dict)


@dataclass(frozen=True)
class Shown:
    """A file of the mount as a backup program sees it. `content`: its checksum."""

    times: tuple[int, int]
    content: int | None


FIELDS = (
    "master", "bitmap", "group", "uuid", "kind", "custody", "pit", "pit_id", "export_number",
    "break_write", "limit_s", "progress", "copying", "offline",
)  # fmt: skip
"""Of a row of `iiadm -i --json`: what has been told and may not be forgotten."""


def told_of(row: SetStatus) -> dict[str, Any]:
    """What a row says that has to stay so."""
    return {name: getattr(row, name) for name in FIELDS}


@dataclass(frozen=True)
class Answer:
    """What was known to everybody at a moment: hosts by name, tickets by path."""

    hosts: dict[str, Told] = field(default_factory=dict)
    tickets: dict[str, bytes] = field(default_factory=dict)
    stats: dict[str, dict[str, int]] = field(default_factory=dict)
    """Of volumes: what says that a file was not written."""


@dataclass
class Act:
    """A verb, from its request to its answer (in nanoseconds, then in positions of the log)."""

    what: str
    began: int
    ended: int
    before: Answer
    after: Answer
    failed: bool = False
    """Until it was answered so, a power failure may find it done or not."""


def times_of(path: Path) -> dict[str, int]:
    found = path.stat()
    return {name: getattr(found, name) for name in ("st_mtime_ns", "st_ctime_ns")}


def ask(service: Service) -> Told | None:
    """What a host says now. None: it does not run, and what was told before holds."""
    if service.process is None:
        return None
    sets = {row.shadow: told_of(row) for row in service.client.status()}
    rows = service.client.call(protocol.Volumes(), list[protocol.VolumeStatus])
    return Told(sets, {row.path: _shown(service, row.path) for row in rows})


def _shown(service: Service, path: str) -> Shown:
    found = os.stat(service.path(path))
    try:
        content = zlib.crc32(service.read(path))
    except OSError:  # it is offline
        content = None
    return Shown((found.st_mtime_ns, found.st_ctime_ns), content)
