"""What holds for every program."""

import json
import os
import signal
import subprocess
import threading

import pytest
from fake_service import FakeService
from harness import BIN

from iifuse import __version__, errors
from iifuse.control import protocol
from iifuse.control.client import Client

WORDS = {
    "iiadm": ["-i"],
    "svadm": ["-i"],
    "iiexport": ["-g", "night"],
    "iiimport": ["TICKET"],
    "iijoin": ["TICKET"],
    "iiresync": ["-g", "night"],
    "iiverify": ["-g", "night"],
}
"""Program -> words that make it ask the service."""

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
"""So that the interpreter has something left to write when it exits."""

FIRST = protocol.Status, protocol.Volumes, protocol.CheckJoin, protocol.Update
"""One of these every program sends."""

every_client = pytest.mark.parametrize("program", WORDS)
every_program = pytest.mark.parametrize("program", [*WORDS, "iibitmap"])


def words(program, stage):
    return [stage.ticket if word == "TICKET" else word for word in WORDS.get(program, ["size"])]


@every_program
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_goes_to_stdout(run, program, option):
    ended = run(program, option)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"usage: {program} ")
    assert ("--socket" in ended.out) is (program in WORDS)
    assert "exit codes" in ended.out


@every_program
def test_version_goes_to_stdout(run, program):
    ended = run(program, "--version")
    assert (ended.code, ended.out, ended.err) == (0, f"{program} (iifuse) {__version__}\n", "")


@every_program
def test_unknown_option_is_a_usage_error(run, program, stage):
    ended = run(program, "--frob", *words(program, stage))
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith(f"{program}: ")
    assert "--frob" in ended.err
    assert f"\nusage: {program} " in ended.err


@every_client
def test_no_service_is_named_with_its_socket(run, program, stage, tmp_path):
    gone = str(tmp_path / "gone.sock")
    ended = run(program, "--socket", gone, *words(program, stage))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"{program}: {gone}: no service answers")


@every_client
def test_socket_option_beats_the_environment(run, program, stage, service, tmp_path, monkeypatch):
    monkeypatch.setenv(protocol.SOCKET_VARIABLE, str(tmp_path / "gone.sock"))
    run(program, "--socket", service.path, *words(program, stage))
    assert service.requests


@every_client
def test_json_is_the_whole_output(run, program, stage):
    stage.write_ticket(bitmaps=program == "iijoin")
    ended = run(program, "--json", *words(program, stage))
    assert (ended.code, ended.err) == (0, "")
    assert isinstance(json.loads(ended.out), dict)


@every_client
def test_error_of_the_service_sets_the_exit_code(run, program, stage, service):
    for kind in FIRST:
        service.on(kind, errors.CopyRunning("/x", "is copied", "wait"))
    ended = run(program, *words(program, stage))
    assert (ended.code, ended.out, ended.err) == (1, "", f"{program}: /x: is copied; wait\n")


@every_client
def test_defect_is_one_line_without_a_traceback(run, program, stage, monkeypatch):
    def broken(*_args):
        raise RuntimeError("boom")

    monkeypatch.setattr(Client, "call", broken)
    ended = run(program, *words(program, stage))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == f"{program}: unexpected RuntimeError (boom)\n"


@every_client
def test_interrupt_ends_with_130_and_a_short_line(run, program, stage, service):
    def interrupt(_request):
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        blocked.wait(60)

    blocked = threading.Event()
    for kind in FIRST:
        service.on(kind, interrupt)
    ended = run(program, *words(program, stage))
    blocked.set()
    assert ended.code == 130
    done = {"iiresync": "what the service has begun goes on"}.get(program, "nothing was done")
    assert ended.err == f"{program}: interrupted; {done}\n"
    assert ended.err.count("\n") == 1


@every_program
def test_broken_pipe_is_quiet(program):
    reader, writer = os.pipe()
    os.close(reader)
    command = [BIN / program, "--help"]
    ended = subprocess.run(
        command, stdout=writer, stderr=subprocess.PIPE, env=BUFFERED, check=False
    )
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


@every_program
def test_full_output_is_an_error(program):
    command = [BIN / program, "--help"]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, env=BUFFERED, check=False
        )
    assert ended.returncode == 2
    assert ended.stderr == f"{program}: standard output: No space left on device\n".encode()


@pytest.mark.parametrize("error", errors.BY_NAME.values(), ids=errors.BY_NAME)
def test_every_error_class_brings_its_exit_code(run, service: FakeService, error):
    service.on(protocol.Status, error("/x", "why"))
    ended = run("iiadm", "-i")
    assert ended.code == error.exit_code
    assert ended.err.startswith("iiadm: /x: why\n")
