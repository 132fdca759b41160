import json
import os
import stat

import pytest
from fake_service import lent, row

from iifuse import errors
from iifuse.control import protocol
from iifuse.core import ticket as tickets
from iifuse.core.ticket import Ticket


@pytest.fixture
def fresh(stage, service):
    """The other host: no sets, and a ticket that names no bitmaps."""
    service.rows = []
    stage.write_ticket(bitmaps=False)
    return stage


def imported(service):
    return [(one.shadow, one.bitmap) for one in service.asked(protocol.Import)]


def test_every_shadow_is_imported_and_put_into_its_group(run, fresh, service):
    ended = run("iiimport", fresh.ticket)
    assert (ended.code, ended.err) == (0, "")
    first, second = fresh.shadows
    assert service.changes == [
        protocol.Import(first, f"{first}.iibm", fresh.ticket),
        protocol.Import(second, f"{second}.iibm", fresh.ticket),
        protocol.Move("night", (first, second)),
    ]


def test_ticket_without_a_group_makes_none(run, fresh, service):
    fresh.write_ticket(bitmaps=False, group=None)
    run("iiimport", fresh.ticket)
    assert service.asked(protocol.Move) == []


def test_report_names_the_bitmaps(run, fresh):
    lines = run("iiimport", fresh.ticket).out.splitlines()
    assert lines == [
        *(f"{shadow}: imported, bitmap {shadow}.iibm" for shadow in fresh.shadows),
        "group: night",
    ]


def test_json_names_the_bitmaps(run, fresh):
    assert json.loads(run("iiimport", fresh.ticket, "--json").out) == {
        "sets": [{"shadow": shadow, "bitmap": f"{shadow}.iibm"} for shadow in fresh.shadows],
        "group": "night",
    }


def test_bitmaps_are_in_the_ticket_before_the_first_import(run, fresh, service):
    seen = []

    def look(_request):
        seen.append([one.bitmap for one in fresh.read_ticket().sets])
        return protocol.Noted()

    service.on(protocol.Import, look)
    before = fresh.read_ticket()
    run("iiimport", fresh.ticket)
    assert seen[0] == [f"{shadow}.iibm" for shadow in fresh.shadows]
    after = fresh.read_ticket()
    assert [one.shadow for one in after.sets] == [one.shadow for one in before.sets]
    assert after.group == before.group
    assert stat.S_IMODE(os.stat(fresh.ticket).st_mode) == 0o600


def test_bitmaps_go_into_the_named_directory(run, fresh, service, tmp_path):
    (tmp_path / "maps").mkdir()
    run("iiimport", fresh.ticket, "--bitmaps", str(tmp_path / "maps"))
    wanted = [str(tmp_path / "maps" / f"{name}.iibm") for name in ("vol01", "vol02")]
    assert [bitmap for _, bitmap in imported(service)] == wanted
    assert [one.bitmap for one in fresh.read_ticket().sets] == wanted


def refused(run, fresh, service, *words):
    """Run iiimport, which must change nothing; what it says."""
    with open(fresh.ticket, "rb") as file:
        before = file.read()
    ended = run("iiimport", fresh.ticket, *words)
    assert ended.code in (1, 2)
    assert service.changes == []
    with open(fresh.ticket, "rb") as file:
        assert file.read() == before
    return ended.err


def test_missing_directory_for_bitmaps_is_refused(run, fresh, service, tmp_path):
    assert "no such directory" in refused(run, fresh, service, "--bitmaps", str(tmp_path / "no"))


def test_missing_shadow_is_refused_before_any_import(run, fresh, service):
    os.unlink(fresh.shadows[1])
    assert fresh.shadows[1] in refused(run, fresh, service)


def test_short_shadow_is_refused_before_any_import(run, fresh, service):
    os.truncate(fresh.shadows[1], 32768)
    assert "has 32 KiB, less than the 2 MiB" in refused(run, fresh, service)


def test_shadow_that_is_no_volume_is_refused(run, fresh, service):
    os.unlink(fresh.shadows[0])
    os.mkfifo(fresh.shadows[0])
    assert "neither a regular file" in refused(run, fresh, service)


def test_longer_shadow_is_taken(run, fresh, service):
    os.truncate(fresh.shadows[0], 1 << 30)
    assert run("iiimport", fresh.ticket).code == 0


def test_equal_names_in_one_bitmap_directory_are_refused(run, fresh, service, tmp_path):
    (tmp_path / "more").mkdir()
    os.rename(fresh.shadows[1], tmp_path / "more" / "vol01")
    fresh.shadows[1] = str(tmp_path / "more" / "vol01")
    fresh.write_ticket(bitmaps=False)
    assert "share this bitmap" in refused(run, fresh, service, "--bitmaps", str(tmp_path))


def test_second_bitmap_for_one_export_is_refused(run, fresh, service, tmp_path):
    fresh.write_ticket()
    (tmp_path / "maps").mkdir()
    told = refused(run, fresh, service, "--bitmaps", str(tmp_path / "maps"))
    assert f"the ticket names {fresh.shadows[0]}.iibm" in told


def test_ticket_does_not_choose_the_bitmap(run, fresh, service):
    sets = (lent(fresh.shadows[0], bitmap="/etc/passwd"),)
    with open(fresh.ticket, "wb") as file:
        file.write(tickets.encode(Ticket(sets)))
    assert "the ticket names /etc/passwd" in refused(run, fresh, service)


def test_ticket_that_names_the_same_bitmaps_is_taken(run, fresh, service):
    fresh.write_ticket()
    run("iiimport", fresh.ticket)
    assert imported(service) == [(shadow, f"{shadow}.iibm") for shadow in fresh.shadows]


@pytest.mark.parametrize("fields", [{"bitmap": "b"}, {"shadow": "/a\x1b[2J"}, {"bitmap": "/a\nb"}])
def test_ticket_with_unfit_names_is_refused(run, fresh, service, fields):
    sets = (lent(**{"shadow": fresh.shadows[0], **fields}),)
    with open(fresh.ticket, "wb") as file:
        file.write(tickets.encode(Ticket(sets)))
    told = refused(run, fresh, service)
    assert told.startswith(f"iiimport: {fresh.ticket}: ")
    assert "\x1b" not in told


def test_ticket_that_names_a_shadow_twice_is_refused(run, fresh, service):
    fresh.shadows *= 2
    fresh.write_ticket(bitmaps=False)
    assert "twice" in refused(run, fresh, service)


def moved(fresh, tmp_path):
    """The shadows have other names on this host; the new ones."""
    (tmp_path / "here").mkdir()
    names = [str(tmp_path / "here" / os.path.basename(shadow)) for shadow in fresh.shadows]
    for old, new in zip(fresh.shadows, names, strict=True):
        os.rename(old, new)
    return names


def test_map_of_a_directory_changes_the_calls_and_not_the_ticket(run, fresh, service, tmp_path):
    names = moved(fresh, tmp_path)
    found = []

    def look(request):
        with open(request.ticket, "rb") as file:
            blob = file.read()
        found.append(tickets.find(request.ticket, tickets.decode("", blob), request.shadow))
        return protocol.Noted()

    service.on(protocol.Import, look)
    ended = run("iiimport", fresh.ticket, "--map", f"{tmp_path}={tmp_path}/here")
    assert (ended.code, ended.err) == (0, "")
    assert imported(service) == [(name, f"{name}.iibm") for name in names]
    assert service.asked(protocol.Move)[0].sets == tuple(names)
    assert [one.shadow for one in fresh.read_ticket().sets] == fresh.shadows
    # The service finds the right entry under the other name.
    assert [one.shadow for one in found] == fresh.shadows
    assert [name for name in os.listdir(tmp_path) if name.startswith(".ticket")] == []


def test_map_of_one_shadow_leaves_the_other(run, fresh, service, tmp_path):
    first, second = fresh.shadows
    os.rename(first, f"{first}x")
    run("iiimport", fresh.ticket, "--map", f"{first}={first}x")
    assert [shadow for shadow, _ in imported(service)] == [f"{first}x", second]


@pytest.mark.parametrize("word", ["/a", "/a=", "=/b", "/no/such=/b"])
def test_map_that_means_nothing_is_a_usage_error(run, fresh, service, word):
    assert "--map" in refused(run, fresh, service, "--map", word)


def test_two_shadows_mapped_to_one_are_refused(run, fresh, service):
    first, second = fresh.shadows
    assert "two sets" in refused(run, fresh, service, "--map", f"{first}={second}")


@pytest.mark.parametrize(
    "text", ["", "{", '{"sets": [], "format": "iifuse-ticket-1"}', "[" * 99999]
)
def test_bad_ticket_is_refused(run, fresh, service, text):
    with open(fresh.ticket, "w") as file:
        file.write(text)
    assert fresh.ticket in refused(run, fresh, service)


def test_missing_ticket_is_refused(run, service, tmp_path):
    ended = run("iiimport", str(tmp_path / "no"))
    assert ended.code == 2
    assert "cannot be read (No such file or directory)" in ended.err


def test_first_error_stops_and_a_second_run_does_the_rest(run, fresh, service):
    first, second = fresh.shadows
    service.on(
        protocol.Import, protocol.Noted(), errors.BadBitmap(second, "full"), protocol.Noted()
    )
    ended = run("iiimport", fresh.ticket)
    assert ended.code == 2
    assert ended.err.splitlines() == [
        f"imported: {first}",
        f"stopped at: {second}",
        "not tried: none",
        f"iiimport: {second}: full",
    ]
    assert service.asked(protocol.Move) == []
    service.rows = [row(first, bitmap=f"{first}.iibm", custody="imported", export_number=1)]
    again = run("iiimport", fresh.ticket)
    assert (again.code, again.err) == (0, f"{first}: imported already\n")
    assert [shadow for shadow, _ in imported(service)] == [first, second, second]
    assert service.asked(protocol.Move)[0].sets == (first, second)


def test_import_of_an_older_export_is_not_taken_for_this_one(run, fresh, service):
    first, _ = fresh.shadows
    fresh.write_ticket(bitmaps=False, export_number=2)
    service.rows = [row(first, custody="imported", export_number=1)]
    run("iiimport", fresh.ticket)
    assert imported(service)[0][0] == first


@pytest.fixture
def devices(fresh, monkeypatch):
    """The shadows pass for block devices."""
    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: True)
    return fresh


def test_no_bitmap_file_is_made_beside_a_device(run, devices, service):
    assert "say --bitmaps DIR" in refused(run, devices, service)


def test_bitmap_that_is_a_device_too_is_taken(run, devices, service):
    for shadow in devices.shadows:
        with open(f"{shadow}.iibm", "w"):
            pass
    assert run("iiimport", devices.ticket).code == 0


def test_bitmap_of_a_device_goes_into_the_named_directory(run, devices, service, tmp_path):
    (tmp_path / "maps").mkdir()
    assert run("iiimport", devices.ticket, "--bitmaps", str(tmp_path / "maps")).code == 0
