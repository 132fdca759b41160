"""K12: a command on several sets does all of it or nothing, and can be given again."""

import json

import pytest
from fault_service import faulty, shim
from harness import CHUNK

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target

__all__ = ["faulty", "shim"]

COUNT = 2


@pytest.fixture
def group(service, volume, place):
    """Independent sets in a group, whole: [(master, shadow)]."""
    return _group(service, volume, place, 64 << 20)


def _group(service, volume, place, size=40 * CHUNK):
    pairs = [(volume(f"m{n}", size), place / f"s{n}") for n in range(COUNT)]
    for master, shadow in pairs:
        service.enable("ind", master, shadow, group="g")
        service.wait(shadow)
        service.write(master, CHUNK, b"changed since")
    return pairs


def _names(pairs):
    return tuple(str(shadow) for _, shadow in pairs)


def _verbs(service, pairs):
    """What changes something, of several sets at once: name -> the command."""
    target = Target(_names(pairs))

    def ask(request):
        return lambda: service.client.call(request, object)

    def run(program, *words):
        def call():
            done = service.run(program, *words)
            if done.returncode:
                raise errors.Refused(program, done.stderr)

        return call

    return {
        "-d": ask(protocol.Disable(target, sure=True)),
        "-u s": ask(protocol.Update("s", full=False, target=target, sure=True)),
        "-c s": ask(protocol.Update("s", full=True, target=target, sure=True)),
        "-u m": ask(protocol.Update("m", full=False, target=target, sure=True)),
        "-c m": ask(protocol.Update("m", full=True, target=target, sure=True)),
        "-E": ask(protocol.Export(target)),
        "-g G -E": run("iiadm", "-g", "g", "-E"),
        "iiexport": run("iiexport", "-g", "g"),
    }


EXPORTS = ("-E", "-g G -E", "iiexport")
REFUSED = {
    "shadow open": ("-d", "-u s", "-c s", *EXPORTS),
    "master open": ("-u m", "-c m"),
    "aborted": ("-u m", "-c m", *EXPORTS),
    "restore aborted": ("-d", "-u s", "-c s", *EXPORTS),
}
"""By the state table: what each of them refuses."""


def _looks(service, place):
    rows = service.client.status()
    views = service.run("svadm", "-i").stdout.splitlines()
    tickets = sorted(path.name for path in place.glob("*ticket*"))
    return rows, sorted(line.split()[0] for line in views), tickets


@pytest.mark.finding("K12.1")
@pytest.mark.parametrize("why", REFUSED)
def test_refusal_of_one_set_changes_none(service, group, place, why):
    """Every verb; the last set refuses, when those before it could have been touched."""
    master, shadow = group[-1]
    if "aborted" in why:
        service.flip("m" if "restore" in why else "s", shadow, full=True)
        service.abort(shadow)
        assert service.status(shadow).progress != "idle", "the copy was quicker"
    with (shadow if "aborted" in why else service.path(_held(why, master, shadow))).open("rb"):
        for name in REFUSED[why]:
            before = _looks(service, place)
            with pytest.raises(errors.IifuseError):
                _verbs(service, group)[name]()
            assert _looks(service, place) == before, name


def _held(why, master, shadow):
    return shadow if why == "shadow open" else master


@pytest.mark.finding("K12.2")
@pytest.mark.parametrize("bad", range(COUNT))
def test_export_that_stopped_half_way_is_given_again(faulty, volume, place, bad):
    """A disk fails in the middle; what is done is passed over and said."""
    service = faulty.service
    pairs = _group(service, volume, place)
    shadow = pairs[bad][1]
    with faulty.failing("write", f"{shadow}.bmp"):
        assert service.run("iiexport", "-g", "g").returncode == 2
    done = [name for name in _names(pairs) if service.status(name).custody == "exported"]
    assert done == list(_names(pairs)[:bad])
    assert not (place / "g.iiticket").exists()
    assert service.run("iiadm", "-n", "-R", shadow).returncode == 0
    service.flip("s", shadow)
    service.wait(shadow)
    ended = service.run("iiexport", "-g", "g")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("was exported already") == len(done)
    ticket = json.loads((place / "g.iiticket").read_text())
    assert [lent["shadow"] for lent in ticket["sets"]] == list(_names(pairs))


@pytest.mark.finding("K12.3")
@pytest.mark.parametrize("how", ["iiadm", "iiexport"])
def test_volume_that_is_added_while_the_group_is_out_follows(service, group, volume, place, how):
    words = ("-g", "g", "-E") if how == "iiadm" else ("-g", "g")
    assert service.run(how, *words).returncode == 0
    new = place / "new"
    service.enable("ind", volume("m-new"), new, group="g")
    service.wait(new)
    done = service.run(how, *words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("was exported already") == COUNT
    assert all(row.custody == "exported" for row in service.client.status())
    if how == "iiexport":
        ticket = json.loads((place / "g.iiticket").read_text())
        assert len(ticket["sets"]) == COUNT + 1


def test_disable_that_stopped_half_way_is_given_again(service, group):
    names = _names(group)
    service.disable(names[0])
    assert service.disable(*names) == (f"{names[0]}: is disabled already",)
    assert service.client.status() == []
    with pytest.raises(errors.NotFound):
        service.disable(*names)


def test_name_that_never_was_a_set_refuses_the_others(service, group, place):
    names = _names(group)
    with pytest.raises(errors.NotFound):
        service.disable(*names, place / "typo")
    assert len(service.client.status()) == COUNT


def test_join_that_stopped_half_way_is_given_again(service, new_service, group, place):
    """The second bitmap was not closed yet; the first is merged and stays so."""
    other, ticket = new_service("other"), place / "g.iiticket"
    assert service.run("iiexport", "-g", "g").returncode == 0
    assert other.run("iiimport", ticket).returncode == 0
    for _, shadow in group:
        other.write(shadow, 5 * CHUNK, b"written there")
    other.disable(*_names(group))
    first, second = (shadow for _, shadow in group)
    assert service.run("iiadm", "-J", first, f"{first}.iibm").returncode == 0
    done = service.run("iijoin", ticket)
    assert done.returncode == 0, done.stderr
    assert f"{first}: was joined already" in done.stderr
    assert str(second) not in done.stderr
    again = service.run("iijoin", ticket)
    assert (again.returncode, again.stderr.count("was joined already")) == (0, COUNT)
    service.flip("s", first, second)
    service.wait(first, second)
    for master, shadow in group:
        assert service.read(master) == service.read(shadow)


def test_import_that_one_shadow_refuses_imports_none(service, new_service, group, place):
    """The last bitmap cannot be one: found before the first import, and before a ticket changes."""
    other, ticket = new_service("other"), place / "g.iiticket"
    assert service.run("iiexport", "-g", "g").returncode == 0
    bad = place / f"{group[-1][1].name}.iibm"
    bad.write_bytes(b"too small")
    before = ticket.read_bytes(), sorted(place.glob("*.iibm"))
    done = other.run("iiimport", ticket)
    assert done.returncode == 2
    assert str(bad) in done.stderr
    assert other.client.status() == []
    assert (ticket.read_bytes(), sorted(place.glob("*.iibm"))) == before
    bad.unlink()
    assert other.run("iiimport", ticket).returncode == 0
