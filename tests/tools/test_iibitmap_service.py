"""`iibitmap` on what a real service has left, and the service on what `iibitmap` has left."""

import os
import signal
import subprocess

import pytest
from bitmaps import CHUNK, change_header, read_bitmap, turn
from harness import BIN

from iifuse.core.state import Progress

SIZE = 40 * CHUNK - 777
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


@needs_fuse
@pytest.mark.parametrize("direction", ["s", "m"])
def test_refusal_of_finish_after_a_write_past_the_service_leads_out(new_service, place, direction):
    """K6: what it says is done, and after an update both volumes are the same again."""
    service = new_service()
    master, shadow = place / "m", place / "s"
    master.write_bytes(os.urandom(SIZE))
    service.enable("ind", master, shadow)
    service.wait(shadow)
    service.stop()
    progress = {"s": Progress.TO_SHADOW, "m": Progress.TO_MASTER}[direction]
    change_header(bitmap_of(shadow), progress=progress)  # aborted just before its end
    with master.open("r+b") as file:
        file.write(b"past the service")
    said = finish(bitmap_of(shadow), master, shadow)[1]
    assert f"start the service, then 'iiadm -R {shadow}'" in said
    service.start()
    done = service.run("iiadm", "-n", "-R", shadow)
    assert done.returncode == 0, done.stderr
    for flip in (direction, "s"):
        service.flip(flip, shadow)
        service.wait(shadow)
    assert service.read(shadow) == service.read(master)


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
