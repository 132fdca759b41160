import json
import os
import stat
from uuid import UUID

import pytest
from fake_service import copying, lent, row

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target
from iifuse.core.ticket import Import


def exported(service):
    return [name for request in service.asked(protocol.Export) for name in request.target.sets]


def test_group_is_exported_with_one_ticket(run, stage, service):
    os.unlink(stage.ticket)
    ended = run("iiexport", "-g", "night")
    assert (ended.code, ended.err) == (0, "")
    assert exported(service) == stage.shadows
    ticket = stage.read_ticket()
    assert ticket.group == "night"
    assert ticket.sets == tuple(lent(shadow) for shadow in stage.shadows)


def test_report_says_where_the_tickets_are(run, stage):
    assert run("iiexport", "-g", "night").out.splitlines() == [
        *(f"{shadow}: exported, ticket {shadow}.iiticket" for shadow in stage.shadows),
        f"ticket for all: {stage.ticket}",
    ]


def test_named_sets_have_tickets_of_their_own_only(run, stage, tmp_path):
    os.unlink(stage.ticket)
    result = json.loads(run("iiexport", "--json", *stage.shadows).out)
    assert result["ticket"] is None
    assert result["tickets"] == [f"{shadow}.iiticket" for shadow in stage.shadows]
    assert [one["shadow"] for one in result["sets"]] == stage.shadows
    assert not list(tmp_path.glob("*.iiticket"))


def test_ticket_goes_where_it_is_told(run, stage, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ended = run("iiexport", "--ticket", "mine", *stage.shadows)
    stage.ticket = str(tmp_path / "mine")
    assert f"ticket for all: {stage.ticket}" in ended.out
    assert stage.read_ticket().group is None


def test_ticket_is_for_its_owner_and_leaves_no_scratch(run, stage, tmp_path):
    before = set(os.listdir(tmp_path))
    run("iiexport", "-g", "night")
    assert stat.S_IMODE(os.stat(stage.ticket).st_mode) == 0o600
    assert set(os.listdir(tmp_path)) == before


def test_ticket_of_a_device_is_with_the_service(run, stage, service, monkeypatch):
    # Any device node will do: only its kind is looked at.
    service.rows = [row("/dev/null", group="night")]
    result = json.loads(run("iiexport", "--json", "-g", "night").out)
    tickets = service.state / "tickets"
    assert result["tickets"] == [str(tickets / "00000000-0000-0000-0000-000000000007.json")]
    assert result["ticket"] == str(tickets / "night.iiticket")


REFUSED = {
    "dependent": row("/x", kind="dependent"),
    "imported": row("/x", custody="imported"),
    "offline": row("/x", offline=("bitmap",)),
    "aborted": row("/x", progress="to_shadow"),
    "restoring": row("/x", progress="to_master", copying=True),
}


@pytest.mark.parametrize("why", REFUSED)
def test_unfit_set_is_refused_before_any_is_exported(run, stage, service, why):
    service.rows.append(REFUSED[why])
    ended = run("iiexport", *stage.shadows, "/x")
    assert ended.code in (1, 2)
    assert ended.err.startswith("iiexport: /x: ")
    assert exported(service) == []


@pytest.mark.parametrize(
    ("place", "why"), [("no/such/place", "cannot be written to"), (".", "is a directory")]
)
def test_place_for_the_ticket_is_checked_first(run, stage, service, place, why):
    ended = run("iiexport", "--ticket", place, *stage.shadows)
    assert ended.code == 2
    assert why in ended.err
    assert exported(service) == []


def test_file_that_is_no_ticket_is_not_replaced(run, stage, service):
    ended = run("iiexport", "--ticket", stage.shadows[0], *stage.shadows)
    assert ended.code == 2
    assert "too long for a ticket" in ended.err or "not a ticket" in ended.err
    assert exported(service) == []


@pytest.mark.parametrize("text", ["", None])
def test_empty_file_and_older_ticket_are_replaced(run, stage, text):
    stage.write_ticket(uuid=UUID(int=8))
    if text is not None:
        with open(stage.ticket, "w") as file:
            file.write(text)
    run("iiexport", "-g", "night")
    assert stage.read_ticket().sets[0].bitmap is None


def test_group_that_makes_no_file_name_wants_a_ticket(run, stage, service):
    service.rows = [row(shadow, group="../x") for shadow in stage.shadows]
    ended = run("iiexport", "-g", "../x")
    assert ended.code == 1
    assert "--ticket" in ended.err
    assert exported(service) == []


@pytest.mark.parametrize("words", [[], ["-g", "night", "/x"], ["-g", ""]])
def test_sets_or_a_group_have_to_be_named(run, stage, service, words):
    ended = run("iiexport", *words)
    assert ended.code == 1
    assert service.requests == []


def test_empty_group_is_not_found(run, stage, service):
    ended = run("iiexport", "-g", "none")
    assert (ended.code, ended.err) == (2, "iiexport: none: no sets\n")


def test_refusal_of_one_exports_none(run, stage, service, tmp_path):
    """The service is asked for all at once, and holds all of them closed meanwhile."""
    service.on(protocol.Export, errors.Busy(stage.shadows[1], "is open in tar (7)"))
    ended = run("iiexport", "--ticket", str(tmp_path / "all"), *stage.shadows)
    assert ended.code == 2
    assert ended.err == f"iiexport: {stage.shadows[1]}: is open in tar (7)\n"
    assert not os.path.exists(tmp_path / "all")


def test_set_that_an_earlier_run_has_exported_is_on_the_ticket_too(run, stage, service, tmp_path):
    """K12: what is done is passed over and said."""
    first, second = stage.shadows
    service.on(protocol.Status, [row(first, custody="exported"), row(second)])
    service.on(protocol.Export, [lent(first), lent(second)])
    ended = run("iiexport", "--ticket", str(tmp_path / "all"), first, second)
    assert ended.code == 0
    assert f"{first}: was exported already, ticket {first}.iiticket" in ended.err
    assert second not in ended.err
    found = json.loads((tmp_path / "all").read_text())
    assert [entry["shadow"] for entry in found["sets"]] == [first, second]


@pytest.mark.parametrize("export_number", [1, 2])
def test_ticket_for_all_keeps_what_the_importer_wrote(run, stage, export_number):
    """K12: given again while the group is out, iiexport must not make iijoin impossible."""
    made = Import(UUID(int=3), "/there/second")
    stage.write_ticket(export_number=export_number, imports=(made,))
    assert run("iiexport", "-g", "night").code == 0
    same = export_number == lent("/x").export_number
    for entry in stage.read_ticket().sets:
        assert entry.bitmap == (f"{entry.shadow}.iibm" if same else None)
        assert entry.imports == ((made,) if same else ())


def test_own_ticket_for_all_keeps_the_imports_of_both(run, stage, service):
    """Those of the ticket beside the shadow, which the service knows, and those of the other."""
    one, other = Import(UUID(int=3), "/there/a"), Import(UUID(int=4), "/there/b")
    stage.write_ticket(imports=(one,))
    service.on(protocol.Export, [lent(shadow, imports=(one, other)) for shadow in stage.shadows])
    assert run("iiexport", "-g", "night").code == 0
    assert {entry.imports for entry in stage.read_ticket().sets} == {(one, other)}


def scripted_copy(stage, service, *last):
    """The second set is copied; after two questions it is as `last` says."""
    first, second = stage.shadows
    service.on(
        protocol.Status,
        [row(first), copying(second, left=60)],
        [copying(second, left=20, brought=40)],
        *([one] for one in last),
    )


def test_running_copy_is_waited_for(run, stage, service):
    scripted_copy(stage, service, row(stage.shadows[1], copied_chunks=60))
    service.on(protocol.Wait, errors.WaitTimedOut("", "still copying"), protocol.Noted())
    ended = run("iiexport", *stage.shadows)
    assert (ended.code, ended.err) == (0, "")
    waited = [request.target for request in service.asked(protocol.Wait)]
    assert waited == [Target((stage.shadows[1],))] * 2
    assert exported(service) == stage.shadows


def test_copy_that_stops_while_we_wait_exports_nothing(run, stage, service):
    scripted_copy(stage, service, row(stage.shadows[1], progress="to_shadow", copy_bits=20))
    service.on(protocol.Wait, protocol.Noted(), errors.CopyStopped("", "aborted"))
    ended = run("iiexport", *stage.shadows)
    assert ended.code == 1
    assert ended.err.startswith(f"iiexport: {stage.shadows[1]}: ")
    assert exported(service) == []


def test_progress_is_shown_on_a_terminal(on_terminal, stage, service):
    scripted_copy(stage, service, row(stage.shadows[1], copied_chunks=60))
    ended = on_terminal("iiexport", "--json", *stage.shadows, streams=("stderr",))
    assert ended.code == 0
    assert json.loads(ended.out)
    assert "vol02" in ended.err
    assert "100%" in ended.err
    assert "vol01" not in ended.err
