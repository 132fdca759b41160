"""A bitmap that is not what it was: refused with the reason, and nothing is guessed (F13, F14)."""

import os
import shutil
import subprocess

import pytest
from harness import CHUNK
from wrong_pieces import BAD_BITMAPS, SIZE, stopped


def said(service, *words):
    done = service.run("iiadm", *words)
    return done.returncode, done.stdout + done.stderr


def brought_back(service, piece, *sure):
    """-R, then an update: master and shadow are equal."""
    code, text = said(service, *sure, "-R", piece.shadow)
    assert code == 0, text
    assert "count as different" in text
    assert service.status(piece.shadow).shadow_bits == service.status(piece.shadow).chunks
    assert service.read(piece.shadow) == piece.pit
    service.write(piece.master, 2 * CHUNK, b"later")
    service.flip("s", piece.shadow)
    service.wait(piece.shadow)
    assert service.read(piece.shadow) == service.read(piece.master)
    assert service.read(piece.master)[: 2 * CHUNK] == piece.live[: 2 * CHUNK]


def is_refused(service, piece, reason, offline):
    status = service.status(piece.shadow)
    assert set(status.offline) == offline, f"{piece.name}: {status}"
    assert reason in status.offline_reason, f"{piece.name}: {status.offline_reason}"
    assert str(piece.bitmap) in status.offline_reason
    assert status.offline_reason in said(service, "-i", piece.shadow)[1]
    code, text = said(service, "-u", piece.shadow)
    assert code == 2
    replaced = "the bitmap was replaced" if status.replaced else "offline"
    assert ("waiting for the bitmap" if status.waiting else replaced) in text
    assert service.read(piece.master) == piece.live, f"{piece.name}: the master is not served"


def test_independent_set_with_a_bad_bitmap_shows_both_volumes_and_refuses_to_guess(service, place):
    """F13, F32: the shadow is whole by itself; an update is refused until -R has all differ."""
    pieces = stopped(service, place, "ind", [*BAD_BITMAPS, "good"])
    for name, (damage, _) in BAD_BITMAPS.items():
        damage(pieces[name].bitmap)
    found = {name: _content(pieces[name].bitmap) for name in BAD_BITMAPS}
    service.start()
    for name, (_, reason) in BAD_BITMAPS.items():
        piece = pieces[name]
        is_refused(service, piece, reason, {"bitmap"})
        assert service.read(piece.shadow) == piece.pit, name
        assert piece.look() == piece.raw, f"{name}: a volume was written"
        assert _content(piece.bitmap) == found[name], f"{name}: the bitmap was written"
    assert service.status(pieces["good"].shadow).shadow_bits == 2
    for name in ("headers garbled", "zero bytes", "newer version"):
        if name == "zero bytes":
            pieces[name].bitmap.unlink()  # as the message asks for: -R makes it anew
        brought_back(service, pieces[name])


def _content(path):
    return path.read_bytes() if path.is_file() else os.path.lexists(path)


def test_dependent_set_with_a_bad_bitmap_never_shows_its_shadow(service, place):
    """F13, F32: nobody knows which chunks the shadow has: EIO, and the master goes on."""
    pieces = stopped(service, place, "dep", [*BAD_BITMAPS, "bits garbled", "good"])
    for name, (damage, _) in BAD_BITMAPS.items():
        damage(pieces[name].bitmap)
    with pieces["bits garbled"].bitmap.open("r+b") as file:
        file.seek(24576)
        file.write(b"\x7f")
    service.start()
    for name, (_, reason) in BAD_BITMAPS.items():
        # One that is only away may still know what the shadow has: its set waits.
        waits = name in ("nothing", "directory", "fifo")
        is_refused(service, pieces[name], reason, {"bitmap"} if waits else {"shadow", "bitmap"})
    is_refused_shadow = service.status(pieces["bits garbled"].shadow)
    assert set(is_refused_shadow.offline) == {"shadow"}
    assert "damaged" in is_refused_shadow.offline_reason
    for name in [*BAD_BITMAPS, "bits garbled"]:
        piece = pieces[name]
        with pytest.raises(OSError):
            service.read(piece.shadow)
        assert piece.look() == piece.raw, f"{name}: a volume was written"
        service.write(piece.master, 0, b"goes on")
        assert service.read(piece.master)[:7] == b"goes on"
    assert service.read(pieces["good"].shadow) == pieces["good"].pit


def test_bits_of_an_independent_set_that_were_garbled_count_as_different(service, place):
    """F13: the sector's chunks are copied again, and the log says why before that happens."""
    pieces = stopped(service, place, "ind", ["shadow bits", "copy bits", "longer"])
    for name, at in (("shadow bits", 24576), ("copy bits", 24576 + 512 + 70)):
        blob = bytearray(pieces[name].bitmap.read_bytes())
        blob[at] ^= 1
        pieces[name].bitmap.write_bytes(blob)
    with pieces["longer"].bitmap.open("ab") as file:
        file.write(os.urandom(70_000))
    log_before = len(service.log.read_text())
    service.start()
    log = service.log.read_text()[log_before:]
    for name in ("shadow bits", "copy bits"):
        status = service.status(pieces[name].shadow)
        assert (status.offline, status.shadow_bits) == ((), status.chunks)
        assert f"{pieces[name].shadow}: sectors of its bitmap are damaged" in log
    assert service.status(pieces["longer"].shadow).shadow_bits == 2
    for piece in pieces.values():
        assert service.read(piece.shadow) == piece.pit
        assert service.read(piece.master) == piece.live
        service.flip("s", piece.shadow)
        service.wait(piece.shadow)
        assert service.read(piece.shadow) == service.read(piece.master) == piece.live


def test_bitmaps_that_were_mixed_up_are_refused_with_both_names(service, place):
    """F14: the bitmap of another set, a copy of one used for two sets, two that changed places."""
    pieces = stopped(service, place, "ind", ["one", "two", "three", "twin"])
    kept = pieces["one"].bitmap.read_bytes()
    pieces["one"].bitmap.write_bytes(pieces["two"].bitmap.read_bytes())
    pieces["two"].bitmap.write_bytes(kept)
    shutil.copy(pieces["three"].bitmap, pieces["twin"].bitmap)
    service.start()
    for name in ("one", "two", "twin"):
        is_refused(service, pieces[name], "another set", {"bitmap"})
        uuid = str(service.status(pieces[name].shadow).uuid)
        assert uuid in service.status(pieces[name].shadow).offline_reason
        assert service.read(pieces[name].shadow) == pieces[name].pit
    assert service.status(pieces["three"].shadow).shadow_bits == 2
    code, text = said(service, "-R", pieces["twin"].shadow)
    assert (code, "that was not disabled" in text) == (1, True), text
    brought_back(service, pieces["twin"], "-n")
    assert service.read(pieces["three"].shadow) == pieces["three"].pit


def test_bitmap_of_another_volume_size_is_refused(service, place):
    """F13, F14: a header that asks for other volumes than the set has."""
    pieces = stopped(service, place, "ind", ["smaller"])
    piece = pieces["smaller"]
    service.start()
    other = place / "other"
    other.write_bytes(os.urandom(SIZE - CHUNK))
    service.enable("ind", other, place / "other.s", place / "other.b")
    service.wait(place / "other.s")
    service.stop()
    shutil.copy(place / "other.b", piece.bitmap)
    service.start()
    is_refused(service, piece, "another set", {"bitmap"})


def test_bits_of_a_killed_service_are_at_least_what_was_written(service, place):
    """F15: an unclean header; bits that were marked ahead count, and none that is needed lacks."""
    pieces = stopped(service, place, "ind", ["unclean"]) | stopped_more(service, place)
    service.start()
    for piece in pieces.values():
        service.write(piece.master, 4 * CHUNK, b"just before the kill")
        piece.live = service.read(piece.master)
    service.kill()
    service.start()
    marked = service.status(pieces["unclean"].shadow)
    assert (marked.offline, 3 <= marked.shadow_bits <= marked.chunks) == ((), True)
    exact = service.status(pieces["exact"].shadow)
    assert (exact.offline, exact.shadow_bits) == ((), 3)
    for piece in pieces.values():
        assert service.read(piece.shadow) == piece.pit
        assert service.read(piece.master) == piece.live
        service.flip("s", piece.shadow)
        service.wait(piece.shadow)
        assert service.read(piece.shadow) == piece.live


def stopped_more(service, place):
    service.start()
    return stopped(service, place, "dep", ["exact"])


@pytest.fixture
def lent(service, new_service, place):
    """A set that was exported, and an import of it in a second service; both are down."""
    (piece,) = stopped(service, place, "ind", ["lent"]).values()
    service.start()
    service.flip("s", piece.shadow)
    service.wait(piece.shadow)
    assert said(service, "-E", piece.shadow)[0] == 0
    other = new_service("other")
    second = place / "second"
    assert other.run("iiadm", "-I", piece.shadow, second).returncode == 0
    other.write(piece.shadow, 4 * CHUNK, b"written by the importer")
    return piece, other, second


@pytest.mark.parametrize("closed", [True, False])
def test_bitmap_of_an_import_is_not_taken_for_the_main_one(service, lent, closed):
    """F14, F23: it has the UUID of the set, closed or not; the set must not end as disabled."""
    piece, other, second = lent
    if closed:
        other.disable(piece.shadow)
    else:
        other.kill()
    sure = [] if closed else ["-n"]
    assert said(service, *sure, "-J", piece.shadow, second)[0] == 0
    piece.pit, piece.live = service.read(piece.shadow), service.read(piece.master)
    service.stop()
    shutil.copy(second, piece.bitmap)
    service.start()
    is_refused(service, piece, "another role: imported", {"bitmap"})
    assert service.read(piece.shadow) == piece.pit
    brought_back(service, piece)


def test_main_bitmap_is_not_taken_for_that_of_an_import(service, lent):
    """F14: what the importer wrote would be forgotten; its set waits for its own bitmap."""
    piece, other, second = lent
    shown = other.read(piece.shadow)
    other.stop()
    service.stop()
    kept = second.read_bytes()
    shutil.copy(piece.bitmap, second)
    other.start()
    status = other.status(piece.shadow)
    assert "another role: main" in status.offline_reason
    with pytest.raises(OSError):
        other.write(piece.shadow, 0, b"would be noted nowhere")
    assert other.read(piece.shadow) == shown
    other.stop()
    second.write_bytes(kept)
    service.start()
    code, text = said(service, "-n", "-J", piece.shadow, second)
    assert code == 0, text
    service.flip("s", piece.shadow)
    service.wait(piece.shadow)
    assert service.read(piece.shadow) == service.read(piece.master)


# -- the state directory ----------------------------------------------------------------------


def refused_start(service):
    """A start that fails in words; what it said."""
    done = subprocess.run(
        service.command(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert not os.path.ismount(service.mountpoint)
    return done.stderr


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("state.db", lambda blob: b"no database at all" * 500, "not a database"),
        ("state.db", lambda blob: blob[:5000], "malformed"),
        ("state.db", lambda blob: blob[:60] + (77).to_bytes(4, "big") + blob[64:], "version 77"),
        ("transitions", lambda blob: blob[: len(blob) // 2], "cannot be read"),
    ],
    ids=["no database", "cut", "newer", "record cut"],
)
def test_damaged_state_directory_is_refused_and_touches_nothing(
    service, place, file, damage, reason
):
    """F13, F32: with the file restored all sets are back."""
    pieces = stopped(service, place, "dep", ["one", "two"])
    path = service.state / file
    good = path.read_bytes()
    path.write_bytes(damage(good))
    bitmaps = [piece.bitmap.read_bytes() for piece in pieces.values()]
    said = refused_start(service)
    assert str(path) in said
    assert reason in said
    assert bitmaps == [piece.bitmap.read_bytes() for piece in pieces.values()]
    assert [p.look() for p in pieces.values()] == [p.raw for p in pieces.values()]
    path.write_bytes(good)
    service.start()
    for piece in pieces.values():
        assert (service.read(piece.shadow), service.read(piece.master)) == (piece.pit, piece.live)
