"""`iibitmap finish`: completes a copy that was cut short, without the service.

The order is that of the service (touch.end_of_stretch): the target is durable before a copy bit is
cleared, and the bitmap of zeros before the header says idle. So the tool may be killed at any
moment and run again.

If it completes a restore, it notes that in the header of the set (`restored_offline`). The next
start then doubts the other sets of the master. The tool knows only one bitmap, while the service
knows the family. Stamps would not be enough: a killed service leaves none, and devices have none.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final
from uuid import UUID

import msgspec
from rich.markup import escape
from rich.progress import Progress

from iifuse import errors
from iifuse.core import loss
from iifuse.core.bitmap import Bitmap, sector_runs
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import BitmapRole, Closure, Header, Stamp
from iifuse.core.missing import same_file
from iifuse.core.sector import Region
from iifuse.core.state import Change, Custody, Role
from iifuse.core.state import Progress as Direction
from iifuse.core.touch import copy_direction
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.copying import Copying
from iifuse.store.headerlog import HeaderLog
from iifuse.store.identity import identify
from iifuse.store.presence import file_of
from iifuse.store.stamp import stamp, written_since
from iifuse.store.volume import Volume
from iifuse.units import Run, chunks_in, command, stop_of

from .bars import bars
from .iibitmap_read import BitmapReading, boot_id, opened, read

STRETCH_CHUNKS: Final = 1024
"""Chunks that share a sync of the target: 32 MiB."""

_SERVICE: Final = "start the service, which completes it"


class Finished(msgspec.Struct, frozen=True):
    """What was copied. `chunks` is 0 if there was nothing to do."""

    bitmap: str
    direction: str
    chunks: int
    bytes: int
    """Bytes of data, without holes."""


@dataclass(frozen=True)
class Parts:
    """The opened volumes of a set."""

    found: BitmapReading
    master: Volume
    shadow: Volume

    @property
    def direction(self) -> tuple[Volume, Volume]:
        """The (source, target) of the copy."""
        source, _ = copy_direction(self.found.header.state)
        if source is Role.MASTER:
            return self.master, self.shadow
        return self.shadow, self.master


def open_parts(bitmap: str, master: str, shadow: str, stack: ExitStack) -> Parts:
    """Open, lock and check the three volumes.

    Raises UsageError, BadVolume, BadBitmap, Refused, InUse, Busy.
    """
    _check_names(bitmap, master, shadow)
    found = read(stack.enter_context(opened(bitmap)))
    _check_header(found)
    _check_roles(found.header, master, shadow)
    volumes = [stack.enter_context(opened(path)) for path in (master, shadow)]
    _check_sizes(found.header, *volumes)
    _check_unwritten(found.header, *volumes)
    return Parts(found, *volumes)


def _check_names(*paths: str) -> None:
    if any(identify(a).conflicts(identify(b)) for a, b in combinations(paths, 2)):
        raise errors.UsageError("", "bitmap, master and shadow must be three volumes")


def _check_header(found: BitmapReading) -> None:
    path, header = found.volume.path, found.header
    if header.pending is not Change.NONE:
        raise errors.Refused(path, "a point in time was cut short", _SERVICE)
    if header.offline:
        raise errors.Refused(
            path,
            f"volumes of the set are offline ({header.offline_reason})",
            f"start the service, then {command('iiadm -R', header.shadow)} mends it",
        )
    if header.role is not BitmapRole.MAIN or header.custody is not Custody.LOCAL:
        raise errors.Refused(path, "is of an exported or imported shadow, which has no copy")
    if header.closure is not Closure.OPEN:
        raise errors.Refused(path, "the set was disabled", "its copy bits mean nothing now")
    if found.distrusted or found.damaged(Region.COPY) or found.damaged(Region.SHADOW):
        raise errors.Refused(
            path,
            "its bits cannot be believed, and they say which chunks are right on which volume",
            f"{command('iibitmap check', path)} says more",
        )
    if header.sequence >= 1 << 63:
        raise errors.BadBitmap(path, "the header holds an impossible sequence number")


def _check_roles(header: Header, master: str, shadow: str) -> None:
    """Raise UsageError for the wrong order: the copy would overwrite what it has to copy."""
    for path, other in ((master, header.shadow), (shadow, header.master)):
        if os.path.exists(other) and identify(path).is_same(identify(other)):
            raise errors.UsageError(
                path, "has the other part in this set", "the order is BITMAP MASTER SHADOW"
            )


def _check_sizes(header: Header, master: Volume, shadow: Volume) -> None:
    if master.size_bytes != header.size_bytes:
        raise errors.BadVolume(
            master.path,
            f"has {master.size_bytes} bytes, the master of this set has {header.size_bytes}",
        )
    if shadow.size_bytes < header.size_bytes:
        raise errors.BadVolume(
            shadow.path, f"has {shadow.size_bytes} bytes, the set needs {header.size_bytes}"
        )


def _check_unwritten(header: Header, master: Volume, shadow: Volume) -> None:
    """Raise Refused if a volume was written since. New stamps would hide that for ever."""
    what = written_since(header, master, shadow)
    if header.progress is Direction.IDLE or not what:
        return
    reset = command("iiadm -R", header.shadow)
    volume, known = (
        (master, header.master_file) if what == "master" else (shadow, header.shadow_file)
    )
    if not same_file(known, file_of(volume)):
        raise errors.Refused(
            volume.path,
            f"is another file than the {what} of this set",
            f"put that one back; if it is lost, start the service, and {reset} says what can be",
        )
    raise errors.Refused(
        volume.path,
        "was written since the service had it last, and no bit says where",
        f"start the service, then {reset} mends it",
    )


def losses(parts: Parts) -> list[loss.Loss]:
    """What the copy would overwrite, if it may be the only copy of something."""
    header, (source, target) = parts.found.header, parts.direction
    header = replace(header, master=parts.master.path, shadow=parts.shadow.path)
    chunks = chunks_in(parts.found.runs(Region.COPY))
    found = []
    if target is parts.master:
        found = [loss.of_restore(header, chunks), loss.of_siblings(header)]
    for volume, known in ((parts.master, header.master_file), (parts.shadow, header.shadow_file)):
        if not same_file(known, file_of(volume)):
            found.append(loss.of_stranger(header, volume.path, source.path, target.path))
    return found


def finish(parts: Parts) -> Finished:
    """Copy all chunks whose copy bits are set. Raises StorageError; then the rest can be copied."""
    header = parts.found.header
    name = header.progress.name.lower()
    if header.progress is Direction.IDLE:
        return Finished(parts.found.volume.path, name, 0, 0)
    try:
        with bars() as display:
            chunks, copied = _Run(parts, display).all()
    except OSError as error:
        raise errors.StorageError(
            str(error.filename or ""), f"{error.strerror}", "the same command goes on from here"
        ) from error
    return Finished(parts.found.volume.path, name, chunks, copied)


class _Run:
    """One copy, from its first chunk to the header that says idle."""

    def __init__(self, parts: Parts, display: Progress) -> None:
        self.parts, self.display = parts, display
        self.source, self.target = parts.direction
        self.bitmap = BitmapFile(parts.found.volume)
        self.log = HeaderLog(self.bitmap.read_header(), self.bitmap)
        self.bits, _ = self.bitmap.read_bits(self.log.header, Region.COPY)

    def all(self) -> tuple[int, int]:
        """Copy. Returns how much was copied, as (chunks, bytes of data). Raises OSError."""
        self._begin()
        total, copied = self.bits.count(), 0
        task = self.display.add_task(
            escape(self.target.path), total=total * CHUNK_BYTES, visible=total > 0
        )
        for stretch in _stretches(self.bits):
            copying = Copying(self.source, self.target)
            copied += sum(copying.extent(*self.log.header.geometry.extent(run)) for run in stretch)
            self.target.sync()
            self._clear(stretch)
            self.display.advance(task, CHUNK_BYTES * chunks_in(stretch))
        self._end()
        return total, copied

    def _begin(self) -> None:
        """Note in the header that the volumes change from now on."""
        self.source.sync()
        self.bitmap.volume.sync()
        self.log.commit(
            clean=False,
            boot_id=UUID(boot_id()),
            process_durability=False,
            restored_offline=self.target is self.parts.master,
            master_stamp=Stamp(),
            shadow_stamp=Stamp(),
        )

    def _clear(self, runs: list[Run]) -> None:
        """Clear copy bits, durably. Their chunks are durable already (invariant 5)."""
        self.bits.clear_runs(runs)
        extents = [
            self.bitmap.encode(
                self.log.header, Region.COPY, self.bits.packed[first : first + count], first
            )
            for first, count in sector_runs(runs)
        ]
        self.bitmap.write_sectors(extents)
        self.bitmap.volume.sync()

    def _end(self) -> None:
        assert self.bits.is_zero()
        for volume in (self.parts.master, self.parts.shadow):
            volume.sync_times()
        self.log.commit(
            progress=Direction.IDLE,
            copying=False,
            clean=True,
            master_stamp=stamp(self.parts.master),
            shadow_stamp=stamp(self.parts.shadow),
        )


def _stretches(bits: Bitmap) -> Iterator[list[Run]]:
    """The runs of set bits, in lists that share a sync. Bits may be cleared meanwhile."""
    gathered: list[Run] = []
    room, at = STRETCH_CHUNKS, 0
    while (first := bits.next_set(at)) is not None:
        run = first, bits.run_from(first, room)
        gathered.append(run)
        at, room = stop_of(run), room - run[1]
        if not room:
            yield gathered
            gathered, room = [], STRETCH_CHUNKS
    if gathered:
        yield gathered
