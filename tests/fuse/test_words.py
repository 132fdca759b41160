"""What people are told: of points in time that nobody knows, of imports, before a restore."""

import pytest
from harness import CHUNK

from iifuse.core.header import SLOT_BYTES
from iifuse.store.statedb import StateDB

SIZE = 8 * CHUNK


@pytest.fixture
def pair(service, volume, place):
    """Two sets of their own masters in group `both`."""
    shadows = place / "s1", place / "s2"
    for number, shadow in enumerate(shadows):
        service.enable("ind", volume(f"m{number}", SIZE), shadow, group="both")
    service.wait(*shadows)
    return shadows


def doubt(service, *shadows):
    """The bitmap volumes are not believed at the next start."""
    service.stop()
    db = StateDB(str(service.state))
    for shadow in shadows:
        db.doubt(str(shadow), "its disk failed")
    db.close()
    service.start()


@pytest.mark.finding("K15.10")
def test_point_in_time_that_nobody_knows_has_no_date(service, pair):
    shadow = pair[0]
    doubt(service, shadow)
    bitmap = f"{shadow}.bmp"
    said = [service.run("iiadm", *w).stdout for w in (["-i"], ["-i", "--json"], ["-l"])]
    with open(bitmap, "r+b") as file:
        file.write(bytes(2 * SLOT_BYTES))  # no header tells it either
    said += [service.run("iiadm", word, shadow).stderr for word in ("-R", "-u")]
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0
    said += [service.run("iiadm", *w).stdout for w in (["-i"], ["-i", "--json"])]
    service.stop()
    said.append(service.run("iibitmap", "dump", bitmap).stdout)
    assert not any("1970" in text for text in said), said
    assert "Latest modified time: unknown (point in time unknown)" in said[0]
    assert "header.pit.time: unknown" in said[-1]


@pytest.mark.finding("K15.11")
def test_import_that_iiadm_has_made_is_joined_by_the_ticket(service, new_service, pair, place):
    shadow, other = pair[0], new_service("other")
    assert service.run("iiexport", "-g", "both").returncode == 0
    for one in pair:
        assert other.run("iiadm", "-I", one, f"{one}.b2").returncode == 0
    other.write(shadow, CHUNK, b"over there")
    other.disable(*pair)
    done = service.run("iijoin", place / "both.iiticket")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"{one}: joined, bitmap {one}.b2\n" for one in pair)
    assert service.status(shadow).shadow_bits == 1
    again = service.run("iijoin", f"{shadow}.iiticket")
    assert (again.returncode, "joined already" in again.stderr) == (0, True)


def test_several_imports_that_are_not_joined_are_named_by_the_join(service, new_service, pair):
    shadow = pair[0]
    assert service.run("iiadm", "-E", shadow).returncode == 0
    bitmaps = [f"{shadow}.{name}" for name in ("one", "two")]
    for number, bitmap in enumerate(bitmaps):
        other = new_service(f"other{number}")
        assert other.run("iiadm", "-I", shadow, bitmap).returncode == 0
        other.disable(shadow)
    done = service.run("iijoin", f"{shadow}.iiticket")
    assert done.returncode == 2
    assert all(f"'iiadm -J {shadow} {bitmap}'" in done.stderr for bitmap in bitmaps)
    assert service.run("iiadm", "-J", shadow, bitmaps[0]).returncode == 0
    done = service.run("iijoin", f"{shadow}.iiticket")
    assert (done.returncode, done.stdout) == (0, f"{shadow}: joined, bitmap {bitmaps[1]}\n")


def test_ticket_that_nobody_has_imported_says_how_the_shadow_is_taken_back(service, pair):
    shadow = pair[0]
    assert service.run("iiadm", "-E", shadow).returncode == 0
    done = service.run("iijoin", f"{shadow}.iiticket")
    assert f"'iiadm -R {shadow}'" in done.stderr
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0


def test_join_to_a_set_whose_bitmap_has_failed_says_so_and_what_is_left(service, pair):
    shadow = pair[0]
    assert service.run("iiadm", "-E", shadow).returncode == 0
    doubt(service, shadow)
    done = service.run("iiadm", "-J", shadow, f"{shadow}.b2")
    assert done.returncode == 2
    assert "its own bitmap volume has failed" in done.stderr
    assert f"'iiadm -R {shadow}'" in done.stderr


def test_question_before_restores_says_of_each_what_is_lost(service, pair):
    for number, shadow in enumerate(pair):
        service.write(service.status(shadow).master, number * CHUNK, b"since then")
    service.write(service.status(pair[1]).master, 0, b"since then")
    for words in (["iiadm", "-g", "both", "-u", "m"], ["iiresync", "m", *pair]):
        done = service.run(*words)
        assert done.returncode == 1
        for shadow, amount in zip(pair, ("1 chunk (32 KiB)", "2 chunks (64 KiB)"), strict=True):
            master = service.status(shadow).master
            (line,) = [text for text in done.stderr.splitlines() if f"{master}: " in text]
            assert f"{amount} of it, from {shadow}, which holds point in time 1 of " in line
            assert "what was written to it since then is lost" in line


def test_command_on_a_group_tells_what_became_of_each_set(service, pair):
    shadow = pair[0]
    row = service.status(shadow)
    service.write(row.master, CHUNK, b"since then")
    done = service.run("iiadm", "-g", "both", "-n", "-u", "m")
    said = done.stderr.splitlines()
    assert said[0] == f"{shadow}: {row.master} is restored from it, 1 chunk (32 KiB)"
    assert len(said) == 2
    assert done.stdout == ""
    assert service.run("iiadm", "-g", "both", "-w").stderr == ""
    assert service.run("iiadm", "-g", "both", "-d").stderr.splitlines() == [
        f"{one}: disabled" for one in pair
    ]
