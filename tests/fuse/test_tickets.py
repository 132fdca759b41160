"""The ticket beside the shadow is that of the export in force, whatever came in between."""

import json
import os
import sqlite3
import struct
import zlib
from contextlib import closing

import bitmap_format as fmt
import pytest
from harness import CHUNK

SIZE = 300 * CHUNK


@pytest.fixture
def night(service, new_service, volume, place):
    """A set of `service`, and another host: lend it, work there, take it back."""

    class Night:
        def __init__(self):
            self.service, self.other = service, new_service("other")
            self.master, self.shadow = volume("m", SIZE), place / "s"
            self.ticket, self.second = place / "s.iiticket", place / "second"
            service.enable("ind", self.master, self.shadow)
            service.wait(self.shadow)

        def run(self, service, *words):
            done = service.run("iiadm", *words)
            assert done.returncode == 0, done.stderr
            return done.stderr

        def export(self):
            self.run(service, "-E", self.shadow)

        def borrow(self, bitmap=None, chunk=None):
            self.run(self.other, "-I", self.shadow, bitmap or self.second)
            if chunk is not None:
                self.other.write(self.shadow, chunk * CHUNK, os.urandom(100))
            self.other.disable(self.shadow)

        def join(self, bitmap=None):
            return self.run(service, "-J", self.shadow, bitmap or self.second)

        def update(self):
            service.flip("s", self.shadow)
            service.wait(self.shadow)
            assert service.read(self.shadow) == service.read(self.master)

        def number(self):
            return json.loads(self.ticket.read_text())["sets"][0]["export_number"]

    return Night()


# -- export -----------------------------------------------------------------------------------


def test_start_replaces_the_ticket_of_an_older_export(night):
    """F5: a kill came after the header of the second export and before its ticket's name."""
    night.export()
    old = night.ticket.read_bytes()
    night.borrow(chunk=3)
    night.join()
    night.update()
    night.export()
    night.service.kill()
    os.rename(night.ticket, f"{night.ticket}.draft")
    night.ticket.write_bytes(old)
    night.service.start()
    assert night.number() == 2
    night.borrow(chunk=5)
    night.join()
    night.update()


def test_export_whose_ticket_finds_no_place_says_that_the_set_is_exported(night):
    """The draft is named, which works as the ticket; a start puts it into its place."""
    night.ticket.mkdir()
    done = night.service.run("iiadm", "-E", night.shadow)
    assert done.returncode == 2
    assert "is exported" in done.stderr
    assert "nothing was changed" not in done.stderr
    draft = f"{night.ticket}.draft"
    assert draft in done.stderr
    assert night.service.status(night.shadow).custody == "exported"
    night.run(night.other, "-I", night.shadow, night.second, draft)
    night.other.write(night.shadow, CHUNK, b"with the draft")
    night.other.disable(night.shadow)
    night.ticket.rmdir()
    night.service.restart()
    assert night.number() == 1
    night.join()
    night.update()


# -- import -----------------------------------------------------------------------------------


def test_import_that_brought_nothing_can_be_made_again_with_its_bitmap(night):
    """As after a kill of the importing service, whose bitmap counts as closed until it is known."""
    night.export()
    night.borrow()
    night.borrow(chunk=9)
    done = night.other.run("iiadm", "-I", night.shadow, night.second)
    assert done.returncode == 2, "this one has brought something"
    night.join()
    night.update()


def test_join_counts_no_bits_behind_the_last_chunk(night):
    """F13, F22: a secondary bitmap with such bits, its checksums right, does not wedge the set."""
    night.export()
    night.borrow(chunk=3)
    set_bits_behind_the_last_chunk(night.second)
    night.join()
    status = night.service.status(night.shadow)
    assert status.shadow_bits <= status.chunks
    night.update()
    night.export()


def set_bits_behind_the_last_chunk(path):
    """In the first sector of the shadow bitmap, with the checksum that the format asks for."""
    blob = bytearray(path.read_bytes())
    uuid = fmt.read(bytes(blob)).uuid
    blob[24576 + 400] = 0xFF
    place = zlib.crc32(struct.pack("<BQ", 1, 0), zlib.crc32(uuid))
    crc = zlib.crc32(blob[24576 : 24576 + 508], place)
    blob[24576 + 508 : 24576 + 512] = struct.pack("<I", crc)
    path.write_bytes(blob)
    assert fmt.read(bytes(blob)).shadow.bit_count() < 300


# -- two imports of one export ----------------------------------------------------------------


def test_join_names_every_other_import_of_the_export(night):
    """The second one's bitmap lacks what was written under the first; both joined, none is lost."""
    night.export()
    night.borrow(chunk=3)
    third = night.second.with_name("third")
    night.borrow(third, chunk=250)
    night.service.restart()  # the ticket keeps what the imports have noted in it
    assert str(night.second) in night.join(third)
    assert night.join() == ""
    night.update()
    night.export()
    night.borrow(chunk=7)
    assert night.join() == "", "those of an older export do not count"


def test_import_needs_no_ticket_that_can_be_written(night, place):
    night.export()
    os.rename(night.ticket, place / "elsewhere")
    night.ticket.mkdir()
    night.run(night.other, "-I", night.shadow, night.second, place / "elsewhere")
    night.other.write(night.shadow, 0, b"written")
    night.other.disable(night.shadow)
    night.join()
    night.update()


@pytest.fixture
def two(night):
    """Two imports of one export, of which the second is joined; what the first wrote is unknown."""
    night.export()
    night.borrow(chunk=3)
    night.third = night.second.with_name("third")
    night.borrow(night.third, chunk=250)
    said = night.join(night.third)
    assert str(night.second) in said
    assert "copy everything" in said
    assert night.service.read(night.shadow) != night.service.read(night.master)
    return night


def _copied(night, program, *words):
    """(what an update says, chunks that it has copied)"""
    done = night.service.run(program, *words)
    assert done.returncode == 0, done.stderr
    night.service.wait(night.shadow)
    return done.stderr, night.service.status(night.shadow).copied_chunks


@pytest.mark.sampled(3)
@pytest.mark.finding("K3.6")
@pytest.mark.parametrize("how", ["iiadm", "iiresync"])
@pytest.mark.parametrize("between", ["nothing", "restart", "kill", "no ticket", "no ticket, kill"])
def test_update_beside_an_unjoined_import_copies_everything(two, how, between):
    """K3: its writes are in no bitmap here, so equal bits mean nothing."""
    if "no ticket" in between:
        two.ticket.unlink()
    if between == "restart":
        two.service.restart()
    if "kill" in between:
        two.service.kill()
        two.service.start()
    assert two.service.status(two.shadow).unjoined == (str(two.second),)
    words = ("-u", "s", two.shadow) if how == "iiadm" else ("s", two.shadow)
    for _ in range(2):  # it may still write
        said, chunks = _copied(two, how, *words)
        assert f"the import with {two.second} is not joined" in said
        assert chunks == SIZE // CHUNK
        assert two.service.read(two.shadow) == two.service.read(two.master)
    events = [event for _, event in _history(two) if str(two.second) in event]
    assert any(event.startswith("update of the shadow (everything") for event in events)


def _history(night):
    """(shadow, event), oldest first."""
    with closing(sqlite3.connect(night.service.state / "state.db")) as db:
        rows = db.execute("SELECT shadow, event, why FROM history ORDER BY rowid")
        return [(shadow, f"{event} ({why})") for shadow, event, why in rows]


def test_restore_beside_an_unjoined_import_copies_everything(two):
    shown = two.service.read(two.shadow)
    _copied(two, "iiadm", "-n", "-u", "m", two.shadow)
    assert two.service.read(two.master) == two.service.read(two.shadow) == shown


@pytest.mark.parametrize("how", ["joined", "next export"])
def test_unjoined_import_is_over_when_it_is(two, how):
    if how == "joined":
        two.join()
    else:
        _copied(two, "iiadm", "-u", "s", two.shadow)
        two.export()
        two.borrow(two.third, chunk=9)
        two.join(two.third)
    assert two.service.status(two.shadow).unjoined == ()
    two.service.restart()
    said, chunks = _copied(two, "iiadm", "-u", "s", two.shadow)
    assert said == ""
    assert 0 < chunks < 10
    assert two.service.read(two.shadow) == two.service.read(two.master)


def test_two_imports_with_bitmaps_of_one_name_are_two(night):
    """On two hosts a path may be that of two volumes: the second must not hide the first."""
    night.export()
    night.borrow(chunk=3)
    night.second.rename(night.second.with_name("of-another-host"))
    night.borrow(chunk=250)
    assert str(night.second) in night.join()
    said, chunks = _copied(night, "iiadm", "-u", "s", night.shadow)
    assert "is not joined" in said
    assert chunks == SIZE // CHUNK
    night.update()
