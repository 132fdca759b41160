"""The record of a group command that is under way: a file with two slots in the state directory.

After a crash either no set of the group is changed (there is no record), or all are: the next start
repeats the change for every set whose header still shows the old PIT number. The lock of this file
also keeps a second service away from the state directory.
"""

import os
import struct
import threading
import zlib
from contextlib import suppress
from typing import Final
from uuid import UUID

import msgspec

from iifuse import errors
from iifuse.core.transition import Transition
from iifuse.store import room
from iifuse.store.files import create_file
from iifuse.store.room import Need
from iifuse.store.volume import Volume, open_volume

SLOT_BYTES: Final = 1 << 20
REMEDY: Final = "make room in its directory, or make that writable again"
_MAGIC: Final = b"iifusetr"
_HEAD: Final = struct.Struct("<8sQII")  # magic, sequence, length, crc


class Record(msgspec.Struct, frozen=True):
    """The content of a slot.

    `transition`: the command that is under way, or None. `earlier`: commands that a set has still
    to follow, because its bitmap volume was missing.
    """

    transition: Transition | None = None
    earlier: tuple[Transition, ...] = ()


_decoder = msgspec.msgpack.Decoder(Record)


class TransitionFile:
    """The file with the record. Every write is durable when it returns. Methods raise OSError."""

    def __init__(self, volume: Volume) -> None:
        self._volume, self._writing = volume, threading.Lock()
        volume.sync()  # a record that a killed service wrote must be durable before sets follow it
        self._sequence, self._slot, self._record = self._load()

    @classmethod
    def open(cls, directory: str) -> "TransitionFile":
        """Open or make STATE/transitions, and lock it.

        Raises ServiceError if another service has it, or if it cannot be read. Then a group command
        may be under way that nobody knows.
        """
        path = os.path.join(directory, "transitions")
        try:
            if not os.path.exists(path):
                room.check([Need(path, 2 * SLOT_BYTES, "the record of group commands")])
                create_file(path, 2 * SLOT_BYTES, sparse=False)
            volume = open_volume(path, exclusive=False)
        except errors.BadVolume as error:
            raise errors.ServiceError(path, error.why, REMEDY) from error
        except errors.InUse as error:
            raise errors.ServiceError(
                directory, "another service uses this state directory", "give one of them --state"
            ) from error
        try:
            return cls(volume)
        except (OSError, msgspec.MsgspecError, ValueError) as error:
            volume.close()
            raise errors.ServiceError(
                path, f"the record of group commands cannot be read ({errors.words(error)})",
                "restore it, or move it away if no group command can have been under way",
            ) from error  # fmt: skip

    @property
    def standing(self) -> tuple[Transition, ...]:
        """The commands that a set may still have to follow, the oldest first."""
        last = self._record.transition
        return (*self._record.earlier, *([last] if last else []))

    def begin(self, transition: Transition, earlier: tuple[Transition, ...] = ()) -> None:
        """Write the record of a command. When this returns, the command counts for all its sets.

        `earlier`: the commands that stay in the record. If the write fails, the record may be on
        the disk all the same, so another one is written over it.
        """
        try:
            self._write(Record(transition, earlier))
        except OSError:
            with suppress(OSError):
                self._write(Record(None, earlier))
            raise

    def finish(self, earlier: tuple[Transition, ...] = ()) -> None:
        """Forget the command, since every set shows its new PIT. `earlier`: commands that stay."""
        self._write(Record(None, earlier))

    def disown(self, transition: UUID | None) -> None:
        """Let no set follow this command from now on, although its record is on the disk."""
        last = self._record.transition
        if last is not None and last.id == transition:
            self._record = Record(None, self._record.earlier)

    def close(self) -> None:
        """Close the file and release its lock."""
        self._volume.close()

    def _write(self, record: Record) -> None:
        body = msgspec.msgpack.encode(record)
        if len(body) > SLOT_BYTES - _HEAD.size:
            raise errors.UsageError("", "too many sets in one command")
        with self._writing:
            sequence, slot = self._sequence + 1, 1 - self._slot
            crc = zlib.crc32(body, zlib.crc32(struct.pack("<Q", sequence)))
            head = _HEAD.pack(_MAGIC, sequence, len(body), crc)
            self._volume.write(slot * SLOT_BYTES, head + body)
            self._volume.sync_anew()  # allowed, because the whole slot was written again
            self._sequence, self._slot, self._record = sequence, slot, record

    def _load(self) -> tuple[int, int, Record]:
        found = [(0, 1, Record())]
        for slot in (0, 1):
            blob = self._volume.read(slot * SLOT_BYTES, SLOT_BYTES)
            magic, sequence, length, crc = _HEAD.unpack_from(blob)
            body = blob[_HEAD.size : _HEAD.size + length]
            if magic != _MAGIC or crc != zlib.crc32(body, zlib.crc32(struct.pack("<Q", sequence))):
                continue
            if sequence >= 1 << 62:
                raise ValueError("a number that is too large")
            found.append((sequence, slot, _decoder.decode(body)))
        return max(found, key=lambda entry: entry[0])
