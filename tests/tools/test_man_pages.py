"""A man page names the options that its program takes, no more and no fewer."""

import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest

MAN = Path(__file__).parents[2] / "man"
PROGRAMS = (
    "iiadm", "svadm", "iiexport", "iiimport", "iijoin", "iiresync", "iiverify", "iibitmap",
)  # fmt: skip
OWN_CODES = {"iibitmap": ["3"]}

MACROS = ("It", "Fl", "Ar", "Cm", "Ns", "Op", "Oo", "Oc")

every_program = pytest.mark.parametrize("program", PROGRAMS)


def source(program):
    return (MAN / f"{program}.8").read_text()


def flags(text):
    """The options that stand behind the macro Fl, as in `Fl d | a | E Ar set`."""
    return {f"-{word}" for line in text.splitlines() for word in flags_of_line(line.split())}


def flags_of_line(words):
    behind = False
    for word in words:
        if word.lstrip(".") in MACROS:
            behind = word.endswith("Fl")
        elif behind and re.fullmatch(r"-?[A-Za-z][a-z]*(-[a-z]+)*", word):
            yield word


@every_program
def test_page_explains_exactly_the_options(program):
    items = "\n".join(line for line in source(program).splitlines() if line.startswith(".It Fl"))
    assert sorted(flags(items)) == import_module(f"iitools.{program}").options()


@every_program
def test_page_mentions_no_other_option(program):
    unknown = flags(source(program)) - set(import_module(f"iitools.{program}").options())
    assert unknown == set()


@every_program
def test_synopsis_shows_what_changes_the_result(program):
    synopsis = source(program).partition(".Sh SYNOPSIS")[2].partition(".Sh DESCRIPTION")[0]
    everywhere = {"-h", "--help", "-v", "--version", "--socket", "--instance"}
    assert set(import_module(f"iitools.{program}").options()) - everywhere <= flags(synopsis)


@every_program
def test_page_names_every_exit_code(program):
    status = source(program).partition(".Sh EXIT STATUS")[2].partition(".Sh ")[0]
    assert re.findall(r"^\.It (\d+)$", status, re.MULTILINE) == [
        "0", "1", "2", *OWN_CODES.get(program, []), "130", "141",
    ]  # fmt: skip


@every_program
@pytest.mark.skipif(not shutil.which("mandoc"), reason="mandoc is not installed")
def test_page_is_clean_mdoc(program):
    command = ["mandoc", "-T", "lint", "-W", "warning", str(MAN / f"{program}.8")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "")
