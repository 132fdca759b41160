"""Looking at volumes past every cache, and at bitmaps while their service is down."""

import mmap
import os
from pathlib import Path

import bitmaps
from harness import CHUNK
from set_model import ZEROS, Content, ModelSet

from iifuse.control.protocol import SetStatus
from iifuse.core.header import Header

LARGE_CHUNKS = 1000


def assert_row(member: ModelSet, row: SetStatus) -> None:
    assert not row.offline, row.offline_reason
    assert (row.progress, row.custody) == (member.progress, member.custody)
    if not member.copying:
        assert not row.copying
    assert (row.kind[:3], row.pit, row.group) == (member.kind, member.pit, member.group)
    assert len(member.lower) <= row.shadow_bits <= len(member.upper)
    assert row.copy_bits <= len(member.copy)


def assert_copied(member: ModelSet, row: SetStatus) -> None:
    """An update copies exactly the union, whoever brings a chunk."""
    if member.union is not None:
        assert row.copied_chunks == member.union


def compare(path: Path, content: Content, *, whole: bool = False, cached: bool = False) -> None:
    """Past the page cache or through it (`cached`); of a long volume, unless `whole`, the chunks
    that were ever written.
    """
    assert path.stat().st_size == content.size
    fd = os.open(path, os.O_RDONLY | (0 if cached else os.O_DIRECT))
    try:
        if content.count < LARGE_CHUNKS or whole:
            runs = [(n, min(256, content.count - n)) for n in range(0, content.count, 256)]
        else:
            runs = [(n, 1) for n in sorted(content.chunks)]
        with mmap.mmap(-1, 256 * CHUNK) as buffer:
            for first, count in runs:
                expected = content.run(first, count)
                done = os.preadv(fd, [memoryview(buffer)[: len(expected)]], first * CHUNK)
                if done != len(expected) or buffer[:done] != expected:
                    assert_same(path, first, buffer[:done], expected)
    finally:
        os.close(fd)


def assert_same(path: Path, first: int, found: bytes, expected: bytes) -> None:
    """Name the chunks, not their bytes."""
    wrong = [
        first + at // CHUNK
        for at in range(0, len(expected), CHUNK)
        if found[at : at + CHUNK] != expected[at : at + CHUNK]
    ]
    raise AssertionError(f"{path.name}: chunks {wrong} show other bytes than the model's")


def raw_content(path: str, like: Content) -> Content:
    """The raw volume as far as the set goes; holes are skipped."""
    found = Content(like.size)
    with open(path, "rb") as file:
        at = 0
        while at < like.size:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) // CHUNK * CHUNK
            except OSError:
                break
            if at >= like.size:
                break
            data = os.pread(file.fileno(), min(CHUNK, like.size - at), at)
            if data != ZEROS[: len(data)]:
                found.chunks[at // CHUNK] = data.ljust(CHUNK, b"\0")
            at += CHUNK
    return found


def read_bitmap(path: str) -> tuple[Header, set[int], set[int]]:
    """(header, chunks with a shadow bit, chunks with a copy bit) of a service that is down."""
    header, *regions = bitmaps.read_bitmap(Path(path))
    shadow, copy = ({c for first, n in runs for c in range(first, first + n)} for runs in regions)
    return header, shadow, copy
