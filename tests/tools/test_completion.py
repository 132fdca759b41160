"""What the shells complete: all that the parsers take, and the names that the service has."""

import importlib
import os
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import distribution

import pytest
from harness import BIN

from iitools import completion

ENTRIES = list(distribution("iifuse").entry_points)
PROGRAMS = [entry.name for entry in ENTRIES]
ENV = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
ASK_BASH = """
complete_() {
    COMP_LINE=$1 COMP_POINT=${#1}
    COMP_WORDS=($1)
    _iifuse && printf '%s\\n' "${COMPREPLY[@]}"
}
"""
ASK_ZSH = """
compadd() { while [[ $1 != -- ]]; do shift; done; shift; print -l -- ${(M)@:#$PREFIX*}; }
_files() { print -l -- $PREFIX*(N); }
compset() { PREFIX=${PREFIX#*=}; }
_iifuse_at() {
    local words=("$@") CURRENT=$# PREFIX=$@[-1]
    _iifuse_again
}
"""


def output(shell, script, cwd=None):
    done = subprocess.run(
        [shell, "-c", script], capture_output=True, text=True, check=False, env=ENV, cwd=cwd
    )
    assert done.stderr == ""
    return sorted(line for line in done.stdout.splitlines() if line)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Both files, with a time limit that a busy machine keeps."""
    place = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh"):
        words = [sys.executable, "-m", "iitools.completion", shell]
        text = subprocess.check_output(words, text=True)
        assert text.count("timeout 2 ") == 2
        (place / shell).write_text(text.replace("timeout 2 ", "timeout 60 "))
    return place


def in_bash(texts, line, cwd=None):
    return output("bash", f". {texts}/bash; {ASK_BASH} complete_ {shlex.quote(line)}", cwd)


def in_zsh(texts, line, cwd=None):
    *head, last = f"{line}x".split()
    words = shlex.join([*head, last[:-1]])
    source = (texts / "zsh").read_text().removesuffix('_iifuse "$@"\n')
    script = f"{ASK_ZSH}\n{source}\nfunctions[_iifuse_again]=$functions[_iifuse]\n"
    return output("zsh", f"{script} _iifuse_at {words}", cwd)


@pytest.fixture(params=["bash", "zsh"])
def complete(request, texts):
    """What a shell offers at the end of a line."""
    if not shutil.which(request.param):
        pytest.skip(f"{request.param} is not installed")
    ask = {"bash": in_bash, "zsh": in_zsh}[request.param]
    return lambda line, cwd=None: ask(texts, line, cwd)


def options_of(entry):
    module = importlib.import_module(entry.module)
    if hasattr(module, "options"):
        return set(module.options())
    return {word for action in module.parser()._actions for word in action.option_strings}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_is_right_in_form(texts, shell):
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    assert output(shell, f"{shell} -n {texts / shell}") == []


@pytest.mark.parametrize("entry", ENTRIES, ids=PROGRAMS)
def test_completion_offers_every_option(texts, entry):
    assert set(in_bash(texts, f"{entry.name} -")) == options_of(entry)


@pytest.mark.parametrize("entry", ENTRIES, ids=PROGRAMS)
def test_completion_knows_the_options_of_every_program(entry):
    assert set(completion.tables().options[entry.name].split()) == options_of(entry)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("iiadm -e ", ["dep", "ind"]),
        ("iiadm -e i", ["ind"]),
        ("iiadm -n -c ", ["m", "s"]),
        ("iiadm --dry", ["--dry-run"]),
        ("iiadm -o lim", ["limit="]),
        ("iiadm --timeout ", []),
        ("iibitmap ch", ["changed", "check"]),
        ("iifuse -o in", ["in_place"]),
        ("iifuse -o durability=p", ["durability=process"]),
    ],
)
def test_completion_offers_what_may_follow(complete, line, offered):
    """Bash replaces only what stands behind the last sign that it splits words at."""
    assert complete(line) in (offered, [word.rpartition("=")[2] for word in offered])


@pytest.mark.parametrize(
    "line", ["iiadm -e ind ", "iiadm -I ", "iiimport ", "svadm -e ", "iibitmap check ", "iifuse "]
)
def test_completion_offers_files_elsewhere(complete, tmp_path, line):
    (tmp_path / "a file").touch()
    (tmp_path / "b").touch()
    assert complete(line, tmp_path)[-2:] == ["a file", "b"]


def test_completion_offers_the_files_of_an_option_with_its_sign(complete, tmp_path):
    (tmp_path / "here.sock").touch()
    assert complete("iiadm --socket=he", tmp_path) == ["here.sock"]


def test_completion_offers_nothing_where_no_service_answers(complete, tmp_path):
    assert complete(f"iiadm --socket {tmp_path}/none -d ") == []


def test_completion_offers_the_names_of_sets_and_groups(complete, new_service, volume, place):
    service = new_service()
    shadow = place / "vol01.shadow"
    service.enable("ind", volume("vol01"), shadow, group="night")
    here = f"--socket {service.socket}"
    assert complete(f"iiadm {here} -d ") == [str(shadow)]
    assert complete(f"iiadm {here} -u ") == sorted([str(shadow), "m", "s"])
    assert complete(f"iiexport {here} {place}/vol") == [str(shadow)]
    assert complete(f"iiresync {here} -g ") == complete(f"iiadm {here} -g ") == ["night"]
    assert complete(f"iiadm {here} -d /nothing") == []
