"""Is all well, what would a verb cost, which set is meant: through the real programs."""

import json
from pathlib import Path

import pytest
from harness import CHUNK

SIZE = 64 * CHUNK


@pytest.fixture
def family(service, volume, place):
    """A master with two shadows: `ind` and `dep`; three chunks written since."""
    master, ind, dep = volume("m", SIZE), place / "ind", place / "dep"
    master.write_bytes(bytes(SIZE))
    service.enable("ind", master, ind)
    service.enable("dep", master, dep)
    service.wait(ind)
    for chunk in (1, 2, 40):
        service.write(master, chunk * CHUNK + 5, b"new")
    return master, ind, dep


def told(service, *words):
    done = service.run("iiadm", *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def cost(service, *words):
    before = service.run("iiadm", "-i", "--long").stdout
    (row,) = json.loads(told(service, *words, "--dry-run", "--json"))["sets"]
    assert service.run("iiadm", "-i", "--long").stdout == before
    return row


def test_dry_run_tells_what_the_update_then_copies(service, family):
    _, ind, _ = family
    foretold = cost(service, "-u", ind)
    assert (foretold["chunks"], foretold["bytes"]) == (3, 3 * CHUNK)
    told(service, "-u", ind)
    told(service, "-w", ind)
    assert service.status(ind).copied_chunks == 3


def test_dry_run_knows_why(service, family):
    master, ind, dep = family
    assert cost(service, "-c", "s", ind)["chunks"] == 64
    restore = cost(service, "-u", "m", dep)
    assert (restore["target"], restore["chunks"]) == (str(master), 3)
    free = cost(service, "-u", "s", dep)
    assert (free["chunks"], free["why"].split()[0]) == (0, "a")


def test_dry_run_refuses_what_would_be_refused(service, family, refused):
    _, ind, _ = family
    told(service, "-E", ind)
    refused(service, "iiadm", "-u", "--dry-run", ind, says=(ind, "exported"))


@pytest.mark.finding("K15.2")
def test_set_is_found_by_its_other_names(service, family, place):
    master, ind, dep = family
    for name in (f"{ind}.bmp", service.path(ind), ind):
        assert f"{ind}: (shadow volume)" in told(service, "-i", name)
    service.disable(dep)
    for name in (master, service.path(master)):
        assert f"{ind}: (shadow volume)" in told(service, "-i", name)
    told(service, "-u", "s", service.path(master))
    told(service, "-d", service.path(ind))
    assert service.client.status() == []


def test_master_of_two_sets_is_no_name(service, family, refused):
    master, ind, dep = family
    for verb in (("-d",), ("-u", "m"), ("-R",), ("-i",)):
        refused(service, "iiadm", *verb, master, code=1, says=(master, ind, dep))


@pytest.mark.finding("K15.2")
def test_several_sets_are_taken_at_once(service, family):
    _, ind, dep = family
    for words in (["-w"], ["-a"], ["-R"], ["-i"], ["-d"]):
        told(service, *words, ind, dep)
    assert service.client.status() == []


@pytest.mark.finding("K15.5")
def test_export_tells_where_each_ticket_is(service, family):
    _, ind, _ = family
    path = f"{ind}.iiticket"
    assert told(service, "-E", ind) == f"{ind}: exported, ticket {path}\n"
    assert f"\nTicket: {path}\n" in told(service, "-i", "--long", ind)
    assert service.status(ind).ticket == path
    service.restart()
    assert service.status(ind).ticket == path
    told(service, "-R", ind, "-n")
    assert service.status(ind).ticket is None


def health(service):
    done = service.run("iiadm", "--health")
    assert done.returncode == bool(done.stdout)
    return done.stdout


def test_health_is_silent_until_something_is_wrong(service, family):
    _, ind, dep = family
    assert health(service) == ""
    service.stop()
    ind.rename(f"{ind}.away")
    service.start()
    assert f"{ind}: its shadow is not there" in health(service)
    (ind.parent / "ind.away").rename(ind)
    told(service, "-w", ind)
    service.run("iiadm", "-R", ind)
    assert health(service) == ""
    service.stop()
    (dep.parent / "dep.bmp").write_bytes(b"\0" * 32768)
    service.start()
    found = health(service)
    assert found.startswith(f"{dep}: ")
    assert "iiadm -R" in found


def test_health_tells_of_an_aborted_restore(service, family):
    _, ind, _ = family
    service.leave_restore_aborted(ind)
    assert f"iiadm -u m {ind}" in health(service)
    service.flip("m", ind)
    service.wait(ind)
    assert health(service) == ""


def test_nobody_is_asked_about_what_is_refused_then(service, family, refused):
    """Neither a question nor a cost comes before the refusal of a target that is open."""
    master, ind, _ = family
    with service.path(master).open("rb"):
        for words in (["-u", "m"], ["-c", "m"], ["-u", "m", "--dry-run"]):
            refused(service, "iiadm", *words, ind, says=(master, "open"))
    with service.path(ind).open("rb"):
        refused(service, "iiadm", "-u", "--dry-run", ind, says=(ind, "open"))


def test_disable_of_a_lent_shadow_tells_of_its_ticket(service, family, refused):
    master, ind, _ = family
    told(service, "-E", ind)
    done = service.run("iiadm", "-d", ind)
    assert done.returncode == 0
    assert f"remove {ind}.iiticket" in done.stderr
    enable = ("-e", "ind", master, ind, f"{ind}.bmp")
    refused(service, "iiadm", *enable, says=(ind, "set was disabled"))


def test_service_is_called_by_its_name(service):
    assert Path(f"/proc/{service.pid}/comm").read_text() == "iifuse\n"
