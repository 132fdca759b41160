"""What an aborted restore has not restored, as extents of the master."""

import errno
import os
import stat
import sys
from contextlib import suppress
from typing import Final

import msgspec

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client

from . import common

_PAGE_CHUNKS: Final = 1 << 20


class NotRestored(msgspec.Struct, frozen=True):
    """What was not restored. `extents` are (offset, length) in bytes, ascending."""

    set: str
    master: str | None
    pit: int
    pit_id: str
    pit_time: str | None
    chunks: int
    extents: list[tuple[int, int]]


def not_restored(client: Client, shadow: str) -> NotRestored:
    """Ask the service for all extents, in parts that fit into an answer. Raises its refusals."""
    row = client.status(protocol.Target((shadow,)))[0]
    extents: list[tuple[int, int]] = []
    chunks = 0
    for first in range(0, row.chunks, _PAGE_CHUNKS):
        request = protocol.NotRestored(shadow, first, _PAGE_CHUNKS)
        for at, count in client.call(request, protocol.Compared).runs:
            chunks += count
            _add(extents, at * row.chunk_bytes, (at + count) * row.chunk_bytes, row.size_bytes)
    return NotRestored(
        shadow, row.master, row.pit, str(row.pit_id), row.pit_time, chunks, extents
    )


def _add(extents: list[tuple[int, int]], start: int, stop: int, size_bytes: int) -> None:
    """Add an extent, and join it with the last one if they touch. The last chunk may be short."""
    if extents:
        offset, length = extents[-1]
        if offset + length == start:
            extents.pop()
            start = offset
    extents.append((start, min(stop, size_bytes) - start))


def text(found: NotRestored, *, json: bool) -> str:
    """A line with offset and length for each extent, or a JSON object."""
    if json:
        return protocol.to_json(found) + "\n"
    return "".join(f"{offset} {length}\n" for offset, length in found.extents)


def show(content: str) -> None:
    """Print a text. If stdout is a file it is made durable. Raises StorageError, OutputClosed."""
    try:
        common.emit(content, end="")
    except errors.StorageError as error:
        raise _unprinted(error.why) from error
    try:
        _sync(sys.stdout.fileno())
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EROFS):  # these mean: a pipe
            raise _unprinted(f"{error.strerror}") from error


def _sync(descriptor: int) -> None:
    """Sync a descriptor and, if it is a file, its name, which may be new. Raises OSError."""
    os.fsync(descriptor)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink:
        with suppress(FileNotFoundError):  # the file may be in another mount namespace
            _sync_folder(os.readlink(f"/proc/self/fd/{descriptor}"))


def _sync_folder(path: str) -> None:
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unprinted(why: str) -> errors.StorageError:
    return errors.StorageError(
        "standard output", f"{why}, nothing was given up", "name a file with --extents"
    )


def keep(path: str, content: str) -> None:
    """Write a new file, durably. It never replaces a file. Raises StorageError."""
    try:
        with open(path, "x", encoding="utf-8") as file, common.removed_on_error(path):
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path)
    except FileExistsError as error:
        raise errors.StorageError(path, "is there already", "name a new file") from error
    except OSError as error:
        raise errors.StorageError(
            path, f"cannot be written ({error.strerror}), nothing was given up", "name another file"
        ) from error
