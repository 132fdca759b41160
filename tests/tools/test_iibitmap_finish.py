"""`iibitmap finish`: a copy that was cut short is completed without the service, byte for byte."""

import json
import os
import shutil
import signal
import subprocess
from contextlib import ExitStack

import pytest
from bitmaps import CHUNK, make_bitmap, read_bitmap, sector_at, turn
from harness import BIN

from iifuse.core.header import BitmapRole, Closure
from iifuse.core.sector import Region
from iifuse.core.state import Change, Custody, Kind, Progress, Role
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
    assert f"Overwrite {cut.master} with {cut.shadow}?" in ended.err
    assert (cut.master.read_bytes() == before) is bool(code)
    assert ("100%" in ended.err) is not code


def test_finish_of_a_restore_without_a_terminal_is_refused(run, place):
    cut = Cut(place, progress=Progress.TO_MASTER)
    before = cut.master.read_bytes()
    ended = run("iibitmap", "finish", *cut.words)
    assert ended.code == 1
    assert "would overwrite a master" in ended.err
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


# -- after a real service -----------------------------------------------------------------------


needs_fuse = pytest.mark.skipif(
    not os.path.exists("/dev/fuse") or os.geteuid() != 0, reason="needs /dev/fuse and root"
)
BIG = 192 << 20


@pytest.fixture
def killed(new_service, disk_place):
    """Kill the service while it copies; (service, master, shadow, what each view showed)."""

    def make(direction):
        service = new_service()
        master, shadow = disk_place / "m", disk_place / "s"
        block = os.urandom(1 << 20)
        master.write_bytes(b"".join(block[n:] + block[:n] for n in range(BIG >> 20)))
        service.enable("ind", master, shadow)
        if direction == "m":
            service.wait(shadow)
            service.write(master, 11 * CHUNK, b"a mistake")
            service.flip("m", shadow, full=True)
        service.write(master, 5000 * CHUNK + 5, b"while it copies")
        shown = service.read(master), service.read(shadow)
        service.kill()
        return service, master, shadow, shown

    return make


def bitmap_of(shadow):
    return shadow.with_name("s.bmp")


def finish(*words, life=None):
    """The real program; killed after `life` seconds, if it lives so long."""
    command = [str(BIN / "iibitmap"), "finish", "-n", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        try:
            _, said = program.communicate(timeout=life)
        except subprocess.TimeoutExpired:
            program.send_signal(signal.SIGKILL)
            said = b""
    return program.returncode, said.decode()


@needs_fuse
@pytest.mark.parametrize("direction", ["s", "m"])
def test_finish_completes_a_copy_of_a_killed_service(killed, direction):
    service, master, shadow, shown = killed(direction)
    words = bitmap_of(shadow), master, shadow
    life, kills = 0.45, 0
    while finish(*words, life=life)[0] == -signal.SIGKILL:
        life, kills = life + 0.1, kills + 1
    assert kills < 100
    header, _, copy = read_bitmap(words[0])
    assert (header.progress, copy) == (Progress.IDLE, [])
    assert (master.read_bytes(), shadow.read_bytes()[:BIG]) == shown
    service.start()
    status = service.status(shadow)
    assert (status.progress, status.offline) == ("idle", ())
    assert status.shadow_bits <= 2 * 128
    assert (service.read(master), service.read(shadow)) == shown
    service.flip("s", shadow)
    service.wait(shadow)
    service.stop()
    assert shadow.read_bytes()[:BIG] == master.read_bytes() == shown[0]


@needs_fuse
def test_volumes_of_a_running_service_are_refused(new_service, place):
    service = new_service()
    master, shadow = place / "m", place / "s"
    master.write_bytes(bytes(CHUNK * 4))
    service.enable("ind", master, shadow)
    for words in (["check"], ["dump"], ["changed"], ["finish", master, shadow]):
        done = service.run("iibitmap", words[0], bitmap_of(shadow), *words[1:])
        assert done.returncode == 2
        assert "in use by a service" in done.stdout + done.stderr


@needs_fuse
def test_changed_tells_what_a_backup_has_to_copy(new_service, place):
    """A copy of the shadow that is patched with just these extents equals the next one."""
    service = new_service()
    master, shadow = place / "m", place / "s"
    master.write_bytes(os.urandom(2000 * CHUNK + 100))
    service.enable("ind", master, shadow)
    service.wait(shadow)
    backup = bytearray(service.read(shadow))
    for chunk in (3, 500, 1999, 2000):
        service.write(master, chunk * CHUNK, b"new %d" % chunk)
    service.write(shadow, 700 * CHUNK, b"on the shadow")
    service.stop()
    done = service.run("iibitmap", "changed", bitmap_of(shadow))
    extents = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [offset // CHUNK for offset, _ in extents] == [3, 500, 700, 1999]
    service.start()
    service.flip("s", shadow)
    service.wait(shadow)
    service.stop()
    with shadow.open("rb") as file:
        for offset, length in extents:
            file.seek(offset)
            backup[offset : offset + length] = file.read(length)
    assert bytes(backup) == shadow.read_bytes()[: len(backup)] == master.read_bytes()


@needs_fuse
def test_changed_of_a_closed_import_is_what_this_host_wrote(new_service, place):
    service, other = new_service(), new_service("other")
    master, shadow, second = place / "m", place / "s", place / "second"
    master.write_bytes(os.urandom(300 * CHUNK))
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.write(master, 5 * CHUNK, b"not here")
    assert service.run("iiadm", "-E", shadow).returncode == 0
    assert other.run("iiadm", "-I", shadow, second).returncode == 0
    other.write(shadow, 100 * CHUNK, b"here")
    other.disable(shadow)
    done = other.run("iibitmap", "changed", second)
    assert (done.returncode, done.stdout) == (0, f"{100 * CHUNK} {CHUNK}\n")
    service.stop()
    assert service.run("iibitmap", "changed", bitmap_of(shadow)).returncode == 3


@needs_fuse
@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_repaired_bitmap_brings_the_set_back(new_service, place, kind):
    service = new_service()
    master, shadow = place / "m", place / "s"
    master.write_bytes(os.urandom(300 * CHUNK))
    service.enable(kind, master, shadow)
    service.run("iiadm", "-w", shadow)
    service.write(master, 5 * CHUNK, b"new")
    kept = service.read(shadow)
    service.stop()
    bitmap, new = bitmap_of(shadow), place / "new"
    turn(bitmap, 24 * 1024 + 3)
    assert service.run("iibitmap", "check", bitmap).returncode == 1
    assert service.run("iibitmap", "repair", bitmap, new).returncode == 0
    new.rename(bitmap)
    service.start()
    status = service.status(shadow)
    if kind == "dep":
        assert status.offline == ("shadow",)
        assert service.run("iiadm", "-R", shadow).returncode == 0
        assert service.read(shadow) == service.read(master)
        return
    assert (status.offline, status.shadow_bits) == ((), 300)
    assert service.read(shadow) == kept
    service.flip("s", shadow)
    service.wait(shadow)
    service.stop()
    assert shadow.read_bytes() == master.read_bytes()
