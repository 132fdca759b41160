"""A piece is lost for good: the worked examples of iifuse(7), by the real programs.

The importer of a lent shadow; the master's disk; the service, in the middle of a restore.
"""

import errno
import os

import pytest
from devices import detach, refuses
from harness import CHUNK

CHUNKS = 200
SIZE = CHUNKS * CHUNK + 1000


def tool(service, *words, code=0):
    """A program as it is typed; what it says."""
    done = service.run(*words)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def enabled(service, master, *sets):
    """Enable sets of one master, (kind, shadow), and let them be whole."""
    for kind, shadow in sets:
        service.enable(kind, master, shadow)
        if kind == "ind":
            service.wait(shadow)


def truth(service, shadow):
    """What `-i` says of a set's health: (offline volumes, reason)."""
    status = service.status(shadow)
    return status.offline, status.offline_reason


def assert_heals(service, master, *shadows):
    """One update each, and the raw volumes are equal."""
    for shadow in shadows:
        tool(service, "iiresync", shadow)
    assert service.stop() == 0
    for shadow in shadows:
        assert shadow.read_bytes()[:SIZE] == master.read_bytes()


# -- the importer ---------------------------------------------------------------------------


def test_shadow_of_a_lost_importer_is_taken_back_and_goes_out_again(
    service, new_service, volume, place
):
    master, shadow, other = volume("m", SIZE), place / "s", new_service("other")
    enabled(service, master, ("ind", shadow))
    ticket = place / "night.iiticket"
    tool(service, "iiexport", shadow, "--ticket", ticket)
    tool(other, "iiimport", ticket)
    other.write(shadow, 100 * CHUNK, b"nobody will ever know of this")
    service.write(master, 150 * CHUNK, b"over here")
    other.kill()
    assert "exported" in tool(service, "iiadm", "-R", shadow, code=1)
    assert "taken back" in tool(service, "iiadm", "-n", "-R", shadow)
    tool(service, "iiresync", shadow)
    assert service.read(shadow) == service.read(master)
    tool(service, "iiexport", shadow, "--ticket", ticket)
    other.clean_up()
    spare = new_service("spare")
    tool(spare, "iiimport", ticket)
    spare.write(shadow, 7 * CHUNK, b"the next night")
    spare.disable(shadow)
    tool(service, "iijoin", ticket)
    assert service.status(shadow).shadow_bits < CHUNKS
    assert_heals(service, master, shadow)


def test_shadow_taken_back_while_the_master_is_missing_says_so(service, volume, place):
    """Both lost at once: nothing is called well that is not."""
    master, shadow = volume("m", SIZE), place / "s"
    enabled(service, master, ("ind", shadow))
    kept = service.read(shadow)
    tool(service, "iiadm", "-E", shadow)
    service.stop()
    master.unlink()
    service.start()
    assert "taken back" in tool(service, "iiadm", "-n", "-R", shadow)
    assert truth(service, shadow)[0] == ("master",)
    assert service.read(shadow) == kept
    new_disk(master)
    assert "copied back" in tool(service, "iiadm", "-n", "-R", shadow)
    assert service.read(master) == kept
    service.wait(shadow)
    assert_heals(service, master, shadow)


# -- the master -----------------------------------------------------------------------------


def new_disk(path):
    path.touch()
    os.truncate(path, SIZE)


@pytest.fixture(params=["file", "device"])
def disk_that_breaks(request, service, volume, place, attach):
    """(path of a master, how to replace its disk by an empty one while the service is down)."""
    if request.param == "file":
        master = volume("m", SIZE)

        def replace():
            master.unlink()
            service.start()
            new_disk(master)

        return master, replace
    old, new = volume("old", SIZE // 512 * 512), place / "new"
    master, device = place / "m", attach(old)
    master.symlink_to(device)

    def replace_device():
        detach(device)
        master.unlink()
        service.start()
        new.touch()
        os.truncate(new, SIZE // 512 * 512)
        master.symlink_to(attach(new))

    return master, replace_device


def test_master_on_a_new_disk_is_refilled_and_its_other_sets_tell_the_truth(
    service, disk_that_breaks, place
):
    master, replace = disk_that_breaks
    shadow, other, dependent = place / "s", place / "other", place / "dependent"
    enabled(service, master, ("ind", shadow), ("ind", other), ("dep", dependent))
    service.write(master, 3 * CHUNK, b"after the points in time")
    pits = service.read(shadow), service.read(other)
    service.stop()
    replace()
    assert not service.path(master).exists()
    assert service.read(shadow) == pits[0]
    asked = tool(service, "iiadm", "-R", shadow, code=1)
    assert "overwrite a master" in asked
    assert not service.path(master).exists()
    assert "usable now" in tool(service, "iiadm", "-n", "-R", shadow)
    assert service.read(master) == pits[0]
    service.write(master, 5 * CHUNK, b"at once")
    assert service.read(shadow) == pits[0]
    assert truth(service, shadow) == ((), None)
    assert truth(service, other) == ((), None)
    assert service.status(other).shadow_bits == service.status(other).chunks
    assert service.read(other) == pits[1]
    assert truth(service, dependent) == (("shadow",), "its master was replaced")
    refuses(errno.EIO, service.read, dependent)
    service.wait(shadow)
    assert "new one begins" in tool(service, "iiadm", "-R", dependent)
    tool(service, "iiresync", other)
    live = service.read(master)
    assert (service.read(other), service.read(dependent)) == (live, live)
    service.write(master, 6 * CHUNK, b"a day later")
    assert service.read(dependent) == live


def test_disk_too_small_for_the_restore_stops_it_and_no_set_learns_from_the_mixture(
    service, volume, place, small_place
):
    """While the new master is incomplete, raw, no other set may take its point in time from it."""
    directory, enlarge = small_place
    source, master = volume("source", SIZE), directory / "m"
    new_disk(master)
    shadow, dependent, other = place / "s", place / "dependent", place / "other"
    for kind, path in (("ind", shadow), ("dep", dependent), ("ind", other)):
        service.enable(kind, master, path)
    service.wait(shadow, other)
    content = source.read_bytes()
    for at in range(0, SIZE, 16 * CHUNK):
        service.write(shadow, at, content[at : at + 16 * CHUNK])
    service.stop()
    master.unlink()
    dependent.unlink()
    other.unlink()
    service.start()
    new_disk(master)
    tool(service, "iiadm", "-n", "-R", shadow)
    tool(service, "iiadm", "-w", shadow, code=1)
    assert service.status(shadow).progress == "to_master"
    assert service.read(master) == content
    for sibling in (dependent, other):
        said = tool(service, "iiadm", "-n", "-R", sibling, code=1)
        assert f"restore of the same master from {shadow}" in said
        assert truth(service, sibling)[0] == ("shadow",)
    enlarge()
    service.flip("m", shadow)
    service.wait(shadow)
    for sibling in (dependent, other):
        tool(service, "iiadm", "-R", sibling)
        assert service.read(sibling) == content
    service.wait(other)
    assert service.stop() == 0
    assert master.read_bytes() == content == other.read_bytes()


@pytest.fixture
def half_restored(service, volume, place, small_place):
    """Make a set whose restore stands in the middle: there is no room for more on the master.

    (master, shadow, what the restore brings).
    """

    def make(kind):
        master, shadow = small_place[0] / "m", place / "s"
        new_disk(master)
        enabled(service, master, (kind, shadow))
        content = volume("content", SIZE).read_bytes()
        for at in range(0, SIZE, 16 * CHUNK):
            service.write(shadow, at, content[at : at + 16 * CHUNK])
        service.flip("m", shadow)
        tool(service, "iiadm", "-w", shadow, code=1)
        assert service.status(shadow).progress == "to_master"
        return master, shadow, content

    return make


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_master_lost_in_the_middle_of_a_restore(service, half_restored, small_place, kind):
    """Independent: the restore begins anew. Dependent: its point in time went with the disk."""
    master, shadow, kept = half_restored(kind)
    service.kill()
    master.unlink()
    service.start()
    assert "master" in truth(service, shadow)[0]
    new_disk(master)
    small_place[1]()
    said = tool(service, "iiadm", "-n", "-R", shadow)
    if kind == "dep":
        assert "old point in time is lost" in said
        assert service.read(master) == service.read(shadow) == bytes(SIZE)
        assert service.status(shadow).copy_bits == 0
    else:
        assert service.read(master) == kept
        service.wait(shadow)
        assert (service.read(master), service.read(shadow)) == (kept, kept)


def test_restore_is_not_disabled_although_the_bitmap_was_once_lost(
    service, volume, place, small_place, refused
):
    """Since -R its bits are known: master and shadow are both incomplete, `-u m` ends that."""
    master, shadow = small_place[0] / "m", place / "s"
    new_disk(master)
    enabled(service, master, ("dep", shadow))
    service.stop()
    shadow.with_name("s.bmp").unlink()
    service.start()
    tool(service, "iiadm", "-n", "-R", shadow)
    content = volume("content", SIZE).read_bytes()
    for at in range(0, SIZE, 16 * CHUNK):
        service.write(shadow, at, content[at : at + 16 * CHUNK])
    service.flip("m", shadow)
    tool(service, "iiadm", "-w", shadow, code=1)
    refused(service, "iiadm", "-n", "-d", shadow, says=("stands aborted",))
    small_place[1]()
    service.flip("m", shadow)
    service.wait(shadow)
    assert service.read(master) == content


def test_set_that_lost_both_volumes_overwrites_neither(service, volume, place):
    """What is left of the shadow may be all there is."""
    master, shadow = volume("m", SIZE), place / "s"
    enabled(service, master, ("ind", shadow))
    service.stop()
    master.unlink()
    os.truncate(shadow, 50 * CHUNK)
    service.start()
    assert truth(service, shadow)[0] == ("master", "shadow")
    left = shadow.read_bytes()
    new_disk(master)
    os.truncate(shadow, SIZE)
    assert "neither" in tool(service, "iiadm", "-n", "-R", shadow, code=2)
    assert shadow.read_bytes()[: len(left)] == left
    assert truth(service, shadow)[0] == ("master", "shadow")


# -- the service, in the middle of a restore ------------------------------------------------


def finish(service, master, shadow):
    """The commands of the manual, with no service."""
    bitmap = shadow.with_name(f"{shadow.name}.bmp")
    assert f"{bitmap}: fine" in tool(service, "iibitmap", "check", bitmap)
    assert "overwrite a master" in tool(
        service, "iibitmap", "finish", bitmap, master, shadow, code=1
    )
    said = tool(service, "iibitmap", "-n", "finish", bitmap, master, shadow)
    assert "chunks copied" in said


@pytest.mark.parametrize("kind", ["ind", "dep"])
def test_restore_is_finished_without_the_service(service, half_restored, small_place, kind):
    """The raw master is right at once; a service that starts later finds the set idle and equal."""
    master, shadow, kept = half_restored(kind)
    service.kill()
    small_place[1]()
    finish(service, master, shadow)
    assert master.read_bytes() == kept
    service.start()
    status = service.status(shadow)
    assert (status.progress, status.copy_bits, status.offline) == ("idle", 0, ())
    assert (service.read(master), service.read(shadow)) == (kept, kept)
    service.write(master, 3 * CHUNK, b"life goes on")
    assert service.read(shadow) == kept
    tool(service, "iiresync", shadow)
    assert service.read(shadow) == service.read(master)


@pytest.mark.parametrize("how", ["kill", "stop"])
def test_sets_of_a_master_that_was_finished_offline_are_in_doubt(
    service, volume, place, small_place, how
):
    """They were not there to preserve what the restore overwrote."""
    master, shadow = small_place[0] / "m", place / "s"
    dependent, other = place / "dependent", place / "other"
    new_disk(master)
    enabled(service, master, ("ind", shadow), ("dep", dependent), ("ind", other))
    pit = service.read(other)
    content = volume("content", SIZE).read_bytes()
    for at in range(0, SIZE, 16 * CHUNK):
        service.write(shadow, at, content[at : at + 16 * CHUNK])
    service.flip("m", shadow)
    tool(service, "iiadm", "-w", shadow, code=1)
    getattr(service, how)()
    small_place[1]()
    finish(service, master, shadow)
    for _ in range(2):  # what the first start finds, the second still knows
        service.start()
        assert truth(service, shadow) == ((), None)
        offline, why = truth(service, dependent)
        assert offline == ("shadow",)
        assert "master was" in why
        refuses(errno.EIO, service.read, dependent)
        assert truth(service, other) == ((), None)
        assert service.status(other).shadow_bits == CHUNKS + 1
        assert service.read(other) == pit
        service.kill()
    service.start()
    tool(service, "iiadm", "-R", dependent)
    tool(service, "iiresync", other)
    assert service.read(other) == service.read(dependent) == content
