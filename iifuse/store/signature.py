"""What is on a volume before it is overwritten: which file system, and when it was written last.

blkid(8) and wipefs(8) tell. They run with a time limit, like every other call that may hang.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from iifuse import errors
from iifuse.core import superblock
from iifuse.store import identity as identities
from iifuse.store import linux
from iifuse.store.claims import Claim
from iifuse.store.programs import ProgramOutput, Programs
from iifuse.store.volume import Volume

LOOK_SECONDS: Final = 30
_NOTHING: Final = 2
_SEVERAL: Final = 8
_PIECE_BYTES: Final = 64 * 1024
_PIECES: Final = 32
_THROUGH_BYTES: Final = 256 << 20
"""If a volume looks blank, this many bytes of its data are read from its beginning on."""
_STEP_BYTES: Final = 1 << 20
_ZEROS: Final = bytes(_STEP_BYTES)


class _Signature(msgspec.Struct):
    offset: str
    type: str


class _Wipefs(msgspec.Struct):
    signatures: list[_Signature] = []


@dataclass(frozen=True)
class Signature:
    """A mark by which libblkid recognises a volume. `at`: its offset in bytes."""

    kind: str
    at: int


@dataclass(frozen=True)
class Look:
    """What is on a volume.

    `kind`: ext4, xfs, LVM2_member, gpt and so on; empty: nothing that libblkid knows. `uuid`: that
    of the file system. `blank`: all that was read are zeros. `written`: when the file system was
    written last (core.superblock). `whole`: the whole volume was read, or more would not matter.
    """

    kind: str = ""
    uuid: str = ""
    blank: bool = True
    written: int | None = None
    whole: bool = True

    @property
    def is_empty(self) -> bool:
        """Is there certainly nothing on the volume?"""
        return self.blank and self.whole

    def is_copy_of(self, other: "Look") -> bool:
        """Is it a copy of the same file system (or whatever it is), older or newer?"""
        return bool(self.kind and self.uuid) and (self.kind, self.uuid) == (other.kind, other.uuid)


def look(volume: Volume, programs: Programs) -> Look:
    """Look at an open volume. Blocks; raises BadVolume if it cannot be read."""
    try:
        if volume.data_from(0, volume.size_bytes)[0] == volume.size_bytes:
            return Look()
        blank, whole = _is_blank(volume)
        head = volume.read(0, min(superblock.HEAD_BYTES, volume.size_bytes))
    except OSError as error:
        raise errors.BadVolume(
            volume.path, f"cannot be read ({error.strerror})", "see to its disk"
        ) from error
    found = _blkid(volume, programs)
    kind, uuid = found.get("TYPE", ""), found.get("UUID", "")
    if not kind and "PTTYPE" in found:
        kind, uuid = f"{found['PTTYPE']} partition table", found.get("PTUUID", "")
    return Look(kind, uuid, blank and not kind, superblock.last_write(head), whole)


@contextmanager
def standing_at(path: str) -> Iterator[Volume | None]:
    """Open what is at a path for looking at it, without a lock; None: nothing can be read there."""
    try:
        identity = identities.identify(path)
        fd = os.open(os.path.realpath(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, errors.BadVolume):
        yield None
        return
    try:
        size = linux.device_size(fd) if identity.is_device else os.fstat(fd).st_size
        unclaimed = Claim(path, replace(identity, own=(), under=()))
        yield Volume(path, fd, size, identity, unclaimed) if size else None
    finally:
        os.close(fd)


def _is_blank(volume: Volume) -> tuple[bool, bool]:
    """(Was nothing but zeros read? Is the answer certain?).

    First the beginning, the end and some places between are read, which finds most data at once.
    Then everything is read that is no hole, up to a bound. A volume may have a little data in its
    middle that matters.
    """
    last = max(0, volume.size_bytes - _PIECE_BYTES)
    for at in sorted({last * n // _PIECES for n in range(_PIECES + 1)}):
        stop = min(at + _PIECE_BYTES, volume.size_bytes)
        start, end = volume.data_from(at, stop)
        if start < end and not _is_zero(volume, start, end):
            return False, True
    left, at = _THROUGH_BYTES, 0
    while left > 0:
        start, end = volume.data_from(at, volume.size_bytes)
        if start >= end:
            return True, True
        at = min(end, start + left)
        if not _is_zero(volume, start, at):
            return False, True
        left -= at - start
    return True, at == volume.size_bytes


def _is_zero(volume: Volume, start: int, end: int) -> bool:
    steps = range(start, end, _STEP_BYTES)
    return all(_ZEROS.startswith(volume.read(at, min(_STEP_BYTES, end - at))) for at in steps)


def _blkid(volume: Volume, programs: Programs) -> dict[str, str]:
    """What `blkid -p` says of a volume.

    From version 2.41 on it says nothing if there are several signatures.
    """
    said = _ask(programs, volume, (0, _NOTHING, _SEVERAL), "blkid", "-p", "-o", "export")
    if said.code == _SEVERAL or (said.code == _NOTHING and signatures(volume, programs)):
        return {"TYPE": "several signatures at once"}
    lines = said.out.decode(errors="replace").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)


def signatures(volume: Volume, programs: Programs) -> list[Signature]:
    """All signatures of a volume, even if they contradict each other. Raises BadVolume."""
    words = ("wipefs", "--no-act", "--json", "--output", "OFFSET,TYPE")
    said = _ask(programs, volume, (0,), *words)
    try:
        found = msgspec.json.decode(said.out or b"{}", type=_Wipefs).signatures
        return [Signature(each.type, int(each.offset, 0)) for each in found]
    except (msgspec.MsgspecError, ValueError) as error:
        raise errors.BadVolume(volume.path, f"wipefs has an unexpected answer ({error})") from error


def _ask(
    programs: Programs, volume: Volume, answers: tuple[int, ...], *words: str
) -> ProgramOutput:
    """Let a program look at a volume. It gets the descriptor, as the path may lead elsewhere now.

    `answers`: the exit codes that are no failure. Raises BadVolume.
    """
    try:
        said = programs.ask(words, volume.fd, volume.path, LOOK_SECONDS)
    except (OSError, errors.ServiceError) as error:
        raise errors.BadVolume(
            volume.path,
            f"{words[0]} cannot look at what is there ({errors.words(error)})",
            "install util-linux, or see to the disk",
        ) from error
    if said.code not in answers:
        why = said.err.decode(errors="replace").strip() or f"exit code {said.code}"
        raise errors.BadVolume(volume.path, f"{words[0]} cannot look at what is there ({why})")
    return said
