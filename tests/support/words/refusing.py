"""A refused command: a message that helps, an exit code, and nothing changed by it."""

import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from harness import Service

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import VolumeStatus
from iifuse.core import header
from iifuse.core.header import Stamp
from iifuse.core.times import Times

_CONTENT_MAX = 4 << 20
"""Files up to this size are compared byte for byte, larger ones by their times."""


def picture(place: Path, *services: Service) -> dict[str, object]:
    """All that a refused command must leave as it is."""
    homes = {service.home for service in services}
    found: dict[str, object] = {}
    for folder, names, files in os.walk(place):
        names[:] = [n for n in names if Path(folder, n) not in homes and n not in ("mnt", "fs")]
        for name in files + names:
            path = Path(folder, name)
            found[str(path)] = _look(path)
    for service in services:
        for path in service.state.rglob("*"):
            # The history of an earlier copy may be written now: SQLite's journal comes and goes.
            if not path.name.startswith("state.db"):
                found[str(path)] = path.is_file() and path.read_bytes()
        # How full a file system is, is looked at now and then, whatever commands there are.
        rows = [msgspec.structs.replace(r, space_percent=None) for r in service.client.status()]
        found[f"sets of {service.home}"] = msgspec.to_builtins(rows)
        volumes = service.client.call(protocol.Volumes(), list[VolumeStatus])
        found[f"files of {service.home}"] = msgspec.to_builtins(volumes)
    return found


def _look(path: Path) -> object:
    info = path.lstat()
    if not stat.S_ISREG(info.st_mode):
        return info.st_mode, path.is_symlink() and os.readlink(path)
    content: object = info.st_mtime_ns
    if info.st_size <= _CONTENT_MAX:
        content = _content(str(path), path.read_bytes())
    return info.st_mode, info.st_size, info.st_ino, content


def _content(path: str, blob: bytes) -> object:
    """A service notes times and looks of its files by itself, some seconds after a write."""
    if blob[: len(header.MAGIC)] != header.MAGIC:
        return zlib.crc32(blob)
    slots = [blob[at : at + header.SLOT_BYTES] for at in header.SLOT_OFFSETS]
    try:
        found, _ = header.newest(path, slots)
    except errors.BadBitmap:
        return zlib.crc32(blob)
    rest = zlib.crc32(blob[len(slots) * header.SLOT_BYTES :])
    times = {"master_times": Times(), "shadow_times": Times()}
    looks = {"master_stamp": Stamp(), "shadow_stamp": Stamp()}
    return replace(found, sequence=0, **times, **looks), rest


Refused = Callable[..., str]


@pytest.fixture
def refused(place: Path) -> Refused:
    """Run a program that has to refuse; what it said on stderr.

    `code`: its exit code. `says`: what the message has to name. `todo`: it says what to do.
    """

    def check(
        service: Service,
        program: str,
        *words: object,
        code: int = 2,
        says: tuple[object, ...] = (),
        todo: bool = True,
    ) -> str:
        before = picture(place, service)
        done = service.run(program, *words)
        said = done.stderr
        assert done.returncode == code, f"exit {done.returncode}: {said or 'it was done'}"
        assert done.stdout == ""
        assert "Traceback" not in said
        for word in says:
            assert str(word) in said, said
        assert not todo or "; " in said, f"it does not say what to do: {said}"
        after = picture(place, service)
        changed = {k for k in before | after if before.get(k) != after.get(k)}
        assert not changed, (said, {k: (before.get(k), after.get(k)) for k in changed})
        return said

    return check
