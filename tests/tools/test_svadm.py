import json

import pytest

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import VolumeStatus


@pytest.fixture
def volumes(service):
    service.volumes = [
        VolumeStatus("/prod/v", "/mnt/prod/v", "master", 2048, 1),
        VolumeStatus("/w", "/mnt/w", "none", 4096, 0),
    ]
    return service


@pytest.mark.parametrize(
    ("option", "request_type"), [("-e", protocol.Control), ("-d", protocol.Release)]
)
def test_volumes_go_to_the_service_in_one_request(run, service, option, request_type):
    ended = run("svadm", option, "/v", "/w")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert service.requests == [request_type(("/v", "/w"))]


def test_note_is_no_failure(run, service):
    service.on(protocol.Control, protocol.Noted(("/v is under control already",)))
    ended = run("svadm", "-e", "/v")
    assert (ended.code, ended.out, ended.err) == (0, "", "/v is under control already\n")


def test_release_asks_unless_told_not_to(run, service):
    why = "this would close the file that the mount shows"
    question = errors.Question("/v", why, "a yes or -n goes ahead")
    service.on(protocol.Release, question, protocol.Noted(()))
    asked = run("svadm", "-d", "/v")
    text = f"svadm: /v: {why}, and there is no terminal to ask on; say -n to go ahead\n"
    assert (asked.code, asked.err) == (1, text)
    assert run("svadm", "-n", "-d", "/v").code == 0
    assert service.requests[-1] == protocol.Release(("/v",), sure=True)


def test_notes_are_in_the_json_too(run, service):
    service.on(protocol.Release, protocol.Noted(("so already",)))
    assert json.loads(run("svadm", "-d", "/v", "--json").out) == {"notes": ["so already"]}


@pytest.mark.parametrize("words", [["-e"], ["-d"], ["-e", "-d", "/v"], ["/v"]])
def test_wrong_words_are_a_usage_error(run, service, words):
    ended = run("svadm", *words)
    assert (ended.code, ended.out) == (1, "")
    assert "\nusage: svadm " in ended.err
    assert service.requests == []


@pytest.mark.parametrize(
    ("words", "said"),
    [("-x", "unknown option -x"), ("-E /v", "unknown option -E (did you mean -e?)")],
)
def test_unknown_option_comes_before_what_is_missing(run, words, said):
    assert run("svadm", *words.split()).err.splitlines()[0] == f"svadm: {said}"


def test_list_shows_every_volume(run, volumes):
    assert run("svadm", "-i").out.splitlines() == [
        "/prod/v: master, 2 KiB, open 1, /mnt/prod/v",
        "/w: pass-through, 4 KiB, open 0, /mnt/w",
    ]


def test_list_shows_the_named_volumes(run, volumes):
    rows = json.loads(run("svadm", "-i", "--json", "/w").out)["volumes"]
    assert [row["path"] for row in rows] == ["/w"]


def test_unknown_volume_is_not_found(run, volumes):
    ended = run("svadm", "-i", "/x")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("svadm: /x: not under control")
