"""Volumes that come late, or not as they were: findings K4, and the end of K3.

Whatever is missing, nothing wrong is ever shown, and as long as nothing needed it nothing is lost.
"""

import os
from itertools import chain, combinations, product

import pytest
from harness import CHUNK
from late_sets import STATES, Stage, remains, waited
from samples import sample

from iifuse import errors
from iifuse.control import protocol

LOSSES = ["".join(c) for c in chain.from_iterable(combinations("msb", n) for n in (1, 2, 3))]
HOW = ("absent", "empty", "other", "older")
CASES = list(product(STATES, ("stop", "kill"), ("running", "down"), (False, True)))


def losses(state):
    """Which volumes a host can lose in a state: an importer has no master."""
    without = {"exported": "s", "imported": "m"}.get(state, "")
    return [loss for loss in LOSSES if not set(loss) & set(without)]


def read(service, path):
    """What the mount shows of a volume; None: nothing, or an error."""
    try:
        return service.read(path)
    except OSError:
        return None


def assert_nothing_wrong(service, piece, live=None, pit=None):
    """A file shows what it has to, or nothing; another file in the master's place is a master."""
    shown = read(service, piece.path("m"))
    stranger = "m" in piece.lost and piece.path("m").exists()
    right = piece.path("m").read_bytes() if stranger else live or piece.live
    assert shown in (None, right), f"{piece.name}: the master shows something wrong"
    if "m" not in piece.lost and piece.live and "b" not in piece.lost and "s" not in piece.lost:
        assert shown is not None, f"{piece.name}: the master is not served"
    assert read(service, piece.shadow) in (None, pit or piece.pit), f"{piece.name}: the shadow"


@pytest.fixture
def stage(service, new_service, place):
    """Make one set for each way to lose volumes of a state."""

    def make(state, how=HOW):
        lender = new_service("lender") if state == "imported" else None
        made = Stage(service, lender, place, state)
        for loss, one in product(losses(state), how):
            made.add(f"{loss}-{one}", loss)
        made.settle()
        return made

    return make


@pytest.mark.finding("K4.1")
@pytest.mark.parametrize(("state", "end", "back", "written"), sample(CASES, 4, "late"))
def test_volume_that_was_away_costs_nothing_that_nothing_needed(stage, state, end, back, written):
    """K4, K3: absent or replaced, one volume or several, and there again."""
    here = stage(state)
    service = here.host
    here.end(end)
    for piece in here.pieces:
        here.lose(piece, piece.name.partition("-")[2])
    service.start()
    for piece in here.pieces:
        assert_nothing_wrong(service, piece)
        assert_missing(service, piece)
        assert_verbs_refused(service, piece)
    for piece in here.pieces if written else ():
        write_where_one_can(service, piece)
    if back == "down":
        service.restart()
        getattr(service, end)()
    for piece in here.pieces:
        here.bring_back(piece)
    if back == "down":
        service.start()
    waited(service, here.pieces)
    for piece in here.pieces:
        assert_back(here, piece, written)
    assert service.stop() == 0


def assert_missing(service, piece):
    """What is waited for or replaced is said; a bitmap that is not the set's is a stranger too."""
    row, how = service.status(piece.shadow), piece.name.partition("-")[2]
    told = (row.waiting if how == "absent" else row.replaced) or ()
    for role in piece.roles:
        assert role in told, f"{piece.name}: {row}"
    assert row.offline_reason, piece.name


def assert_verbs_refused(service, piece):
    """No verb reads from a stranger or writes to one."""
    before = remains(piece)
    target = protocol.Target((str(piece.shadow),))
    flips = [protocol.Update(to, full, target, sure=True) for to in "sm" for full in (False, True)]
    for request in (*flips, protocol.Export(target)):
        with pytest.raises(errors.IifuseError):
            service.client.call(request, object)
    assert remains(piece) == before, f"{piece.name}: a refused verb has written"


def write_where_one_can(service, piece):
    """One chunk of each file that is there; what takes the write has to show it later."""
    for part, at in (("m", 0), ("s", 5 * CHUNK)):
        path, data = piece.path(part), b"while something was missing"
        try:
            service.write(path, at, data)
        except OSError:
            continue
        if part == "m" and "m" not in piece.lost:
            piece.live = piece.live[:at] + data + piece.live[at + len(data) :]
        elif part == "s":
            piece.pit = piece.pit[:at] + data + piece.pit[at + len(data) :]


def needed(here, piece, written):
    """Was something that was away needed by a write to the master? Then the set has lost it."""
    if not written or "m" in piece.lost or here.state in ("imported", "restoring"):
        return False
    return "b" in piece.lost or ("s" in piece.lost and here.state == "dep")


def assert_back(here, piece, written):
    service = here.host
    row = service.status(piece.shadow)
    assert_nothing_wrong_any_more(here, piece)
    if needed(here, piece, written):
        assert row.offline, f"{piece.name}: {row}"
        return
    assert (row.offline, row.waiting, row.replaced) == ((), None, None), f"{piece.name}: {row}"
    if here.ended == "stop" or here.state == "dep":  # else regions may count that were marked ahead
        assert row.shadow_bits <= piece.marks + 2, f"{piece.name}: {row}"
    if here.state in ("copying", "restoring"):
        service.wait(piece.shadow)
    if here.state != "exported":
        assert service.read(piece.shadow) == piece.pit, f"{piece.name}: the point in time"
    if here.state != "imported":
        assert service.read(piece.path("m")) == piece.live, f"{piece.name}: the master"
    if here.state in ("ind", "dep", "copying", "restoring"):
        assert_goes_on(service, piece)


def assert_nothing_wrong_any_more(here, piece):
    lost, piece.lost = piece.lost, ""
    row = here.host.status(piece.shadow)
    shown = read(here.host, piece.path("m"))
    assert shown in (None, piece.live) or row.offline, f"{piece.name}: the master"
    assert read(here.host, piece.shadow) in (None, piece.pit), f"{piece.name}: the shadow"
    piece.lost = lost


def assert_goes_on(service, piece):
    """The next night is as every night."""
    service.write(piece.path("m"), 2 * CHUNK, os.urandom(100))
    service.flip("s", piece.shadow)
    service.wait(piece.shadow)
    assert service.read(piece.shadow) == service.read(piece.path("m"))
