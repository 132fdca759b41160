"""`-R` gives up a bitmap volume that a set waits for, whether nothing or something stands there."""

import os

import pytest
from late_sets import Stage, until

from iifuse import errors
from iifuse.control import protocol

HOW = ("absent", "empty", "other", "older")


@pytest.fixture
def stage(service, new_service, place):
    """Sets of a state that wait for their bitmaps."""

    def make(state):
        lender = new_service("lender") if state == "imported" else None
        here = Stage(service, lender, place, state)
        for how in HOW:
            here.add(f"b-{how}", "b")
        here.settle()
        here.end("stop")
        for piece in here.pieces:
            here.lose(piece, piece.name.removeprefix("b-"))
        service.start()
        return here

    return make


def reset(service, piece, *, sure):
    return service.client.call(protocol.Reset(protocol.Target((str(piece.shadow),)), sure), object)


def is_asked_about(service, piece, state):
    """Random data are, and a point in time that may come back; the question changes nothing."""
    words = ["no bitmap volume"] * (piece.name == "b-other") + ["give up its"] * (state == "dep")
    if not words:
        return False
    before = service.status(piece.shadow)
    with pytest.raises(errors.Question) as asked:
        reset(service, piece, sure=False)
    assert all(word in str(asked.value) for word in words), asked.value
    assert service.status(piece.shadow) == before
    return True


@pytest.mark.parametrize("state", ["ind", "dep", "copying", "restoring"])
def test_reset_of_a_set_that_waits_for_its_bitmap_leaves_nothing_half_copied(stage, state):
    here = stage(state)
    service = here.host
    for piece in here.pieces:
        reset(service, piece, sure=is_asked_about(service, piece, state))
        row = service.status(piece.shadow)
        assert (row.offline, row.waiting, row.replaced) == ((), None, None), piece.name
        if state == "restoring":
            service.flip("m", piece.shadow)
        service.wait(piece.shadow)
        live = service.read(piece.path("m"))
        kept = {"ind": piece.pit, "restoring": piece.pit}.get(state, live)
        assert service.read(piece.shadow) == kept, f"{piece.name}: the shadow"
        assert live == (piece.pit if state == "restoring" else piece.live), piece.name
        service.flip("s", piece.shadow)
        service.wait(piece.shadow)
        assert service.read(piece.shadow) == live, piece.name


def test_reset_of_an_export_that_waits_for_its_bitmap_takes_it_back(stage):
    here = stage("exported")
    service = here.host
    for piece in here.pieces:
        reset(service, piece, sure=True)
        row = service.status(piece.shadow)
        assert (row.offline, row.shadow_bits) == ((), row.chunks), piece.name
        service.flip("s", piece.shadow)
        service.wait(piece.shadow)
        assert service.read(piece.shadow) == service.read(piece.path("m")) == piece.live


def test_reset_of_an_import_that_waits_for_its_bitmap_is_refused_and_it_waits_on(stage):
    """Only that bitmap says which export it is of; an older self of it does too."""
    here = stage("imported")
    service = here.host
    for piece in here.pieces:
        if piece.name == "b-older":
            reset(service, piece, sure=False)
            assert service.status(piece.shadow).offline == ()
            continue
        before = service.status(piece.shadow)
        with pytest.raises(errors.Refused, match="which export"):
            reset(service, piece, sure=True)
        assert service.status(piece.shadow) == before, piece.name
        assert os.path.lexists(piece.path("b")) == (piece.name != "b-absent")
        here.bring_back(piece)
        until(lambda piece=piece: service.status(piece.shadow).offline == ())
        assert service.status(piece.shadow).shadow_bits == piece.marks
        assert service.read(piece.shadow) == piece.pit
