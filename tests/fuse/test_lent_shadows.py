"""A shadow that is lent, and which one it is: tickets and fingerprints (K3)."""

import json
import os
import sys
from uuid import uuid4

import pytest
from harness import CHUNK, Service
from old_version import OldService, unpack

SIZE = 90 * CHUNK + 1024


@pytest.fixture
def pair(service, new_service, volume, place):
    """`service` lends a shadow of its set, `other` takes it in."""

    class Pair:
        def __init__(self):
            self.service, self.other = service, new_service("other")
            self.master, self.shadow = volume("m", SIZE), place / "s"
            self.ticket, self.second = place / "s.iiticket", place / "second"
            service.enable("ind", self.master, self.shadow)
            service.wait(self.shadow)

        def run(self, service, *words, program="iiadm"):
            done = service.run(program, *words)
            assert done.returncode == 0, done.stderr
            return done.stderr

        def export(self):
            self.run(self.service, "-E", self.shadow)

        def borrow(self, *chunks, bitmap=None):
            self.run(self.other, "-I", self.shadow, bitmap or self.second)
            for chunk in chunks:
                self.other.write(self.shadow, chunk * CHUNK, os.urandom(100))
            self.other.disable(self.shadow)

        def join(self, bitmap=None):
            return self.run(self.service, "-J", self.shadow, bitmap or self.second)

        def update(self):
            self.service.flip("s", self.shadow)
            self.service.wait(self.shadow)
            assert self.service.read(self.shadow) == self.master.read_bytes()

        def entry(self):
            return json.loads(self.ticket.read_text())["sets"][0]

    return Pair()


def takers(path, fresh):
    """Whatever gives a volume a part: what it is called -> program and words."""
    return {
        "a master": ("iiadm", "-e", "dep", path, fresh(), fresh()),
        "a shadow": ("iiadm", "-e", "ind", fresh(SIZE), path, fresh()),
        "a bitmap": ("iiadm", "-e", "ind", fresh(SIZE), fresh(), path),
        "pass-through": ("svadm", "-e", path),
    }


@pytest.fixture
def fresh(place):
    names = iter(range(100))

    def make(size=0):
        path = place / f"fresh{next(names)}"
        if size:
            path.write_bytes(os.urandom(size))
        return path

    return make


@pytest.mark.finding("K3.8")
def test_lent_shadow_gets_no_other_part_on_any_host(pair, refused, fresh, place):
    """K3: under its own name and others, until the export is joined."""
    pair.export()
    (place / "link").symlink_to(pair.shadow)
    for path in (pair.shadow, place / "link"):
        for what, words in takers(path, fresh).items():
            said = refused(pair.other, *words, says=(path, "is lent", pair.ticket))
            assert "join it" in said, what
            assert "export 1" in said, what
    pair.borrow(5)
    for words in takers(pair.shadow, fresh).values():
        refused(pair.other, *words, says=("is lent",))
    pair.join()
    assert pair.entry()["joined"]
    pair.update()
    pair.service.disable(pair.shadow)
    assert pair.other.run(*takers(pair.shadow, fresh)["pass-through"]).returncode == 0


def test_paper_puts_shadows_on_the_mount_again_with_a_note(pair):
    """The procedure has `svadm -e` after `-I`, and after `-J`: on the mount already, exit 0."""
    pair.export()
    pair.run(pair.other, "-I", pair.shadow, pair.second)
    assert "on the mount already" in pair.run(pair.other, "-e", pair.shadow, program="svadm")
    pair.other.disable(pair.shadow)
    pair.join()
    assert "on the mount already" in pair.run(pair.service, "-e", pair.shadow, program="svadm")


def test_shadow_that_was_taken_back_is_lent_no_more(pair, refused):
    """Nor can the lost importer take it in again."""
    pair.export()
    pair.run(pair.service, "-n", "-R", pair.shadow)
    assert pair.entry()["joined"]
    refused(pair.other, "iiadm", "-I", pair.shadow, pair.second, says=("not lent any more",))


def test_import_after_the_join_is_refused(pair, refused, place):
    pair.export()
    copy = place / "carried.iiticket"
    copy.write_bytes(pair.ticket.read_bytes())
    pair.borrow(5)
    pair.join()
    words = ("-I", pair.shadow, place / "third")
    refused(pair.other, "iiadm", *words, says=("not lent any more", "export it again"))
    refused(pair.other, "iiadm", *words, copy, says=("not lent any more",))


def test_ticket_of_a_join_that_was_cut_short_is_closed_by_the_next_start(pair, fresh):
    pair.export()
    pair.borrow(5)
    lent = pair.ticket.read_bytes()
    pair.join()
    pair.service.kill()
    pair.ticket.write_bytes(lent)
    pair.service.start()
    assert pair.entry()["joined"]


def test_ticket_beside_a_shadow_that_cannot_be_read_is_no_leave(pair, refused, fresh):
    """Who can tell what it said? The way out is named."""
    path = fresh(SIZE)
    beside = path.with_name(f"{path.name}.iiticket")
    beside.write_bytes(b"{}")
    refused(pair.other, "svadm", "-e", path, says=("may be lent", f"remove {beside}"))
    beside.unlink()
    assert pair.other.run("svadm", "-e", path).returncode == 0


def test_join_given_again_after_an_update_says_that_it_was_joined(pair, refused, place):
    """K12: it was called a bitmap of another PIT, with no command that leads out."""
    pair.export()
    copy = place / "carried"
    pair.borrow(5)
    pair.join()
    pair.update()
    words = ("-J", pair.shadow, pair.second)
    says = (pair.second, "was joined already", "updated since")
    refused(pair.service, "iiadm", *words, code=1, says=says, todo=False)
    entry = {**pair.entry(), "bitmap": str(pair.second)}
    copy.write_text(json.dumps({"sets": [entry], "format": "iifuse-ticket-2"}))
    assert "was joined already" in pair.run(pair.service, copy, program="iijoin")


def test_bitmap_that_is_not_of_the_last_export_names_a_command(pair, refused, place):
    """On a set that is lent, and on one that is not."""
    pair.export()
    pair.borrow(5)
    pair.run(pair.service, "-n", "-R", pair.shadow)
    pair.update()
    words = ("-J", pair.shadow, pair.second)
    says = ("another PIT", f"'iiadm -c s {pair.shadow}'")
    refused(pair.service, "iiadm", *words, code=1, says=says)
    pair.export()
    says = ("another PIT", f"'iiadm -R {pair.shadow}'")
    refused(pair.service, "iiadm", *words, code=1, says=says)


# -- which shadow -----------------------------------------------------------------------------


def second_set(pair, volume, place):
    """Another set of the same size, exported too; (its shadow, its ticket)."""
    pair.service.enable("ind", volume("m2", SIZE), place / "s2")
    pair.service.wait(place / "s2")
    pair.run(pair.service, "-E", place / "s2")
    return place / "s2", place / "s2.iiticket"


@pytest.mark.finding("K3.4")
@pytest.mark.parametrize("kind", ["file", "device"])
def test_ticket_of_another_shadow_is_refused(pair, refused, volume, place, loops, kind):
    """K3: `-I v1 v1.q v2.iiticket`, and then `-J v1 v2.q`, made both shadows wrong."""
    pair.export()
    shadow, ticket = second_set(pair, volume, place)
    ours = pair.shadow
    if kind == "device":  # beside which no ticket lies
        ours, shadow = loops(pair.shadow), loops(shadow)
    own = place / "own.iiticket"
    own.write_bytes(pair.ticket.read_bytes())
    words = ("-I", ours, pair.second, ticket)
    said = refused(pair.other, "iiadm", *words, code=2)
    assert ("not the shadow of this ticket" if kind == "device" else "is lent") in said
    refused(pair.other, "iiadm", "-n", *words)
    pair.run(pair.other, "-I", ours, pair.second, own)


def test_iiimport_of_a_ticket_with_its_names_swapped_is_refused(pair, volume, place):
    """The tool asks the service, so it knows as well."""
    pair.export()
    shadow, _ = second_set(pair, volume, place)
    entries = [json.loads((place / f"{n}.iiticket").read_text())["sets"][0] for n in ("s", "s2")]
    entries[0]["shadow"], entries[1]["shadow"] = entries[1]["shadow"], entries[0]["shadow"]
    for name in ("s", "s2"):
        (place / f"{name}.iiticket").unlink()
    night = place / "night.iiticket"
    night.write_text(json.dumps({"sets": entries, "format": "iifuse-ticket-2"}))
    done = pair.other.run("iiimport", night)
    assert done.returncode == 2
    assert "not the shadow of this ticket" in done.stderr
    assert not pair.other.client.status()
    assert shadow.exists()


def test_iiexport_puts_the_fingerprints_into_its_ticket(pair, place):
    night = place / "night.iiticket"
    done = pair.service.run("iiexport", pair.shadow, "--ticket", night)
    assert done.returncode == 0, done.stderr
    (entry,) = json.loads(night.read_text())["sets"]
    assert entry["fingerprint"] == pair.entry()["fingerprint"]


def test_shadow_that_somebody_wrote_before_the_import_is_asked_about(pair, refused):
    """What was written is in no bitmap; a foreign import that nobody knows of may be the reason."""
    pair.export()
    chunk = next(iter(pair.entry()["fingerprint"]))
    with pair.shadow.open("r+b") as file:
        file.seek(int(chunk) * CHUNK)
        file.write(b"behind the back")
    words = ("-I", pair.shadow, pair.second)
    refused(pair.other, "iiadm", *words, code=1, says=("was written since its export",), todo=False)
    pair.run(pair.other, "-n", *words)


@pytest.mark.finding("K3.4")
def test_ticket_of_another_shadow_is_not_taken_since_it_was_imported_once(pair, refused, place):
    """The import brought nothing, so it explains nothing."""
    former = place / "former"
    former.write_bytes(os.urandom(SIZE))
    pair.export()
    pair.borrow()
    words = ("-I", former, place / "third", pair.ticket)
    says = (former, "is not the shadow of this ticket", "none tells")
    refused(pair.other, "iiadm", *words, code=1, says=says, todo=False)


def test_second_import_that_the_ticket_knows_needs_no_answer(pair, place):
    """Two imports of one export, each with its bitmap, both written nearly all over."""
    pair.export()
    *most, _left = map(int, pair.entry()["fingerprint"])
    pair.borrow(*most)
    pair.borrow(*most, bitmap=place / "third")
    pair.join()
    pair.join(place / "third")
    pair.update()


def test_shadow_that_a_known_import_wrote_all_over_is_asked_about(pair, refused, place):
    """Nothing is left that tells it from another one."""
    pair.export()
    everywhere = list(map(int, pair.entry()["fingerprint"]))
    pair.borrow(*everywhere)
    words = ("-I", pair.shadow, place / "third")
    refused(pair.other, "iiadm", *words, code=1, says=("wrote all over it",), todo=False)
    pair.run(pair.other, "-n", *words)
    pair.other.disable(pair.shadow)
    pair.join()
    pair.join(place / "third")
    pair.update()


def test_join_of_a_bitmap_that_notes_too_little_is_refused(pair, refused):
    """Somebody wrote past the import, or this is another shadow; -R leads out."""
    pair.export()
    pair.borrow(5)
    chunk = next(at for at in map(int, pair.entry()["fingerprint"]) if at != 5)
    with pair.shadow.open("r+b") as file:
        file.seek(chunk * CHUNK)
        file.write(b"behind the back")
    said = refused(pair.service, "iiadm", "-J", pair.shadow, pair.second, code=1)
    assert "notes too little" in said
    assert f"-R {pair.shadow}" in said
    pair.run(pair.service, "-n", "-R", pair.shadow)
    pair.update()


def test_ticket_of_version_0_1_0_is_taken_with_a_remark(place, volume, new_service, tmp_path):
    old = OldService(place, unpack(tmp_path / "old"))
    try:
        old.start()
        master, shadow = volume("m", SIZE), place / "s"
        words = ("-e", "ind", master, shadow, place / "b")
        assert old.run("iiadm", *words).returncode == 0
        assert old.run("iiadm", "-w", shadow).returncode == 0
        assert old.run("iiadm", "-E", shadow).returncode == 0
        other: Service = new_service("other")
        done = other.run("iiadm", "-I", shadow, place / "second")
        assert done.returncode == 0, done.stderr
        assert "version 0.1.0" in done.stderr
    finally:
        old.clean_up()


PLANTED = """
import os, sys
import iifuse.verbs.exchange as exchange
from iifuse.service import main

def die():
    os.kill(os.getpid(), 9)

def fail():
    raise OSError(5, "planted")

write = exchange._write_import
exchange._write_import = lambda member: [act() for act in ({acts})]
sys.exit(main())
"""


class CutShort(Service):
    """A service that does something else when an import is to be written to its bitmap volume."""

    acts = ""

    def command(self):
        plain = super().command()
        program = PLANTED.format(acts=self.acts)
        return [sys.executable, "-c", program, *plain[1:]] if self.acts else plain


@pytest.fixture
def cut_short(place):
    service = CutShort(place, "cut", ("stop_wait=2",))
    yield service
    service.clean_up()


@pytest.mark.parametrize("writes", [True, False])
def test_import_that_was_cut_short_is_named_before_it_can_write(pair, cut_short, place, writes):
    """K3: its writes are in its own bitmap only, and another import is joined."""
    pair.export()
    cut_short.acts = "lambda: write(member), die" if writes else "die,"
    cut_short.start()
    assert cut_short.run("iiadm", "-I", pair.shadow, place / "cut.bmp").returncode == 2
    cut_short.wait_for_end(30)
    cut_short.acts = ""
    cut_short.start()
    assert len(cut_short.client.status()) == writes
    if writes:
        cut_short.write(pair.shadow, 7 * CHUNK, b"nobody else knows")
        cut_short.disable(pair.shadow)
    pair.borrow(3)
    assert "is not joined yet" in pair.join()
    pair.update()


def test_import_that_lost_its_name_is_named_again_by_the_next_start(pair, place):
    """K3: the ticket is an older one, or could not be written; what it names more stays."""
    pair.export()
    pair.run(pair.other, "-I", pair.shadow, pair.second)
    named = pair.entry()["imports"]
    assert len(named) == 1
    pair.other.stop()
    ticket = json.loads(pair.ticket.read_text())
    ticket["sets"][0]["imports"] = [{"id": str(uuid4()), "bitmap": "/of/another"}]
    pair.ticket.write_text(json.dumps(ticket))
    for _ in range(2):
        pair.other.start()
        assert pair.entry()["imports"] == [*ticket["sets"][0]["imports"], *named]
        pair.other.stop()


def test_import_that_cannot_be_named_says_what_to_do(pair, place):
    """K3: on an importer that may write to the shadow, and to nothing else there."""
    pair.export()
    pair.ticket.with_name(f"{pair.ticket.name}.new").mkdir()
    said = pair.run(pair.other, "-I", pair.shadow, pair.second)
    assert f"join {pair.second} before the update" in said
    assert pair.entry()["imports"] == []


def test_import_that_fails_is_not_named(pair, cut_short, place):
    """A set that nobody has imported is not copied in full."""
    pair.export()
    before = pair.entry()
    cut_short.acts = "fail,"
    cut_short.start()
    failed = cut_short.run("iiadm", "-I", pair.shadow, place / "cut.bmp")
    assert (failed.returncode, "planted" in failed.stderr) == (2, True)
    assert pair.entry() == before
