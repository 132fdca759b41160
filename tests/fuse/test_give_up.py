"""K5: a restore that cannot be finished is given up: the list of what is missing, and a way out."""

import contextlib
import json
import os
import subprocess

import pytest
from harness import BIN, CHUNK

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import SetStatus, Target

CHUNKS = 2000


def ok(service, *words):
    done = service.run("iiadm", *words)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(params=["ind", "dep"])
def aborted(request, service, volume, place):
    """A restore that stands aborted, some of it brought: (master, shadow, its point in time)."""
    master, shadow = volume("m", CHUNKS * CHUNK + 1000), place / "s"
    kept = master.read_bytes()
    service.enable(request.param, master, shadow)
    service.wait(shadow)
    for _ in range(10):  # a copy may be quicker than who aborts it
        for chunk in range(0, CHUNKS, 3):
            service.write(master, chunk * CHUNK, b"a mistake")
        service.flip("m", shadow)
        service.abort(shadow)
        if service.status(shadow).copy_bits > 1:
            break
    service.write(master, 9 * CHUNK, b"after it")  # restores chunk 9, at least
    assert 0 < service.status(shadow).copy_bits < CHUNKS / 3
    return master, shadow, kept


def extents_of(text):
    return [tuple(map(int, line.split())) for line in text.splitlines()]


def chunks_in(extents):
    return {n for at, size in extents for n in range(at // CHUNK, -(-(at + size) // CHUNK))}


def assert_list_is_right(master, kept, extents):
    """What is not listed is of the point in time; what is listed is what it was before."""
    now = master.read_bytes()
    listed = chunks_in(extents)
    for chunk in range(CHUNKS + 1):
        at = chunk * CHUNK
        old, new = kept[at : at + CHUNK], now[at : at + CHUNK]
        if chunk in listed:
            assert new == b"a mistake" + old[9:]
        elif chunk == 9:
            assert new == b"after it" + old[8:]
        else:
            assert new == old


def test_give_up_with_all_volumes_lists_what_is_missing(service, refused, aborted):
    master, shadow, kept = aborted
    left, pit = service.status(shadow).copy_bits, service.status(shadow).pit
    says = (master, f"{left} chunk", f"point in time {pit} of", f"'iiadm -u m {shadow}' would")
    refused(service, "iiadm", "--give-up", shadow, code=1, says=says)
    done = ok(service, "-n", "--give-up", shadow)
    status = service.status(shadow)
    assert (status.progress, status.copy_bits, status.offline) == ("idle", 0, ())
    extents = extents_of(done.stdout)
    assert len(chunks_in(extents)) == left
    assert_list_is_right(master, kept, extents)
    assert service.read(master) == master.read_bytes()
    assert service.read(shadow) == kept


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["kill", "restart"])
def test_give_up_outlasts_a_restart(service, aborted, how):
    master, shadow, kept = aborted
    ok(service, "-n", "--give-up", shadow)
    now = service.read(master)
    if how == "kill":
        service.kill()
        service.start()
    else:
        service.restart()
    assert service.status(shadow).progress == "idle"
    assert (service.read(master), service.read(shadow)) == (now, kept)


def test_rest_of_a_restore_that_was_given_up_is_not_overwritten_unasked(service, refused, aborted):
    """The master lacks it, and no other copy is known."""
    master, shadow, _ = aborted
    ok(service, "-n", "--give-up", shadow)
    pit = service.status(shadow).pit
    says = (shadow, f"the rest of point in time {pit} of", "given up", "-n")
    refused(service, "iiadm", "-u", shadow, code=1, says=says)
    refused(service, "iiadm", "-c", "s", shadow, code=1, says=says)
    if service.status(shadow).kind == "dependent":
        refused(service, "iiadm", "-d", shadow, code=1, says=(shadow, "wipe", "given up"))
    ok(service, "-n", "-u", shadow)
    service.wait(shadow)
    service.write(master, 0, b"later")
    ok(service, "-u", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


def test_rest_of_a_restore_is_not_overwritten_by_a_new_set_unasked(service, refused, aborted):
    """`-d` leaves an independent shadow as it is; a dependent one is wiped, after a question."""
    master, shadow, _ = aborted
    ok(service, "-n", "--give-up", shadow)
    status = service.status(shadow)
    wiped = status.kind == "dependent"
    ok(service, *(["-n"] if wiped else []), "-d", shadow)
    names = (master, shadow, status.bitmap)
    if not wiped:
        before = shadow.read_bytes()
        for end in (lambda: None, service.restart):
            end()
            says = (shadow, f"the rest of point in time {status.pit}", "given up", "-n")
            refused(service, "iiadm", "-e", "ind", *names, code=1, says=says)
        assert shadow.read_bytes() == before
        ok(service, "-n", "-e", "ind", *names)
        service.wait(shadow)
        ok(service, "-d", shadow)
    ok(service, "-e", "ind", *names)  # every other night


def test_restore_can_begin_anew_after_a_give_up(service, aborted):
    master, shadow, kept = aborted
    ok(service, "-n", "--give-up", shadow)
    ok(service, "-n", "-u", "m", shadow)
    service.wait(shadow)
    assert service.read(master) == kept


# -- the ways in which it happens -------------------------------------------------------------


def lose(service, path):
    service.stop()
    path.rename(f"{path}.away")
    service.start()


@pytest.mark.finding("K5.2")
def test_shadow_lost_in_mid_restore_leaves_a_way_out(service, refused, aborted, place):
    """K5: -u m, -d and -R were refused, and an empty file in its place was copied over."""
    master, shadow, kept = aborted
    lose(service, shadow)
    refused(service, "iiadm", "-n", "-u", "m", shadow, says=("-R",))
    for words in (["-d"], ["-n", "-R"]):
        refused(service, "iiadm", *words, shadow, says=("--give-up",))
    refused(service, "iiadm", "--give-up", shadow, code=1, says=(master, "half-way"))
    file = place / "rest"
    ok(service, "-n", "--give-up", "--extents", file, shadow)
    assert_list_is_right(master, kept, extents_of(file.read_text()))
    assert service.read(master) == master.read_bytes()
    service.write(master, 0, b"in use again")
    ok(service, "-n", "-R", shadow)
    service.wait(shadow)
    assert service.read(shadow) == service.read(master)


@pytest.mark.sampled(2)
@pytest.mark.parametrize("what", ["empty", "another's", "older"])
def test_stranger_in_the_place_of_a_needed_shadow_is_never_copied(
    service, refused, aborted, what
):
    """It has the right size and name; zeros were copied over the master."""
    master, shadow, kept = aborted
    service.stop()
    old = shadow.with_name("old shadow")
    shadow.rename(old)
    size = old.stat().st_size
    content = {"empty": bytes(size), "another's": os.urandom(size), "older": old.read_bytes()}
    shadow.write_bytes(content[what])
    service.start()
    before = master.read_bytes()
    for words in (["-u", "m"], ["-c", "m"], ["-R"]):
        refused(service, "iiadm", "-n", *words, shadow)
    assert "--give-up" in service.run("iiadm", "-n", "-R", shadow).stderr
    assert master.read_bytes() == before
    service.stop()
    old.rename(shadow)
    service.start()
    ok(service, "-n", "-R", shadow)  # its times have changed, so it is looked at again
    ok(service, "-n", "-u", "m", shadow)
    service.wait(shadow)
    assert service.read(master) == kept[: 9 * CHUNK] + b"after it" + kept[9 * CHUNK + 8 :]


@pytest.mark.finding("K5.3")
def test_both_volumes_lost_in_mid_restore_leave_a_way_out(service, refused, aborted):
    master, shadow, _ = aborted
    service.stop()
    master.rename(f"{master}.away")
    shadow.rename(f"{shadow}.away")
    service.start()
    refused(service, "iiadm", "-d", shadow, says=("--give-up",))
    ok(service, "-n", "--give-up", shadow)
    ok(service, "-n", "-d", shadow)
    assert service.client.status() == []


def test_lost_bitmap_of_a_dependent_restore_lists_everything(service, volume, place):
    """Nobody knows which chunks of the master are right; it is served again after a yes."""
    master, shadow = volume("m", CHUNKS * CHUNK), place / "s"
    service.enable("dep", master, shadow)
    for chunk in range(0, CHUNKS, 3):
        service.write(master, chunk * CHUNK, b"a mistake")
    service.flip("m", shadow)
    service.abort(shadow)
    service.kill()
    (place / "s.bmp").write_bytes(bytes((place / "s.bmp").stat().st_size))
    service.start()
    with pytest.raises(OSError, match="Input/output"):
        service.read(master)
    done = ok(service, "-n", "--give-up", shadow)
    assert extents_of(done.stdout) == [(0, CHUNKS * CHUNK)]
    assert service.read(master) == master.read_bytes()
    service.kill()
    service.start()
    assert service.status(shadow).progress == "idle"
    ok(service, "-n", "-R", shadow)
    assert service.read(shadow) == service.read(master)


# -- the command ------------------------------------------------------------------------------


def test_list_as_json_goes_to_a_new_file_only(service, refused, aborted, place):
    _, shadow, _ = aborted
    file = place / "rest"
    file.write_text("somebody's")
    left = service.status(shadow).copy_bits
    says = (file, "is there already")
    refused(service, "iiadm", "-n", "--give-up", "--extents", file, shadow, says=says)
    file.unlink()
    done = ok(service, "-n", "--json", "--give-up", "--extents", file, shadow)
    assert done.stdout == ""
    found = json.loads(file.read_text())
    assert (found["set"], found["chunks"]) == (str(shadow), left)
    assert found["pit"] == service.status(shadow).pit
    assert len(chunks_in(found["extents"])) == left


def test_give_up_of_what_is_no_aborted_restore_is_refused(service, refused, volume, place):
    service.enable("ind", volume("m"), place / "s")
    service.wait(place / "s")
    refused(service, "iiadm", "-n", "--give-up", place / "s", says=("nothing to give up",))


def test_give_up_of_an_open_master_is_refused(service, refused, aborted, place):
    master, shadow, _ = aborted
    words = ("-n", "--give-up", "--extents", place / "rest", shadow)
    with service.path(master).open("rb"):
        refused(service, "iiadm", *words, says=(str(os.getpid()),))
    ok(service, *words)  # the refusal has left no file


def test_list_that_cannot_be_printed_gives_nothing_up(service, aborted):
    """It is all that is known of what the master lacks; nor does a full stderr change anything."""
    _, shadow, _ = aborted
    left = service.status(shadow).copy_bits
    command = f"{BIN}/iiadm --socket {service.socket} -n --give-up {shadow}"

    def run(redirection):
        words = ["sh", "-c", f"{command} {redirection}"]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    for redirection in ("> /dev/full", ">&-"):
        done = run(redirection)
        assert done.returncode == 2
        assert "standard output" in done.stderr
        assert "nothing was given up; " in done.stderr
        status = service.status(shadow)
        assert (status.progress, status.copy_bits) == ("to_master", left)
    done = run("2> /dev/full")
    assert done.returncode == 0
    assert len(chunks_in(extents_of(done.stdout))) == left


@pytest.mark.sampled(2)
@pytest.mark.parametrize("how", ["on", "kill"])
def test_give_up_whose_bits_cannot_be_written_changes_nothing(service, aborted, how):
    """The restore can still be finished, with every chunk that it had to bring."""
    master, shadow, kept = aborted
    with service.files_end_at(24 * 1024):
        assert service.run("iiadm", "-n", "--give-up", shadow).returncode == 2
    assert service.status(shadow).progress == "to_master"
    if how == "kill":
        service.kill()
        service.start()
    if service.status(shadow).kind == "dependent" and how == "kill":
        return  # its bits are lost with the bitmap: see the test above
    ok(service, "-n", "-R", shadow)
    ok(service, "-n", "-u", "m", shadow)
    service.wait(shadow)
    expected = kept[: 9 * CHUNK] + b"after it" + kept[9 * CHUNK + 8 :]
    assert service.read(master) in (expected, kept)


@pytest.mark.sampled(3)
@pytest.mark.finding("K5.1")
@pytest.mark.parametrize("limit", [1, 12 * 1024, 24 * 1024])
@pytest.mark.parametrize("grouped", [False, True])
def test_restore_whose_header_fails_keeps_the_good_copy(service, volume, place, limit, grouped):
    """K5: the shadow is the only good copy, and nothing that is advised copies over it."""
    master, shadow = volume("m", 300 * CHUNK), place / "s"
    kept = master.read_bytes()
    service.enable("ind", master, shadow, group="g")
    service.enable("ind", volume("m2", 300 * CHUNK), place / "s2", group="g")
    service.wait(shadow, place / "s2")
    service.write(master, 3 * CHUNK, b"a mistake")
    target = Target(group="g") if grouped else Target((str(shadow),))
    request = protocol.Update("m", False, target, sure=True)
    with service.files_end_at(limit), contextlib.suppress(errors.StorageError):
        service.client.call(request, list[SetStatus])
        service.wait(shadow)
        return  # the slot that could be written was the one
    assert service.status(shadow).offline in ((), ("bitmap",))
    assert service.read(shadow) == kept
    assert shadow.read_bytes() == kept
    ok(service, "-R", shadow)
    service.wait(shadow)
    assert shadow.read_bytes() == kept
    ok(service, "-n", "-u", "m", shadow)
    service.wait(shadow)
    assert service.read(master) == kept
