"""Export, import and join: what does not fit is refused, and nothing is changed."""

import json
import os
import shutil
from uuid import uuid4

import pytest
from devices import held_open
from harness import CHUNK

SIZE = 40 * CHUNK + 1000
NEED = 24576 + 2 * 512


@pytest.fixture
def lent(service, new_service, volume, place):
    """A set that is exported by `service` and not yet imported by `other`."""

    class TicketEntry:
        def __init__(self):
            self.service, self.other = service, new_service("other")
            self.master, self.shadow = volume("m", SIZE), place / "s"
            self.second = place / "second"
            service.enable("ind", self.master, self.shadow)
            service.wait(self.shadow)
            self.export()

        def export(self):
            assert service.run("iiadm", "-E", self.shadow).returncode == 0
            self.ticket = self.shadow.with_name("s.iiticket")

        def borrow(self, bitmap=None, *ticket):
            """Import, write, disable there."""
            words = (self.shadow, bitmap or self.second, *ticket)
            done = self.other.run("iiadm", "-I", *words)
            assert done.returncode == 0, done.stderr
            self.other.write(self.shadow, 7 * CHUNK, os.urandom(100))
            self.other.disable(self.shadow)

        def join(self, *words):
            done = service.run("iiadm", "-J", self.shadow, *(words or (self.second,)))
            assert done.returncode == 0, done.stderr

    return TicketEntry()


def edited(lent, path, **fields):
    """A ticket with some fields changed."""
    content = json.loads(lent.ticket.read_text())
    content["sets"][0].update(fields)
    path.write_text(json.dumps(content))
    return path


# -- import -----------------------------------------------------------------------------------


def test_import_without_a_ticket_is_refused_and_says_where_it_is(refused, lent, place):
    os.rename(lent.ticket, place / "elsewhere")
    words = ("-I", lent.shadow, lent.second)
    refused(lent.other, "iiadm", *words, says=(lent.ticket, "beside the shadow"))
    refused(lent.other, "iiadm", *words, place / "no ticket", says=(place / "no ticket",))
    lent.borrow(None, place / "elsewhere")


def test_import_with_a_bad_ticket_is_refused(refused, lent, place):
    bad = place / "bad.iiticket"
    words = ("-I", lent.shadow, lent.second, bad)
    for content in (b"", b"no json", b"[]", b"{}", b"\xff\xfe", b"[" * 100_000, bytes(5 << 20)):
        bad.write_bytes(content)
        refused(lent.other, "iiadm", *words, says=(bad,), todo=False)
    for fields in (
        {"size_bytes": -1}, {"size_bytes": 1 << 62}, {"chunk_bytes": 512}, {"pit": 0},
        {"export_number": 0}, {"shadow": "relative"}, {"uuid": "none"}, {"pit_time": "soon"},
    ):  # fmt: skip
        edited(lent, bad, **fields)
        refused(lent.other, "iiadm", *words, todo=False)


def test_import_of_a_smaller_shadow_is_refused(refused, lent, volume, place):
    small = volume("small", SIZE - 1)
    words = ("-I", small, lent.second, lent.ticket)
    refused(lent.other, "iiadm", *words, says=(small, SIZE))


def test_import_with_a_bitmap_that_is_too_small_is_refused(refused, lent):
    lent.second.write_bytes(bytes(NEED - 1))
    refused(lent.other, "iiadm", "-I", lent.shadow, lent.second, says=(lent.second, NEED))


def test_import_of_volumes_in_use_is_refused(refused, lent, place):
    words = ("-I", lent.shadow, lent.second)
    with held_open(lent.shadow):
        refused(lent.other, "iiadm", *words, says=(lent.shadow, "open"))
    lent.second.write_bytes(bytes(NEED))
    with held_open(lent.second):
        refused(lent.other, "iiadm", *words, says=(lent.second, "open"))
    refused(lent.other, "iiadm", "-I", lent.shadow, lent.shadow, code=1, todo=False)
    (place / "alias").symlink_to(lent.shadow)
    refused(lent.other, "iiadm", "-I", lent.shadow, place / "alias", says=("same volume",))
    refused(lent.other, "iiadm", "-I", lent.shadow, place / "no/dir/b", says=(place / "no/dir/b",))
    refused(lent.other, "iiadm", "-I", place / "gone", lent.second, lent.ticket, says=("gone",))


def test_import_by_the_service_that_exported_is_refused(refused, lent):
    says = (lent.shadow, f"'iijoin {lent.ticket}'")
    refused(lent.service, "iiadm", "-I", lent.shadow, lent.second, says=says)


def test_import_into_the_main_bitmap_is_refused(refused, lent):
    main = lent.shadow.with_name("s.bmp")
    refused(lent.other, "iiadm", "-I", lent.shadow, main, says=(main,))


def test_same_import_into_the_same_bitmap_is_refused_until_joined(refused, lent):
    lent.borrow()
    words = ("-I", lent.shadow, lent.second)
    refused(lent.other, "iiadm", *words, says=(lent.second, "join"))
    lent.join()
    refused(lent.other, "iiadm", *words, says=(lent.shadow,))
    lent.service.flip("s", lent.shadow)
    lent.service.wait(lent.shadow)
    old = lent.ticket.read_bytes()
    lent.export()
    lent.borrow()  # the second night uses the same bitmap
    lent.join()
    lent.service.flip("s", lent.shadow)
    lent.service.wait(lent.shadow)
    lent.export()
    older = lent.shadow.with_name("older.iiticket")
    older.write_bytes(old)
    refused(lent.other, "iiadm", *words, older, says=("newest ticket",))


def test_join_while_the_importer_lives_is_refused(refused, lent):
    assert lent.other.run("iiadm", "-I", lent.shadow, lent.second).returncode == 0
    for sure in ([], ["-n"]):
        words = (*sure, "-J", lent.shadow, lent.second)
        refused(lent.service, "iiadm", *words, says=(lent.second, "another service: iifuse"))
    assert lent.service.status(lent.shadow).custody == "exported"


# -- join -------------------------------------------------------------------------------------


def test_join_of_an_unclosed_bitmap_needs_a_yes(refused, lent):
    """F23: its order is crash-safe, so that with a yes it is merged as it stands."""
    assert lent.other.run("iiadm", "-I", lent.shadow, lent.second).returncode == 0
    lent.other.write(lent.shadow, 3 * CHUNK, b"there")
    lent.other.kill()  # the host is lost
    words = ("-J", lent.shadow, lent.second)
    refused(lent.service, "iiadm", *words, code=1, says=(lent.second, "-n"))
    done = lent.service.run("iiadm", "-n", *words)
    assert done.returncode == 0, done.stderr
    lent.service.flip("s", lent.shadow)
    lent.service.wait(lent.shadow)
    assert lent.service.read(lent.shadow) == lent.service.read(lent.master)


def test_join_with_the_main_bitmap_or_none_is_refused(refused, lent, place):
    """F14, F22."""
    main, gone = lent.shadow.with_name("s.bmp"), place / "gone"
    refused(lent.service, "iiadm", "-J", lent.shadow, main, says=(main,))
    refused(lent.service, "iiadm", "-J", lent.shadow, gone, says=(gone,), todo=False)
    refused(lent.service, "iiadm", "-J", lent.shadow, place, says=(place,), todo=False)


def test_join_with_the_bitmap_of_another_set_is_refused(refused, lent, volume, place):
    """F14, F22."""
    master, shadow = volume("m2", SIZE), place / "s2"
    lent.service.enable("ind", master, shadow)
    lent.service.wait(shadow)
    assert lent.service.run("iiadm", "-E", shadow).returncode == 0
    assert lent.other.run("iiadm", "-I", shadow, place / "of s2").returncode == 0
    lent.other.disable(shadow)
    words = ("-J", lent.shadow, place / "of s2")
    refused(lent.service, "iiadm", *words, code=1, says=(place / "of s2", "another set"))


def test_join_after_an_import_with_another_ticket_is_refused(refused, lent, place):
    """F22: another set, PIT, export or size."""
    for number, (fields, what) in enumerate(
        [
            ({"uuid": str(uuid4())}, "another set"),
            ({"pit": 99}, "another PIT"),
            ({"pit_id": str(uuid4())}, "another PIT"),
            ({"export_number": 77}, "another export"),
            ({"size_bytes": SIZE - 1}, "another size"),
        ]
    ):
        bitmap = place / f"second{number}"
        wrong = edited(lent, place / "wrong.iiticket", fingerprint={}, **fields)
        os.rename(lent.ticket, place / "own")  # beside which the import itself would be refused
        lent.borrow(bitmap, wrong)
        os.rename(place / "own", lent.ticket)
        for sure in ([], ["-n"]):
            words = (*sure, "-J", lent.shadow, bitmap)
            refused(lent.service, "iiadm", *words, code=1, says=(bitmap, what))


def test_join_with_the_bitmap_of_an_older_export_is_refused(refused, lent, place):
    """F14, F22."""
    lent.borrow(place / "old")
    lent.join(place / "old")
    shutil.copy(place / "old", place / "kept")
    lent.service.flip("s", lent.shadow)
    lent.service.wait(lent.shadow)
    lent.export()
    words = ("-J", lent.shadow, place / "kept")
    refused(lent.service, "iiadm", *words, code=1, says=(place / "kept", "another"))
    lent.borrow()
    lent.join()


def test_same_import_joins_once_and_another_of_the_export_too(refused, lent, place):
    """F22: a second join of one import is refused, a second import is merged."""
    lent.borrow()
    lent.borrow(place / "twin")
    lent.join()
    bits = lent.service.status(lent.shadow).shadow_bits
    words = ("-J", lent.shadow, lent.second)
    refused(lent.service, "iiadm", *words, code=1, says=(lent.second, "already"), todo=False)
    lent.join(place / "twin")
    assert lent.service.status(lent.shadow).shadow_bits >= bits
    lent.service.flip("s", lent.shadow)
    lent.service.wait(lent.shadow)
    refused(lent.service, "iiadm", "-J", lent.shadow, place / "twin", code=1, todo=False)


def damaged(content):
    """(what was done, the bytes of a bitmap after it)"""
    yield "short", content[:-512]
    yield "empty", b""
    yield "garbage", os.urandom(len(content))
    headers = bytearray(content)
    headers[100] ^= 1
    headers[12288 + 100] ^= 1
    yield "headers", headers
    bits = bytearray(content)
    bits[24576 + 3] ^= 4
    yield "bits", bits


def test_join_with_a_damaged_bitmap_is_refused(refused, lent):
    """F13, F22: cut short, garbled in header or bits."""
    lent.borrow()
    for damage, content in damaged(lent.second.read_bytes()):
        lent.second.write_bytes(content)
        for sure in ([], ["-n"]):
            words = (*sure, "-J", lent.shadow, lent.second)
            code = 2 if damage == "empty" else 1
            refused(lent.service, "iiadm", *words, code=code, says=(lent.second,), todo=False)


def test_join_that_finds_no_shadow_leaves_the_set_exported(refused, lent, place):
    lent.borrow()
    os.rename(lent.shadow, place / "away")
    words = ("-J", lent.shadow, lent.second)
    refused(lent.service, "iiadm", *words, says=(lent.shadow,), todo=False)
    (place / "short").write_bytes(bytes(100))
    os.rename(place / "short", lent.shadow)
    refused(lent.service, "iiadm", *words, says=(lent.shadow, SIZE))
    os.rename(place / "away", lent.shadow)
    lent.join()
