import json

import pytest

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import CheckJoin, Join, Noted

UNCLOSED = errors.NotClosed("/b", "was not closed")


def joins(service):
    return [request for request in service.requests if isinstance(request, CheckJoin | Join)]


def test_every_bitmap_is_checked_before_the_first_join(run, stage, service):
    ended = run("iijoin", stage.ticket)
    assert (ended.code, ended.err) == (0, "")
    pairs = [(shadow, f"{shadow}.iibm") for shadow in stage.shadows]
    assert service.requests == [
        *(CheckJoin(*pair) for pair in pairs),
        *(Join(*pair) for pair in pairs),
    ]


def test_report_names_the_bitmaps(run, stage):
    lines = run("iijoin", stage.ticket).out.splitlines()
    assert lines == [f"{shadow}: joined, bitmap {shadow}.iibm" for shadow in stage.shadows]


def test_json_says_what_was_accepted(run, stage, service):
    service.on(CheckJoin, Noted(), UNCLOSED, Noted())
    sets = json.loads(run("iijoin", "-n", "--json", stage.ticket).out)["sets"]
    assert [one["shadow"] for one in sets] == stage.shadows
    assert [one["unclosed"] for one in sets] == [False, True]


def test_refusal_of_the_last_check_joins_nothing(run, stage, service):
    service.on(CheckJoin, Noted(), errors.BadSecondary(stage.shadows[1], "other export"))
    ended = run("iijoin", stage.ticket)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == f"iijoin: {stage.shadows[1]}: other export\n"
    assert service.asked(Join) == []


def test_unclosed_bitmap_without_a_terminal_is_refused(run, stage, service):
    service.on(CheckJoin, UNCLOSED)
    ended = run("iijoin", stage.ticket)
    assert ended.code == 1
    assert "no terminal" in ended.err
    assert service.asked(Join) == []


def test_n_accepts_only_the_bitmap_that_was_not_closed(run, stage, service):
    service.on(CheckJoin, UNCLOSED, Noted())
    assert run("iijoin", "-n", stage.ticket).code == 0
    assert [one.accept_unclosed for one in service.asked(CheckJoin)] == [False, True, False]
    assert [one.accept_unclosed for one in service.asked(Join)] == [True, False]


@pytest.mark.parametrize(("typed", "code", "joined"), [("y\n", 0, 2), ("n\n", 1, 0)])
def test_unclosed_bitmap_is_asked_about(on_terminal, stage, service, typed, code, joined):
    service.on(CheckJoin, UNCLOSED, Noted())
    assert on_terminal("iijoin", stage.ticket, typed=typed).code == code
    assert len(service.asked(Join)) == joined


def test_map_renames_shadows_and_bitmaps(run, stage, service, tmp_path):
    run("iijoin", stage.ticket, "--map", f"{tmp_path}=/back")
    assert joins(service)[-1] == Join("/back/vol02", "/back/vol02.iibm")


def test_longest_map_counts(run, stage, service, tmp_path):
    bitmap = f"{stage.shadows[0]}.iibm"
    run("iijoin", "--map", f"{tmp_path}=/back", "--map", f"{bitmap}=/usb/b", stage.ticket)
    assert service.asked(Join)[0] == Join("/back/vol01", "/usb/b")


def test_map_fits_whole_names_only(run, stage, service, tmp_path):
    ended = run("iijoin", stage.ticket, "--map", f"{stage.shadows[0][:-1]}=/back")
    assert ended.code == 1
    assert joins(service) == []


def test_ticket_without_bitmaps_is_refused(run, stage, service):
    stage.write_ticket(bitmaps=False)
    ended = run("iijoin", stage.ticket)
    assert ended.code == 2
    assert "names no bitmap" in ended.err
    assert joins(service) == []


def test_first_error_stops_and_says_how_far_it_came(run, stage, service):
    service.on(Join, Noted(), errors.StorageError("/b", "read failed"))
    ended = run("iijoin", stage.ticket)
    assert ended.code == 2
    assert ended.err.splitlines() == [
        f"joined: {stage.shadows[0]}",
        f"stopped at: {stage.shadows[1]}",
        "not tried: none",
        "iijoin: /b: read failed",
    ]


def test_notes_go_to_stderr(run, stage, service):
    service.on(Join, protocol.Noted(("the bitmap could not be stamped",)))
    assert "could not be stamped" in run("iijoin", stage.ticket).err


def test_bitmap_that_an_earlier_run_has_joined_is_passed_over(run, stage, service):
    """K12: iijoin that stopped half-way can be given again."""
    service.on(CheckJoin, errors.AlreadyJoined(f"{stage.shadows[0]}.iibm", "joined"), Noted())
    ended = run("iijoin", stage.ticket)
    assert ended.code == 0
    assert ended.err == f"{stage.shadows[0]}: was joined already, bitmap {stage.shadows[0]}.iibm\n"
    assert [one.shadow for one in service.asked(Join)] == stage.shadows[1:]
