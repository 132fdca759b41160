"""A state directory that is full, or cannot be written any more: every verb and every start.

Each verb works wholly, or is refused with words and has changed nothing; and after a kill and with
room again everything is as it was answered.
"""

import contextlib
import os
import subprocess

import pytest
from devices import attach, mounted
from filesystems import make
from harness import CHUNK, Service
from refusing import picture

__all__ = ["attach", "mounted"]

SIZE = 9 * CHUNK + 100
OPTIONS = ("stop_wait=2",)


@pytest.fixture
def service_seconds():
    return 300


class Full:
    """A small file system without a free byte; what the service keeps free for itself is there."""

    works, starts = True, True

    def __init__(self, state, make_device, mount):
        del make_device, mount
        self.state = state
        small = ("mount", "-t", "tmpfs", "-o", "size=4m", "state", state)
        subprocess.run(small, check=True)

    def fall_ill(self, service):
        del service
        self._fill()

    def _fill(self):
        with (self.state / "room").open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(512))
            except OSError:
                pass

    def heal(self):
        (self.state / "room").unlink()

    def end(self):
        subprocess.run(["umount", "-l", self.state], check=True)


class FullToTheBrim(Full):
    """The room that was kept is gone too, as on a disk that was full when 0.1.0 was replaced."""

    works = False

    def fall_ill(self, service):
        assert service.stop() == 0
        subprocess.run(["sqlite3", self.state / "state.db", "VACUUM"], check=True)
        (self.state / "state.db-journal").write_bytes(b"")
        self._fill()
        service.start()


class ReadOnly:
    """ext4 after an error of its disk: errors=remount-ro."""

    works, starts = False, False

    def __init__(self, state, make_device, mount):
        image = state.with_name("image")
        image.touch()
        os.truncate(image, 32 << 20)
        self.device, self.state, self._mount = make_device(image), state, mount
        make("ext4", self.device)
        subprocess.run(["mount", self.device, state], check=True)

    def fall_ill(self, service):
        del service
        subprocess.run(["mount", "-o", "remount,abort", self.state], check=True)

    def heal(self):
        self.end()
        subprocess.run(["mount", self.device, self.state], check=True)

    def end(self):
        if os.path.ismount(self.state):
            subprocess.run(["umount", self.state], check=True)


@pytest.fixture(params=[Full, FullToTheBrim, ReadOnly])
def ailing(request, place, attach, mounted):
    """(the service, its ailment)"""
    found = Service(place, "app", OPTIONS)
    found.state.mkdir()
    ailment = request.param(found.state, attach, mounted)
    try:
        yield found.start(), ailment
    finally:
        found.clean_up()
        ailment.end()


class World:
    """Sets in every state that a verb wants, and all verbs in an order in which all are allowed."""

    def __init__(self, service, other, volume, place):
        self.service, self.other, self.place = service, other, place
        self.masters = {name: volume(f"m{name}", SIZE) for name in "idxogy"}
        self.plain, self.new = volume("plain", SIZE), volume("new", SIZE)
        self.new_plain = volume("plain2", SIZE)
        self.used = volume("used", SIZE), volume("used.bmp", 1 << 20)
        for name in "ixog":
            self._enable(service, "ind", name, "-g", "old" if name == "g" else "rest")
        self._enable(service, "dep", "d")
        self._enable(other, "ind", "y")
        self.run("svadm", "-e", self.plain)
        for name in "idog":
            service.write(self.masters[name], CHUNK, b"changed")
        self._lend()
        self._lose_a_bitmap()

    def set(self, name):
        return self.place / f"s{name}"

    def run(self, *words, on=None):
        done = (on or self.service).run(*words)
        assert done.returncode == 0, done.stderr
        return done

    def _enable(self, service, kind, name, *group):
        shadow = self.set(name)
        words = ("-e", kind, self.masters[name], shadow, f"{shadow}.bmp")
        self.run("iiadm", *group, *words, on=service)
        self.run("iiadm", "-w", shadow, on=service)

    def _lend(self):
        """x is lent and can be joined; y is lent by another host."""
        shadow = self.set("x")
        self.run("iiadm", "-E", shadow)
        self.run("iiadm", "-I", shadow, f"{shadow}.b2", on=self.other)
        self.other.write(shadow, 2 * CHUNK, b"on the other host")
        self.run("iiadm", "-d", shadow, on=self.other)
        self.run("iiadm", "-E", self.set("y"), on=self.other)

    def _lose_a_bitmap(self):
        self.service.stop()
        os.unlink(f"{self.set('o')}.bmp")
        self.service.start()
        assert self.service.status(self.set("o")).offline == ("bitmap",)

    def verbs(self):
        """(words, does it need a note?)"""
        i, d, x, o, y = map(self.set, "idxoy")
        made = (self.new, self.place / "made", self.place / "made.bmp")
        yield ("iiadm", "-u", "s", i), True
        yield ("iiadm", "-c", "s", i), True
        yield ("iiadm", "-n", "-u", "m", i), True
        yield ("iiadm", "-u", "s", d), True
        yield ("iiadm", "-n", "-u", "m", d), True
        yield ("iiadm", "-g", "old", "-u", "s"), True
        yield ("iiadm", "-a", i), False
        yield ("iiadm", "-w", i), False
        yield ("iiadm", "-o", "limit=9", i), False
        yield ("iiadm", "-g", "moved", "-m", i), True
        yield ("iiadm", "-E", i), True
        yield ("iiadm", "-n", "-R", i), self.service.status(i).custody == "exported"
        yield ("iiadm", "-J", x, f"{x}.b2"), True
        yield ("iiadm", "-n", "-R", o), True
        yield ("iiadm", "-I", y, self.place / "y.b2"), True
        yield ("iiadm", "-d", d), True
        yield ("iiadm", "-d", i), True
        yield ("iiadm", "-e", "dep", *made), True
        yield ("iiadm", "-n", "-e", "ind", self.masters["g"], *self.used), True
        yield ("svadm", "-d", self.plain), True
        yield ("svadm", "-e", self.new_plain), True

    def rest(self):
        for row in self.service.client.status():
            if row.copying:
                self.service.wait(row.shadow)

    def answered(self):
        """What was told of every set, and what every file shows."""
        rows = sorted(self.service.client.status(), key=lambda row: row.shadow)
        told = [(r.shadow, r.group, r.progress, r.custody, r.pit, r.offline) for r in rows]
        return told, {
            str(path): path.read_bytes()
            for path in sorted(self.service.path(self.place).iterdir()) if path.is_file()
        }  # fmt: skip


@pytest.mark.finding("K1.2")
def test_verbs_with_a_state_directory_that_takes_no_notes(ailing, new_service, volume, place):
    """K1: `-u s` and `-E` were accepted, and forgotten by a kill."""
    service, ailment = ailing
    world = World(service, new_service("other"), volume, place)
    ailment.fall_ill(service)
    for words, needs_note in world.verbs():
        before = picture(place, service)
        done = service.run(*words)
        said = f"{' '.join(map(str, words))}: {done.stderr}"
        if ailment.works or not needs_note:
            assert done.returncode == 0, said
        else:
            assert done.returncode == 2, said
            assert str(service.state) in done.stderr, said
            assert "; make room in" in done.stderr, said
            assert picture(place, service) == before, said
        world.rest()
    answered = world.answered()
    service.kill()
    check_start(service, ailment)
    ailment.heal()
    service.start()
    assert world.answered() == answered
    done = service.run("iiadm", "-g", "old", "-u", "s")
    assert done.returncode == 0, done.stderr


def _is_served(mountpoint):
    """The dead mount of a killed service may be there still, with attributes that are cached."""
    with contextlib.suppress(OSError):
        os.listdir(mountpoint)
        return os.path.ismount(mountpoint)
    return False


def check_start(service, ailment):
    """While the ailment lasts: the service comes up as it was, or says why not."""
    if ailment.starts:
        service.start()
        service.kill()
        return
    command = service.command()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert str(service.state) in done.stderr
    assert "; make" in done.stderr
    assert not _is_served(service.mountpoint)
