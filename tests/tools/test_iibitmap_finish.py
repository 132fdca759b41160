"""`iibitmap finish`: a copy that was cut short is completed without the service, byte for byte."""

import json
import os
import shutil
from contextlib import ExitStack

import pytest
from bitmaps import CHUNK, change_header, make_bitmap, read_bitmap, sector_at, turn

from iifuse.core.header import BitmapRole, Closure, Stamp
from iifuse.core.sector import Region
from iifuse.core.state import Change, Custody, Kind, Progress, Role
from iifuse.store.presence import file_at
from iifuse.store.volume import Volume
from iitools import iibitmap_finish

CHUNKS = 40
SIZE = CHUNKS * CHUNK - 777
COPY = ((0, 3), (7, 9), (20, 1), (38, 2))
STATES = [
    {"progress": Progress.TO_SHADOW, "copying": True},
    {"progress": Progress.TO_SHADOW},
    {"progress": Progress.TO_MASTER, "copying": True},
    {"progress": Progress.TO_MASTER, "kind": Kind.DEPENDENT},
]


class Cut:
    """A set whose copy was cut short, without a service: a hole of four chunks in each volume."""

    def __init__(self, place, **fields):
        self.master, self.shadow, self.bitmap = place / "m", place / "s", place / "b"
        self.fields = {"to_copy": COPY, "marked": ((9, 2), (30, 1)), "size_bytes": SIZE, **fields}
        for path, hole in ((self.master, 8), (self.shadow, 10)):
            path.write_bytes(os.urandom(SIZE))
            with path.open("r+b") as file:
                file.seek(hole * CHUNK)
                file.write(bytes(4 * CHUNK))
        make_bitmap(
            self.bitmap, master=str(self.master), shadow=str(self.shadow), **self.fields
        )
        self.expected = self._expected()

    def _expected(self):
        contents = [bytearray(path.read_bytes()) for path in (self.master, self.shadow)]
        source, target = contents
        if self.fields.get("progress") is Progress.TO_MASTER:
            source, target = target, source
        for first, count in COPY:
            stop = min((first + count) * CHUNK, SIZE)
            target[first * CHUNK : stop] = source[first * CHUNK : stop]
        return [bytes(content) for content in contents]

    @property
    def words(self):
        return [str(path) for path in (self.bitmap, self.master, self.shadow)]

    def assert_finished(self):
        header, shadow, copy = read_bitmap(self.bitmap)
        assert (header.progress, header.copying, header.clean) == (Progress.IDLE, False, True)
        assert shadow == [(9, 2), (30, 1)]
        assert copy == []
        self.assert_bytes()

    def assert_bytes(self):
        assert [self.master.read_bytes(), self.shadow.read_bytes()] == self.expected

    def finish(self):
        """In this process, as the program does it."""
        with ExitStack() as stack:
            return iibitmap_finish.finish(iibitmap_finish.open_parts(*self.words, stack))


@pytest.mark.parametrize("fields", STATES)
def test_finish_copies_what_the_copy_bits_name(run, place, fields):
    cut = Cut(place, **fields)
    ended = run("iibitmap", "finish", "-n", "--json", *cut.words)
    assert (ended.code, ended.err) == (0, "")
    result = json.loads(ended.out)
    assert result["chunks"] == 15
    assert result["bytes"] < 15 * CHUNK
    cut.assert_finished()


def test_finish_of_an_idle_set_does_nothing(run, place):
    cut = Cut(place, to_copy=())
    before = cut.bitmap.read_bytes(), cut.master.read_bytes(), cut.shadow.read_bytes()
    assert run("iibitmap", "finish", *cut.words).code == 0
    assert before == (cut.bitmap.read_bytes(), cut.master.read_bytes(), cut.shadow.read_bytes())


@pytest.mark.parametrize(("typed", "code"), [("y\n", 0), ("\n", 1)])
def test_finish_of_a_restore_is_asked_about(on_terminal, place, typed, code):
    cut = Cut(place, progress=Progress.TO_MASTER)
    before = cut.master.read_bytes()
    ended = on_terminal(
        "iibitmap", "finish", *cut.words, typed=typed, streams=("stdin", "stderr")
    )
    assert ended.code == code
    assert f"{cut.master}: this would go on to overwrite a master: the 15 chunks" in ended.err
    assert f"from {cut.shadow}, which holds point in time 3" in ended.err
    assert (cut.master.read_bytes() == before) is bool(code)
    assert ("100%" in ended.err) is not code


def test_finish_of_a_restore_without_a_terminal_is_refused(run, place):
    cut = Cut(place, progress=Progress.TO_MASTER)
    before = cut.master.read_bytes()
    ended = run("iibitmap", "finish", *cut.words)
    assert ended.code == 1
    assert "this would go on to overwrite a master" in ended.err
    assert cut.master.read_bytes() == before


COPYING = {"progress": Progress.TO_SHADOW, "copying": True}
REFUSED = {
    "pending": COPYING | {"pending": Change.MERGE_TO_SHADOW},
    "offline": COPYING | {"offline": Role.SHADOW},
    "imported": COPYING | {"role": BitmapRole.IMPORTED},
    "exported": COPYING | {"custody": Custody.EXPORTED},
    "disabled": COPYING | {"closure": Closure.CLOSED},
    "process": COPYING | {"clean": False, "process_durability": True},
    "sequence": COPYING | {"sequence": 2**64 - 2},
}


@pytest.mark.parametrize("fields", REFUSED.values(), ids=REFUSED)
def test_finish_is_refused_where_the_bits_do_not_say_what_is_right(run, place, fields):
    cut = Cut(place, **fields)
    assert_refused(run, cut, cut.words)


@pytest.mark.parametrize("region", Region)
def test_finish_is_refused_with_damaged_bits(run, place, region):
    cut = Cut(place, **COPYING)
    turn(cut.bitmap, sector_at(region, 0, CHUNKS) + 2)
    assert_refused(run, cut, cut.words)


@pytest.mark.parametrize("order", ["bsm", "bmm", "mbs", "bm.", "b.s", "bmb"])
def test_finish_is_refused_for_the_wrong_volumes(run, place, order):
    cut = Cut(place, **COPYING)
    short = place / "short"
    short.write_bytes(bytes(CHUNK))
    names = {"b": cut.bitmap, "m": cut.master, "s": cut.shadow, ".": short}
    assert_refused(run, cut, [str(names[letter]) for letter in order])


def assert_refused(run, cut, words):
    before = [path.read_bytes() for path in (cut.bitmap, cut.master, cut.shadow)]
    ended = run("iibitmap", "finish", "-n", *words)
    assert ended.code in (1, 2)
    assert "unexpected" not in ended.err
    assert [path.read_bytes() for path in (cut.bitmap, cut.master, cut.shadow)] == before
    return ended.err


@pytest.mark.parametrize("fields", STATES)
@pytest.mark.parametrize("role", ["master", "shadow"])
def test_finish_with_another_file_in_the_place_of_one_is_asked_about(run, place, role, fields):
    """K5: an empty file that bears the shadow's name became the master's content."""
    cut = Cut(place, **fields)
    path = getattr(cut, role)
    change_header(cut.bitmap, **{f"{role}_file": file_at(str(path))})
    content = path.read_bytes()
    os.rename(path, f"{path}.old")
    path.write_bytes(content)
    before = [p.read_bytes() for p in (cut.bitmap, cut.master, cut.shadow)]
    ended = run("iibitmap", "finish", *cut.words)
    assert ended.code == 1
    assert f"though {path} is another file than the {role}" in ended.err
    assert [p.read_bytes() for p in (cut.bitmap, cut.master, cut.shadow)] == before
    assert run("iibitmap", "finish", "-n", *cut.words).code == 0
    cut.assert_finished()


@pytest.mark.parametrize("fields", STATES)
@pytest.mark.parametrize("role", ["master", "shadow"])
def test_finish_after_a_write_past_the_service_is_refused(run, place, role, fields):
    """K5: the new stamps hid it, and equal bits no longer meant equal bytes."""
    cut = Cut(place, **fields)
    path = getattr(cut, role)
    found = path.stat()
    stamp = Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    change_header(cut.bitmap, **{f"{role}_stamp": stamp})
    with path.open("r+b") as file:
        file.write(b"past the service")
    assert "was written since the service had it" in assert_refused(run, cut, cut.words)
    change_header(cut.bitmap, **{f"{role}_file": file_at(str(cut.bitmap))})
    assert "is another file than" in assert_refused(run, cut, cut.words)


# -- killed at any moment -----------------------------------------------------------------------


class Killed(BaseException):
    """The process ends between two calls of the system."""


@pytest.mark.parametrize("fields", STATES)
def test_finish_goes_on_after_a_kill_at_every_write_and_sync(place, monkeypatch, fields):
    monkeypatch.setattr(iibitmap_finish, "STRETCH_CHUNKS", 4)
    calls = iter(())

    def mortal(call):
        def called(*args):
            if next(calls, None) is None:
                raise Killed
            return call(*args)

        return called

    for name in ("write", "sync", "zero"):
        monkeypatch.setattr(Volume, name, mortal(getattr(Volume, name)))
    for lives in range(200):
        calls = iter(range(1 << 20))
        folder = place / str(lives)
        folder.mkdir()
        cut = Cut(folder, **fields)
        calls = iter(range(lives))
        try:
            cut.finish()
            done = True
        except Killed:
            done = False
        calls = iter(range(1 << 20))
        cut.finish()
        cut.assert_finished()
        shutil.rmtree(folder)
        if done:
            assert lives > 20
            return
    raise AssertionError("the copy never came to its end")


def test_finish_clears_bits_only_after_the_target_is_durable(place, monkeypatch):
    cut = Cut(place, **COPYING)
    with ExitStack() as stack:
        parts = iibitmap_finish.open_parts(*cut.words, stack)
        seen = []
        write = Volume.write

        def watched(volume, offset, data):
            if volume is parts.found.volume:
                seen.append((offset >= 24 * 1024, parts.shadow.is_synced, volume.is_synced))
            return write(volume, offset, data)

        monkeypatch.setattr(Volume, "write", watched)
        iibitmap_finish.finish(parts)
    bits = [row for row in seen if row[0]]
    assert bits
    assert all(target for _, target, _ in bits)
    last_is_header, _, bits_durable = seen[-1]
    assert not last_is_header
    assert bits_durable


def test_finish_leaves_holes_as_holes(run, disk_place):
    cut = Cut(disk_place, progress=Progress.TO_SHADOW, to_copy=((0, CHUNKS),), marked=())
    cut.master.unlink()
    cut.master.touch()
    os.truncate(cut.master, SIZE)
    with cut.master.open("r+b") as file:
        file.write(b"data")
    cut.shadow.unlink()
    cut.shadow.touch()
    os.truncate(cut.shadow, SIZE)
    assert run("iibitmap", "finish", *cut.words).code == 0
    assert cut.shadow.read_bytes() == cut.master.read_bytes()
    assert cut.shadow.stat().st_blocks * 512 <= 2 * CHUNK
