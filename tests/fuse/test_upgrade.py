"""What version 0.1.0 has left is taken over as it is; and 0.1.0 refuses what this one has left."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from harness import CHUNK, Service
from old_version import OldService, run_old, unpack

SIZE = 40 * CHUNK + 1000


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return unpack(tmp_path_factory.mktemp("old") / "code")


@pytest.fixture
def old(place, code):
    """A service of version 0.1.0 that has made one of everything."""
    service = OldService(place, code)
    try:
        service.start()
        yield service
    finally:
        service.clean_up()


@pytest.fixture
def new(place, old):
    """A service of this version on the same state, once the old one has ended."""

    class Successor(Service):
        def __init__(self):
            super().__init__(place, "new", ("stop_wait=2",))
            self.state, self.mountpoint, self.socket = old.state, old.mountpoint, old.socket
            self.client = old.client

    service = Successor()
    yield service
    service.clean_up()


class Estate:
    """Sets of every kind and where their volumes are."""

    def __init__(self, place, volume):
        self.masters = [volume("a", SIZE), volume("b", SIZE)]
        self.plain = volume("plain", SIZE)
        self.idle, self.dependent, self.aborted = place / "a.ind", place / "a.dep", place / "b.ind"
        self.lent, self.second = place / "b.lent", place / "second"
        self.sets = [self.idle, self.dependent, self.aborted, self.lent]
        self.files = [*self.masters, self.plain, self.idle, self.dependent, self.aborted]

    def make(self, service):
        """Bring all of it under control, and write everywhere; by the old tools."""

        def run(program, *words):
            done = service.run(program, *words)
            assert done.returncode == 0, (words, done.stderr)

        def enable(kind, master, shadow, *words):
            run("iiadm", *words, "-e", kind, self.masters[master], shadow, f"{shadow}.bmp")

        enable("ind", 0, self.idle, "-g", "night")
        enable("dep", 0, self.dependent)
        enable("ind", 1, self.aborted)
        enable("ind", 1, self.lent, "-g", "night")
        for shadow in (self.idle, self.aborted, self.lent):
            run("iiadm", "-w", shadow)
        for number, master in enumerate(self.masters):
            for chunk in (0, 7, 40):
                service.write(master, chunk * CHUNK, b"new %d" % number)
        service.write(self.dependent, 9 * CHUNK, b"on the shadow")
        run("iiadm", "-E", self.lent)
        run("svadm", "-e", self.plain)
        return self


@pytest.fixture
def estate(old, place, volume):
    return Estate(place, volume).make(old)


def rows(service, sets):
    """What `iiadm -i` says of sets."""
    return [json.loads(service.run("iiadm", "-i", s, "--json").stdout)["sets"][0] for s in sets]


def facts(service, estate):
    """What has to be the same after the upgrade."""
    names = ("uuid", "kind", "progress", "custody", "offline", "pit", "pit_id", "pit_time", "group",
             "shadow_bits", "copy_bits")  # fmt: skip
    sets = [{name: row[name] for name in names} for row in rows(service, estate.sets)]
    return sets, [service.read(path) for path in estate.files]


def test_upgrade_loses_nothing_and_the_procedure_goes_on(old, new, estate, new_service):
    """The ticket of the old version included, which the new one on the other host takes."""
    before = facts(old, estate)
    assert old.stop() == 0
    new.start()
    assert facts(new, estate) == before
    other = new_service("other")
    assert other.run("iiadm", "-I", estate.lent, estate.second).returncode == 0
    other.write(estate.lent, 11 * CHUNK, b"of the other host")
    assert other.run("iiadm", "-d", estate.lent).returncode == 0
    done = new.run("iiadm", "-J", estate.lent, estate.second)
    assert done.returncode == 0, done.stderr
    for word in ("-u", "-w"):
        done = new.run("iiadm", "-g", "night", word)
        assert done.returncode == 0, done.stderr
    new.write(estate.masters[0], 5 * CHUNK, b"after the point in time")
    for shadow, master in ((estate.idle, 0), (estate.lent, 1)):
        new.disable(shadow)
        end = [f"--bytes={5 * CHUNK}"] if shadow == estate.idle else []
        subprocess.run(["cmp", *end, shadow, estate.masters[master]], check=True)


def test_upgrade_after_a_kill_loses_nothing(old, new, estate):
    _, contents = facts(old, estate)
    old.kill()
    new.start()
    sets, shown = facts(new, estate)
    assert shown == contents
    assert [row["offline"] for row in sets] == [[]] * len(sets)


def test_upgraded_state_and_bitmap_are_refused_by_the_old_version_in_words(old, new, estate, code):
    old.stop()
    new.start()
    assert new.stop() == 0
    with pytest.raises(AssertionError, match=r"format version \d+ is not known here"):
        old.start()
    assert "Traceback" not in old.log.read_text()
    bitmap = Path(f"{estate.idle}.bmp")
    before = bitmap.read_bytes()
    for verb in ("check", "dump"):
        done = run_old(code, "iibitmap", verb, bitmap)
        assert done.returncode == 2
        assert "format version 2" in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    assert bitmap.read_bytes() == before


def test_bitmap_of_the_old_version_is_attached(old, new, estate):
    old.stop()
    for name in os.listdir(old.state):
        os.unlink(old.state / name)
    new.start()
    bitmaps = [f"{estate.idle}.bmp", f"{estate.dependent}.bmp"]
    done = new.run("iiadm", "--attach", *bitmaps)
    assert done.returncode == 0, done.stderr
    found = rows(new, [estate.idle, estate.dependent])
    assert [row["shadow_bits"] for row in found] == [3, 4]
