import json
import os
import re

import msgspec
import pytest
from fake_service import copying, row

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import Target

REQUESTS = {
    "-e ind /m /s /b": protocol.Enable("ind", "/m", "/s", "/b"),
    "-g G -e dep /m /s /b": protocol.Enable("dep", "/m", "/s", "/b", "G"),
    "-d /s": protocol.Disable(Target(("/s",))),
    "-g G -d": protocol.Disable(Target(group="G")),
    "-u /s": protocol.Update("s", full=False, target=Target(("/s",))),
    "-u s /s /t": protocol.Update("s", full=False, target=Target(("/s", "/t"))),
    "-u s /s,/t": protocol.Update("s", full=False, target=Target(("/s", "/t"))),
    "-u /s /s": protocol.Update("s", full=False, target=Target(("/s",))),
    "-c s /s": protocol.Update("s", full=True, target=Target(("/s",))),
    "-g G -u": protocol.Update("s", full=False, target=Target(group="G")),
    "-g G -c m -n": protocol.Update("m", full=True, target=Target(group="G"), sure=True),
    "-n -u m /s": protocol.Update("m", full=False, target=Target(("/s",)), sure=True),
    "-n -e ind /m /s /b": protocol.Enable("ind", "/m", "/s", "/b", sure=True),
    "-n -d /s": protocol.Disable(Target(("/s",)), sure=True),
    "-n -R /s": protocol.Reset(Target(("/s",)), sure=True),
    "-n -I /s /b /t": protocol.Import("/s", "/b", "/t", sure=True),
    "-a /s": protocol.Abort(Target(("/s",))),
    "-w /s": protocol.Wait(Target(("/s",))),
    "-g G -w --timeout 5": protocol.Wait(Target(group="G"), 5.0),
    "-E /s": protocol.Export(Target(("/s",))),
    "-I /s /b": protocol.Import("/s", "/b"),
    "-I /s /b /t": protocol.Import("/s", "/b", "/t"),
    "-J /s /b": protocol.Join("/s", "/b"),
    "-g G -m /s,/t": protocol.Move("G", ("/s", "/t")),
    "-g G -m /s /t": protocol.Move("G", ("/s", "/t")),
    "-i": protocol.Status(Target()),
    "-i all": protocol.Status(Target()),
    "-i /s": protocol.Status(Target(("/s",))),
    "-g G -i": protocol.Status(Target(group="G")),
    "-l": protocol.Status(Target()),
    "-g -L": protocol.Groups(),
}


@pytest.fixture
def two(service):
    service.rows = [row("/s", group="G"), row("/t", group="G")]
    return service


@pytest.mark.parametrize("line", REQUESTS)
def test_action_sends_one_request(run, two, line):
    ended = run("iiadm", *line.split())
    told = line.startswith("-g G -") and set(line.split()) & {"-d", "m"}
    assert (ended.code, ended.err != "") == (0, bool(told))
    looks = [] if isinstance(REQUESTS[line], protocol.Status) else two.asked(protocol.Status)
    assert [asked for asked in two.requests if asked not in looks] == [REQUESTS[line]]


@pytest.mark.finding("K15.14")
@pytest.mark.parametrize(
    ("line", "done"), [("-g G -d", "disabled"), ("-g G -u m -n", "is restored from it, ")]
)
def test_command_on_a_group_says_what_it_did_to_which_set(run, two, line, done):
    ended = run("iiadm", *line.split())
    said = ended.err.splitlines()
    assert [row.shadow for row in two.rows] == [text.partition(":")[0] for text in said]
    assert all(done in text for text in said)
    assert ended.out == ""


CHANGES = [
    line
    for line, request in REQUESTS.items()
    if not isinstance(request, protocol.Status | protocol.Groups | protocol.Export)
]


@pytest.mark.parametrize("line", CHANGES)
def test_change_prints_nothing(run, two, line):
    assert run("iiadm", *line.split()).out == ""


def test_list_with_commas_may_have_spaces(run, two):
    run("iiadm", "-g", "G", "-m", "/s, /t,", "/u")
    assert two.requests == [protocol.Move("G", ("/s", "/t", "/u"))]


def test_empty_group_name_takes_sets_out(run, two):
    run("iiadm", "-g", "", "-m", "/s")
    assert two.requests == [protocol.Move("", ("/s",))]


def test_file_with_a_comma_in_its_name_is_one_set(run, service, tmp_path):
    odd = tmp_path / "a,b"
    odd.touch()
    service.rows = [row(str(odd))]
    run("iiadm", "-u", str(odd))
    assert service.requests[0].target.sets == (str(odd),)


def test_paths_become_absolute_and_links_stay(run, two, tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    run("iiadm", "-e", "ind", "link/m", "./s", "real/../b")
    sent = two.requests[0]
    assert [sent.master, sent.shadow, sent.bitmap] == [
        str(tmp_path / name) for name in ("link/m", "s", "b")
    ]


@pytest.mark.parametrize("name", ["", os.fsdecode(b"/s\xff")])
def test_name_that_cannot_be_sent_is_refused(run, two, name):
    ended = run("iiadm", "-d", name)
    assert ended.code == 1
    assert two.requests == []


@pytest.mark.parametrize("line", ["-u ,", "-g G -m ,"])
def test_list_of_no_names_is_refused(run, two, line):
    assert run("iiadm", *line.split()).code == 1
    assert two.requests == []


def test_notes_of_the_service_go_to_stderr(run, two):
    two.on(protocol.Disable, protocol.Noted(("the first 56 KiB were wiped",)))
    ended = run("iiadm", "-d", "/s")
    assert (ended.code, ended.out, ended.err) == (0, "", "the first 56 KiB were wiped\n")


LOST = errors.Question("/m", "this would overwrite a master: 3 chunks", "a yes or -n goes ahead")

ASKED = {
    "-u m /s": protocol.Update,
    "-c m /s": protocol.Update,
    "-g G -u m": protocol.Update,
    "-e ind /m /s /b": protocol.Enable,
    "-d /s": protocol.Disable,
    "-R /s": protocol.Reset,
    "-g G -R": protocol.Reset,
    "-I /s /b": protocol.Import,
}
"""Words that the service may answer with a question, and the request that they become."""


def answers(line):
    """What the service answers to a request that nobody is sure about, and then."""
    return [LOST, [row("/s")] if ASKED[line] is protocol.Update else protocol.Noted(("done",))]


@pytest.mark.parametrize("line", ASKED)
def test_question_without_a_terminal_is_a_refusal(run, two, line):
    two.on(ASKED[line], *answers(line))
    ended = run("iiadm", *line.split())
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == (
        "iiadm: /m: this would overwrite a master: 3 chunks, and there is no terminal to ask on; "
        "say -n to go ahead\n"
    )
    assert [request.sure for request in two.requests] == [False]


@pytest.mark.parametrize("line", ASKED)
@pytest.mark.parametrize("typed", ["y\n", "YES\n", "ye\n", "what?\nyes\n"])
def test_yes_sends_the_request_again(on_terminal, two, line, typed):
    two.on(ASKED[line], *answers(line))
    ended = on_terminal("iiadm", *line.split(), typed=typed)
    assert (ended.code, ended.out) == (0, "")
    assert "/m: this would overwrite a master: 3 chunks.\nGo ahead? (yes/no) " in ended.err
    assert ended.err.count("(yes/no)") == typed.count("\n")
    first, second = two.asked(ASKED[line])
    assert (first.sure, second.sure) == (False, True)
    assert msgspec.structs.replace(first, sure=True) == second


@pytest.mark.parametrize("typed", ["\n", "n\n", "No\n", "yesterday\nn\n", "\x04"])
def test_anything_else_overwrites_nothing(on_terminal, two, typed):
    two.on(protocol.Update, LOST)
    ended = on_terminal("iiadm", "-u", "m", "/s", typed=typed)
    assert ended.code == 1
    assert ended.err.endswith("iiadm: nothing was done\n")
    assert [request.sure for request in two.requests] == [False]


@pytest.mark.parametrize("line", ASKED)
def test_n_is_sent_at_once(run, two, line):
    two.on(ASKED[line], *answers(line)[1:])
    assert run("iiadm", "-n", *line.split()).code == 0
    assert [request.sure for request in two.requests] == [True]


@pytest.mark.parametrize(
    ("line", "target"), [("-R /s", Target(("/s",))), ("-g G -R", Target(group="G"))]
)
def test_reset_says_what_was_done(run, two, line, target):
    two.on(protocol.Reset, protocol.Noted(("/s: nothing is offline",)))
    ended = run("iiadm", *line.split())
    assert (ended.code, ended.out, ended.err) == (0, "", "/s: nothing is offline\n")
    assert two.requests == [protocol.Reset(target)]


def test_reset_of_an_unknown_set_is_refused(run, two):
    two.on(protocol.Reset, errors.NotFound("/gone", "no such set"))
    assert run("iiadm", "-R", "/gone").code == 2


UNCLOSED = errors.NotClosed("/b", "was not closed on the other host", "disable it there")


def test_unclosed_bitmap_without_a_terminal_is_refused(run, two):
    two.on(protocol.Join, UNCLOSED)
    ended = run("iiadm", "-J", "/s", "/b")
    assert ended.code == 1
    assert "no terminal" in ended.err
    assert two.requests == [protocol.Join("/s", "/b")]


@pytest.mark.parametrize(("typed", "code", "tries"), [("y\n", 0, 2), ("\n", 1, 1)])
def test_unclosed_bitmap_is_asked_about(on_terminal, two, typed, code, tries):
    two.on(protocol.Join, UNCLOSED, protocol.Noted())
    ended = on_terminal("iiadm", "-J", "/s", "/b", typed=typed)
    assert ended.code == code
    assert "/b: was not closed" in ended.err
    accepted = [request.accept_unclosed for request in two.asked(protocol.Join)]
    assert accepted == [False, True][:tries]


def test_n_accepts_an_unclosed_bitmap(run, two):
    two.on(protocol.Join, UNCLOSED, protocol.Noted())
    assert run("iiadm", "-n", "-J", "/s", "/b").code == 0
    assert two.requests[-1] == protocol.Join("/s", "/b", accept_unclosed=True)


def test_status_of_an_idle_set(run, service, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    service.rows = [row("/s", group="G", shadow_bits=1, percent=1.56)]
    assert run("iiadm", "-i").out.splitlines() == [
        "/prod/s: (master volume)",
        "/s: (shadow volume)",
        "/prod/s.bmp: (bitmap volume)",
        "Group name: G",
        "Independent copy",
        "Latest modified time: Sat Feb  3 04:05:06 2024 UTC (point in time 3)",
        "Volume size:     4096 (2 MiB)",
        "Chunks total: 64 Chunk size: 32 KiB",
        "Percent of bitmap set: 1",
        "\t(bitmap dirty)",
    ]


STATES = {
    "Independent copy": row("/s"),
    "Independent copy, copy in progress, copying master to shadow": copying("/s", 5),
    "Independent copy, copy not active, copying shadow to master": row("/s", progress="to_master"),
    "Dependent copy, compacted shadow space, out of space": row(
        "/s", kind="compact", out_of_space=True
    ),
    "Dependent copy, master volume offline, bitmap volume offline": row(
        "/s", kind="dependent", offline=("bitmap", "master"), offline_reason="gone"
    ),
    "Independent copy, shadow volume exported": row("/s", custody="exported"),
    "Independent copy, shadow volume imported": row("/s", custody="imported", master=None),
}


@pytest.mark.parametrize("words", STATES)
def test_status_says_the_state_in_the_old_words(run, service, words):
    service.rows = [STATES[words]]
    assert words in run("iiadm", "-i").out.splitlines()


def test_status_says_why_a_volume_is_offline(run, service):
    service.rows = [row("/s", offline=("shadow",), offline_reason="I/O error at 5")]
    assert "Reason: I/O error at 5" in run("iiadm", "-i").out.splitlines()


def test_status_of_a_running_copy_shows_its_progress(run, service):
    service.rows = [copying("/s", left=30, brought=10)]
    assert "Chunks copied: 10 of 40 (25%)" in run("iiadm", "-i").out.splitlines()


def test_status_of_an_aborted_copy_shows_its_progress_too(run, service):
    service.rows = [copying("/s", left=3, brought=1, copying=False)]
    assert "Chunks copied: 1 of 4 (25%)" in run("iiadm", "-i").out.splitlines()


def test_clean_bitmap_is_told_from_nearly_clean(run, service):
    service.rows = [row("/s"), row("/t", shadow_bits=1, percent=0.001)]
    lines = run("iiadm", "-i").out.splitlines()
    percents = [at for at, line in enumerate(lines) if line == "Percent of bitmap set: 0"]
    assert [lines[at + 1] for at in percents] == ["\t(bitmap clean)", "\t(bitmap dirty)"]


def test_statuses_are_parted_by_a_rule(run, two):
    assert run("iiadm", "-i").out.splitlines().count("-" * 78) == 1


def test_json_has_the_fields_of_the_protocol(run, two):
    sets = json.loads(run("iiadm", "-i", "--json").out)["sets"]
    assert [one["shadow"] for one in sets] == ["/s", "/t"]
    assert set(sets[0]) == set(protocol.SetStatus.__struct_fields__)
    assert sets[0]["overflow"] is None
    assert sets[0]["uuid"] == "00000000-0000-0000-0000-000000000007"


def test_json_of_no_sets_is_an_empty_list(run, service):
    assert json.loads(run("iiadm", "-l", "--json").out) == {"sets": []}


def test_list_on_a_pipe_is_one_line_for_each_set(run, service):
    service.rows = [row("/s"), row("/t", kind="dependent"), row("/i", master=None)]
    lines = run("iiadm").out.splitlines()
    assert lines == [
        "ind /prod/s /s /prod/s.bmp idle",
        "dep /prod/t /t /prod/t.bmp idle",
        "ind - /i /prod/i.bmp idle",
    ]


def test_list_on_a_terminal_is_a_table(on_terminal, service):
    service.rows = [row("/s[bold]", group="G")]
    ended = on_terminal("iiadm", "-l", streams=("stdout",))
    assert ended.code == 0
    assert "kind" in ended.out
    assert "/s[bold]" in ended.out
    assert "idle" in ended.out


def test_list_on_a_narrow_terminal_leaves_paths_whole(on_terminal, service):
    long = "/srv/" + "x" * 300
    service.rows = [row(long)]
    assert f" {long} " in on_terminal("iiadm", "-l", streams=("stdout",)).out


def test_list_on_80_columns_has_a_header_and_groups(on_terminal, service):
    paths = {"master": "/san/prod/vol01", "bitmap": "/san/bitmaps/vol01.bmp"}
    service.rows = [row("/san/backup/vol01", group="Backup1", **paths)]
    ended = on_terminal("iiadm", "-l", streams=("stdout",), columns=80)
    head, line = ended.out.splitlines()
    assert head.split()[-1].endswith("state\x1b[0m")
    assert line.split() == [
        "ind", "/san/prod/vol01", "/san/backup/vol01", "/san/bitmaps/vol01.bmp", "Backup1", "idle"
    ]  # fmt: skip
    service.rows = [row("/san/storage/backup/vol01", group="Backup1", **paths)]
    ended = on_terminal("iiadm", "-l", streams=("stdout",), columns=80)
    assert ended.out.splitlines()[1].split() == [
        "ind", "/san/prod/vol01", "/san/storage/backup/vol01", "Backup1", "idle"
    ]  # fmt: skip


def test_status_in_short_fits_80_columns(on_terminal, service):
    paths = {"master": "/san/prod/vol01", "bitmap": "/san/bitmaps/vol01.bmp"}
    service.rows = [
        row("/san/backup/vol01", group="Backup1", percent=0.01, chunks=9000, pit=12, **paths)
    ]
    shown = on_terminal("iiadm", "-i", streams=("stdout",)).out
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    assert max(map(len, lines)) < 80
    assert re.match(
        r"  point in time 12 of 2024-\d\d-\d\d \d\d:\d\d:\d\d, less than 0.1%", lines[2]
    )


def test_no_sets_are_said_on_stderr(run, service):
    ended = run("iiadm", "-l")
    assert (ended.code, ended.out, ended.err) == (0, "", "iiadm: no sets\n")


def test_groups_are_listed_one_by_one(run, service):
    service.rows = [row("/s", group="B"), row("/t", group="A")]
    assert run("iiadm", "-g", "-L").out == "A\nB\n"
    assert json.loads(run("iiadm", "-g", "-L", "--json").out) == {"groups": ["A", "B"]}


def test_second_action_is_a_usage_error_with_a_summary(run, two):
    ended = run("iiadm", "-d", "/s", "-a", "/s")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("iiadm: one action at a time")
    assert "\nusage: iiadm " in ended.err
    assert two.requests == []
