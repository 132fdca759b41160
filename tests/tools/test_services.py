"""How a tool finds its service: by name, or the only one that runs."""

import json

import pytest
from fake_service import FakeService, row

from iifuse import __version__, errors
from iifuse.control import protocol, services
from iifuse.control.protocol import Concern, Cost


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Start services as systemd would, below a directory of the test; None: the default one."""
    monkeypatch.delenv(protocol.SOCKET_VARIABLE, raising=False)
    monkeypatch.setattr(services, "RUN_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(services, "DEFAULT_SOCKET", str(tmp_path / "control.sock"))
    started = []

    def start(*names):
        for name in names:
            place = tmp_path / name if name else tmp_path
            place.mkdir(exist_ok=True)
            fake = FakeService(place / "control.sock")
            fake.rows = [row(f"/{name or 'default'}")]
            started.append(fake)
        return started

    yield start
    for fake in started:
        fake.stop()


def test_only_service_that_runs_is_found(run, runs):
    runs("prod")
    assert run("iiadm").out.startswith("ind /prod/prod /prod ")


def test_default_service_comes_before_others(run, runs):
    runs("prod", None)
    assert " /default " in run("iiadm").out


def test_several_services_are_named_and_none_is_asked(run, runs):
    started = runs("prod", "test")
    ended = run("iiadm", "-l")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "iiadm: several services run: prod, test; name one: --instance prod\n"
    assert not any(fake.requests for fake in started)


@pytest.mark.parametrize("program", ["iiadm", "svadm", "iiresync", "iiexport", "iiverify"])
def test_instance_is_found_by_its_name(run, runs, program):
    _, test = runs("prod", "test")
    words = {"iiadm": ["-i"], "svadm": ["-i"]}.get(program, ["/test"])
    run(program, "--instance", "test", *words)
    assert test.requests


def test_instance_beats_the_environment(run, runs, monkeypatch):
    runs("prod", "test")
    monkeypatch.setenv(protocol.SOCKET_VARIABLE, "/nowhere/control.sock")
    assert " /test " in run("iiadm", "--instance", "test", "-l").out


@pytest.mark.parametrize("name", ["", "..", "a/b"])
def test_name_that_is_none_is_refused(run, runs, name):
    ended = run("iiadm", "--instance", name, "-l")
    assert ended.code == 1
    assert "is not the name of an instance" in ended.err


def test_socket_of_a_dead_service_is_none_that_runs(run, runs, tmp_path):
    fakes = runs("dead", "prod")
    fakes.pop(0).stop()
    assert (tmp_path / "dead" / "control.sock").exists()
    assert " /prod " in run("iiadm").out


def test_all_asks_every_service(run, runs):
    runs("prod", "test", None)
    ended = run("iiadm", "-l", "--all")
    heads = [line for line in ended.out.splitlines() if line.startswith("service ")]
    assert heads == [f"service {services.DEFAULT_SOCKET}:", "service prod:", "service test:"]
    sets = json.loads(run("iiadm", "-i", "--all", "--json").out)["sets"]
    assert [(one["instance"], one["shadow"]) for one in sets] == [
        (None, "/default"), ("prod", "/prod"), ("test", "/test")
    ]  # fmt: skip


def test_all_is_refused_where_none_runs(run, runs):
    ended = run("iiadm", "-l", "--all")
    assert ended.code == 2
    assert "no service answers" in ended.err


CONCERN = Concern("/prod", "its copy was aborted", "make a new one")


def test_health_tells_of_each_concern_and_its_way_out(run, runs):
    (prod,) = runs("prod")
    prod.on(protocol.Health, [CONCERN])
    ended = run("iiadm", "--health")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out == "/prod: its copy was aborted; make a new one\n"
    listed = json.loads(run("iiadm", "--health", "--json").out)
    assert listed == {"concerns": [{"subject": CONCERN.subject, "what": CONCERN.what,
                                    "todo": CONCERN.todo}]}  # fmt: skip


def test_health_says_nothing_when_all_is_well(run, runs):
    (prod,) = runs("prod")
    prod.on(protocol.Health, [])
    ended = run("iiadm", "--health")
    assert (ended.code, ended.out, ended.err) == (0, "", "")
    assert json.loads(run("iiadm", "--health", "--json").out) == {"concerns": []}


def test_health_of_all_names_the_service(run, runs):
    for fake in runs("prod", "test"):
        fake.on(protocol.Health, [CONCERN])
    ended = run("iiadm", "--health", "--all")
    assert ended.code == 1
    assert [line.split(":")[0] for line in ended.out.splitlines()] == ["prod", "test"]


def test_service_that_fails_keeps_no_other_from_answering(run, runs):
    broken, _ = runs("broken", "prod")
    broken.on(protocol.Status, errors.StorageError("/state", "input/output error"))
    ended = run("iiadm", "-l", "--all")
    assert ended.code == 2
    assert " /prod " in ended.out
    assert ended.err == "iiadm: broken: /state: input/output error\n"


def test_health_tells_of_a_service_that_was_not_restarted_after_an_upgrade(run, runs):
    (prod,) = runs("prod")
    prod.on(protocol.Health, [])
    prod.on(protocol.Hello, protocol.ServiceInfo("0.0.9", 1, "/mnt", "/state"))
    ended = run("iiadm", "--health")
    assert ended.code == 1
    assert f"runs version 0.0.9, and {__version__} is installed" in ended.out


def test_health_cannot_tell_where_no_service_answers(run, runs):
    assert run("iiadm", "--health").code == 2


def test_dry_run_says_what_would_be_copied_and_changes_nothing(run, runs):
    (prod,) = runs("prod")
    prod.on(protocol.DryRun, [Cost("/prod", "/p", "/prod", 3, 98304, "those that were written")])
    ended = run("iiadm", "-u", "--dry-run", "/prod")
    assert ended.out == "/prod: would copy 3 chunks, 96 KiB to /prod: those that were written\n"
    (listed,) = json.loads(run("iiadm", "-c", "m", "--dry-run", "--json", "/prod").out)["sets"]
    assert (listed["chunks"], listed["bytes"]) == (3, 98304)
    assert not prod.asked(protocol.Update)
