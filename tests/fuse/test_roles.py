"""One volume, one part: every part that a volume has, under every name, against every verb (K3)."""

import os
from uuid import uuid4

import pytest
from harness import CHUNK
from late_sets import until
from msgspec.structs import replace
from samples import some

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target
from iifuse.core.ticket import Ticket, TicketEntry, encode
from iifuse.store.statedb import StateDB

SIZE = 64 * CHUNK
"""Of all volumes, bitmaps too, so that none is refused for its size."""


@pytest.fixture
def fresh(place):
    """Volumes that play no part: a new name each time; master and such are there already."""
    names = iter(range(10_000))

    def make(size=SIZE):
        path = place / f"fresh{next(names)}"
        path.write_bytes(os.urandom(size))
        return str(path)

    return make


def parts_of(service, make):
    """Each part that a volume can have in a service -> the name of one that has it."""
    service.enable("ind", make("m"), make("s"), make("b"))
    service.enable("ind", make("m2"), make("lent"), make("b2"))
    service.wait(make("s"), make("lent"))
    service.client.call(protocol.Export(Target((make("lent"),))), list)
    service.client.notes(protocol.Control((make("v"),)))
    found = {"master": "m", "shadow": "s", "bitmap": "b", "lent": "lent", "volume": "v"}
    return {part: make(name) for part, name in found.items()}


def files(place, loops):
    """Volumes that are files, and names that lead to one."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = str(place / name)
            (place / name).write_bytes(os.urandom(SIZE))
        return made[name]

    def names(path):
        os.symlink(path, f"{path}.sym")
        os.link(path, f"{path}.hard")
        return {
            "itself": path, "symlink": f"{path}.sym", "hard link": f"{path}.hard",
            "a loop device over it": loops(path), "a piece": loops(path, "-o", str(CHUNK)),
        }  # fmt: skip

    return make, names


def devices(place, loops):
    """Volumes that are loop devices, and names that lead to one."""
    made = {}

    def make(name):
        if name not in made:
            (place / name).write_bytes(os.urandom(SIZE))
            made[name] = loops(str(place / name), "-P")
        return made[name]

    def names(device):
        path = next(place / name for name in made if made[name] == device)
        os.symlink(device, f"{path}.sym")
        os.mknod(f"{path}.node", 0o600 | 0o060000, os.stat(device).st_rdev)
        return {
            "itself": device, "symlink": f"{path}.sym", "another node": f"{path}.node",
            "a loop device over the same file": loops(str(path)), "the file": str(path),
        }  # fmt: skip

    return make, names


@pytest.fixture
def ticket(place):
    """Of an export that is none of this host's."""
    path = place / "a.iiticket"
    time = "2026-01-01T00:00:00+00:00"
    lent = TicketEntry(uuid4(), "/far/s", "/far/m", 1, uuid4(), time, 1, SIZE)
    path.write_bytes(encode(Ticket((lent,))))
    return str(path)


def requests(path, fresh, ticket):
    """All that brings a volume in: what is asked -> the request."""
    return {
        "-e master": protocol.Enable("dep", path, fresh(), fresh()),
        "-e shadow": protocol.Enable("dep", fresh(), path, fresh()),
        "-e bitmap": protocol.Enable("dep", fresh(), fresh(), path),
        "-I shadow": protocol.Import(path, fresh(), ticket),
        "-I bitmap": protocol.Import(fresh(), path, ticket),
        "--attach": protocol.Attach((path,), None),
        "svadm -e": protocol.Control((path,)),
    }  # fmt: skip


VERBS = (
    "-e master", "-e shadow", "-e bitmap", "-I shadow", "-I bitmap", "--attach", "svadm -e",
)  # fmt: skip
SAME = ("itself", "symlink", "hard link", "another node", "a loop device over the same file")
WELCOME = {(part, "-e master", name) for part in ("master", "volume") for name in SAME}
"""Several shadows of one master are welcome, under whatever name; `svadm -e` twice is a remark."""
WELCOME |= {(part, "svadm -e", "itself") for part in ("master", "shadow", "volume")}


def pictured(*services):
    return [(_states(s), s.client.call(protocol.Volumes(), object)) for s in services]


def _states(service):
    """A service finds out by itself, at any time, what stands in a missing volume's place."""
    return [_without_reason(row) for row in service.client.status()]


def _without_reason(row):
    lack = {*(row.waiting or ()), *(row.replaced or ())}
    plain = replace(row, offline_reason="", waiting=None, replaced=None)
    return plain if lack else row, lack


def is_refused(service, request, others=()):
    """Whether it was; what is accepted is undone, what is refused changes nothing."""
    before = pictured(service, *others)
    try:
        service.client.call(request, object)
    except (errors.InUse, errors.Refused):  # the second: what this service itself has lent
        assert pictured(service, *others) == before
        return True
    if isinstance(request, protocol.Enable):
        service.disable(request.shadow)
    assert pictured(service, *others) == before
    return False


@pytest.mark.finding("K3.1", "K3.3", "K3.5")
@pytest.mark.sampled
@pytest.mark.parametrize("kind", [files, devices])
def test_volume_that_has_a_part_is_refused_any_other(
    service, new_service, place, loops, fresh, ticket, kind
):
    """K3: a lent shadow as another set's master, one storage under two devices, in two services."""
    make, names = kind(place, loops)
    other = new_service("other")
    aliases = {part: names(volume) for part, volume in parts_of(service, make).items()}
    cases = [(part, verb, name) for part in aliases for name in aliases[part] for verb in VERBS]
    for part, verb, name in some(cases, 40, kind.__name__):
        request = requests(aliases[part][name], fresh, ticket)[verb]
        what = (part, verb, name)
        assert is_refused(service, request, [other]) is (what not in WELCOME), what
        if part != "lent":  # which another service may import
            assert is_refused(other, request, [service]), what


@pytest.mark.parametrize("role", ["master", "shadow", "bitmap"])
def test_volume_that_has_a_part_is_not_taken_for_a_lost_one(service, place, loops, role):
    """K3: -R opens what a name leads to now, and -J both the lent shadow and a bitmap."""
    make, names = files(place, loops)
    lost = {"master": make("m3"), "shadow": make("s3"), "bitmap": make("b3")}
    service.enable("ind", *lost.values())
    service.wait(lost["shadow"])
    found = parts_of(service, make)
    service.stop()
    os.rename(lost[role], f"{lost[role]}.away")
    service.start()
    for part, volume in found.items():
        for name, path in names(volume).items():
            os.symlink(path, lost[role])
            request = protocol.Reset(Target((lost["shadow"],)), True)
            assert is_refused(service, request), (part, name)
            os.unlink(lost[role])


def test_volume_that_has_a_part_is_not_joined(service, place, loops):
    """K3: neither as the bitmap of an import nor in the place of the lent shadow."""
    make, names = files(place, loops)
    found = parts_of(service, make)
    for part, volume in found.items():
        for name, path in names(volume).items():
            assert is_refused(service, protocol.Join(found["lent"], path)), (part, name)


def test_volume_of_svadm_that_is_away_is_not_made_for_a_set(service, place, fresh, ticket):
    """K3: nothing is open of it, and it comes back as a file whose writes no set would learn of."""
    away = place / "v"
    away.write_bytes(bytes(SIZE))
    service.client.notes(protocol.Control((str(away),)))
    service.stop()
    away.rename(place / "v.away")
    service.start()
    asked = requests(str(away), fresh, ticket)
    for verb in ("-e shadow", "-e bitmap", "-I shadow", "-I bitmap", "--attach"):
        with pytest.raises(errors.InUse) as refused:
            service.client.call(asked[verb], object)
        assert f"'svadm -d {away}'" in str(refused.value), verb
        assert not away.exists(), verb
    (place / "v.away").rename(away)
    service.client.notes(protocol.Control((str(away),)))
    service.client.notes(protocol.Release((str(away),)))
    service.client.notes(asked["-e shadow"])


def test_volume_of_svadm_that_is_in_the_way_is_taken_out_by_what_the_refusal_says(service, fresh):
    """A pass-through volume is wanted as a shadow: 'svadm -d' is the way, not another volume."""
    master, shadow, bitmap = fresh(), fresh(), fresh()
    service.client.notes(protocol.Control((shadow,)))
    refused = service.run("iiadm", "-n", "-e", "ind", master, shadow, bitmap)
    assert refused.returncode == 2
    assert f"is a volume with no set of this service already; 'svadm -d {shadow}'" in refused.stderr
    assert service.run("svadm", "-d", shadow).returncode == 0
    assert service.run("iiadm", "-n", "-e", "ind", master, shadow, bitmap).returncode == 0


@pytest.mark.parametrize("away", [False, True])
def test_volume_of_svadm_that_a_set_names_comes_back_as_its_part(service, place, fresh, away):
    """K3: so a state directory of an earlier version may have it; the set has to note writes."""
    master, shadow = fresh(), fresh()
    service.enable("ind", master, place / shadow, place / "b")
    service.wait(shadow)
    service.kill()
    db = StateDB(str(service.state))
    db.add_volumes([shadow])
    db.close()
    if away:
        os.rename(shadow, f"{shadow}.away")
    service.start()
    if away:
        os.rename(f"{shadow}.away", shadow)
        until(lambda: service.status(shadow).waiting is None)
    service.write(shadow, CHUNK, b"noted")
    assert service.status(shadow).shadow_bits == 1
