"""Volumes in memory that fail and stop where a test wants it; the engine's tests fake no more."""

import errno
import os
from collections.abc import Callable
from math import inf
from uuid import UUID

from bitmaps import chunks_of, read_whole
from harness import CHUNK

from iifuse.core.bits import Bits
from iifuse.core.geometry import Geometry
from iifuse.core.header import Header, Pit
from iifuse.core.sector import Region, bitmap_bytes
from iifuse.core.state import Kind, Progress
from iifuse.data.family import Family
from iifuse.data.view import MasterView, ShadowView
from iifuse.data.volumeset import VolumeSet
from iifuse.loop.loop import Loop
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.blocks import WHOLE, Extent
from iifuse.store.headerlog import HeaderLog
from iifuse.store.identity import Identity

Rule = Callable[[str, int, int], bool]


def always(operation: str) -> Rule:
    return lambda op, offset, length: op == operation


def in_chunk(operation: str, chunk: int) -> Rule:
    """The operation, where it touches a chunk."""
    return lambda op, offset, length: (
        op == operation and offset < (chunk + 1) * CHUNK and offset + length > chunk * CHUNK
    )


class FakeVolume:
    """What the engine asks of a volume. `diary` is shared: (path, operation) in order.

    `breaks`: rules of operations that fail. `hooks`: operation -> called once before it, in the
    thread that does it.
    """

    is_device = False
    has_disk = True
    remote = ""
    born_ns = 0

    def __init__(self, path: str, data: bytes, diary: list[tuple[str, str]] | None = None) -> None:
        self.path, self.data, self.durable = path, bytearray(data), bytes(data)
        self.size_bytes, self.fd = len(data), 0
        self.identity = Identity(False, (0, hash(path)), (Extent(path, 0, WHOLE),))
        self.diary = diary if diary is not None else []
        self.breaks: list[Rule] = []
        self.hooks: dict[str, Callable[[], object]] = {}
        self.is_synced = True
        self.answered = -inf

    def _do(self, operation: str, offset: int = 0, length: int = 0) -> None:
        hook = self.hooks.pop(operation, None)
        if hook is not None:
            hook()
        self.diary.append((self.path, operation))
        if any(breaks(operation, offset, length) for breaks in self.breaks):
            raise OSError(errno.EIO, "planted", self.path)

    def read(self, offset: int, length: int) -> bytes:
        self._do("read", offset, length)
        return bytes(self.data[offset : offset + length])

    def read_cached(self, offset: int, length: int) -> bytes:
        return self.read(offset, length)

    def write(self, offset: int, data: bytes) -> int:
        self._do("write", offset, len(data))
        assert offset + len(data) <= self.size_bytes
        self.data[offset : offset + len(data)] = data
        self.is_synced = False
        return len(data)

    def zero(self, offset: int, length: int) -> None:
        self.write(offset, bytes(length))

    def sync(self) -> None:
        self._do("sync")
        self.durable, self.is_synced = bytes(self.data), True

    def sync_times(self) -> None:
        self._do("sync_times")

    def start_writeback(self, offset: int, length: int) -> None:
        self._do("start_writeback", offset, length)

    def sync_anew(self) -> None:
        self.sync()

    def data_from(self, offset: int, stop: int) -> tuple[int, int]:
        return offset, stop

    def stat(self) -> os.stat_result:
        return os.stat("/")

    def forget(self, offset: int, length: int) -> None:
        pass

    def close(self) -> None:
        pass

    def chunk(self, number: int) -> bytes:
        return bytes(self.data[number * CHUNK : (number + 1) * CHUNK])


def chunks(*letters: str) -> bytes:
    """A volume of chunks that are full of one letter each."""
    return b"".join(letter.encode() * CHUNK for letter in letters)


class Bench:
    """A family on fake volumes. Each set begins with the copy bits of its progress."""

    def __init__(self, data: bytes, *, ordered: bool = True) -> None:
        self.diary: list[tuple[str, str]] = []
        self.master = FakeVolume("/m", data, self.diary)
        self.loop = Loop()
        self.family = Family(self.loop, "/m", self.master, Geometry(len(data)), ordered=ordered)
        self.view = MasterView("/m", self.family)

    def add(
        self,
        name: str,
        kind: Kind,
        shadow: bytes,
        progress: Progress = Progress.IDLE,
        copy: tuple[int, ...] = (),
    ) -> VolumeSet:
        count = self.family.geometry.chunks
        header = Header(
            uuid=UUID(int=len(self.family.sets) + 1), kind=kind, size_bytes=self.master.size_bytes,
            master="/m", shadow=name, bitmap=f"{name}.b", progress=progress,
            copying=progress is not Progress.IDLE, pit=Pit(1, UUID(int=99), 1),
        )  # fmt: skip
        volume = FakeVolume(f"{name}.b", bytes(bitmap_bytes(count)), self.diary)
        bitmap = BitmapFile(volume)
        bits = Bits.blank(count)
        bits.copy.set_runs((c, 1) for c in copy)
        for region in Region:
            found = bits.copy if region is Region.COPY else bits.shadow
            bitmap.write_region(header, region, found)
        header = bitmap.write_header(header)
        member = VolumeSet(
            self.loop, HeaderLog(header, bitmap), bits, FakeVolume(name, shadow, self.diary)
        )
        self.family.sets.append(member)
        self.diary.clear()
        return member

    def shadow_view(self, member: VolumeSet) -> ShadowView:
        return ShadowView(member, self.family)


def durable(member: VolumeSet) -> tuple[Header, set[int], set[int]]:
    """What a power loss would leave of a set's bitmap: header, shadow bits, copy bits."""
    volume = FakeVolume("after", member.bitmap.volume.durable)
    header, shadow, copy = read_whole(BitmapFile(volume))
    return header, chunks_of(shadow), chunks_of(copy)
