import pytest

from iifuse import errors
from iitools import grammar, verbs
from iitools.grammar import Command

MEANINGS = {
    "": Command("l"),
    "-l": Command("l"),
    "-i": Command("i"),
    "-i all": Command("i", words=["all"]),
    "-i /s": Command("i", words=["/s"]),
    "-i /s /t": Command("i", words=["/s", "/t"]),
    "-i --long": Command("i", long=True),
    "-i --all": Command("i", everywhere=True),
    "-i --instance prod": Command("i", instance="prod"),
    "-d /s /t": Command("d", words=["/s", "/t"]),
    "-u --dry-run /s": Command("u", "s", ["/s"], dry_run=True),
    "--dry-run -c m /s --json": Command("c", "m", ["/s"], dry_run=True, json=True),
    "--health": Command("-health"),
    "--health --all": Command("-health", everywhere=True),
    "-i --json": Command("i", json=True),
    "--json": Command("l", json=True),
    "--socket /k": Command("l", socket="/k"),
    "--socket=/k -l": Command("l", socket="/k"),
    "-e ind m s b": Command("e", "ind", ["m", "s", "b"]),
    "-e dep m s b": Command("e", "dep", ["m", "s", "b"]),
    "-eind m s b": Command("e", "ind", ["m", "s", "b"]),
    "-g G -e ind m s b": Command("e", "ind", ["m", "s", "b"], group="G"),
    "-ne ind m s b": Command("e", "ind", ["m", "s", "b"], sure=True),
    "-d /s": Command("d", words=["/s"]),
    "-d -- -odd": Command("d", words=["-odd"]),
    "-d /s -n": Command("d", words=["/s"], sure=True),
    "-u /s": Command("u", "s", ["/s"]),
    "-u /s /t": Command("u", "s", ["/s", "/t"]),
    "-u s /s": Command("u", "s", ["/s"]),
    "-u m /s": Command("u", "m", ["/s"]),
    "-um /s": Command("u", "m", ["/s"]),
    "-us /s /t": Command("u", "s", ["/s", "/t"]),
    "-u s ./s": Command("u", "s", ["./s"]),
    "-un /s": Command("u", "s", ["/s"], sure=True),
    "-nu m /s": Command("u", "m", ["/s"], sure=True),
    "-g G -u": Command("u", "s", group="G"),
    "-g G -u s": Command("u", "s", group="G"),
    "-g G -u m -n": Command("u", "m", group="G", sure=True),
    "-u m -g G": Command("u", "m", group="G"),
    "-gG -u": Command("u", "s", group="G"),
    "-c s /s": Command("c", "s", ["/s"]),
    "-c m /s /t": Command("c", "m", ["/s", "/t"]),
    "-a /s": Command("a", words=["/s"]),
    "-g G -a": Command("a", group="G"),
    "-w /s": Command("w", words=["/s"]),
    "-w --timeout 2.5 /s": Command("w", words=["/s"], timeout=2.5),
    "-g G -w --timeout=0": Command("w", group="G", timeout=0.0),
    "-E /s": Command("E", words=["/s"]),
    "-g G -E": Command("E", group="G"),
    "-I /s /b": Command("I", words=["/s", "/b"]),
    "-I /s /b /t": Command("I", words=["/s", "/b", "/t"]),
    "-J /s /b -n": Command("J", words=["/s", "/b"], sure=True),
    "-R /s": Command("R", words=["/s"]),
    "-R /s -n": Command("R", words=["/s"], sure=True),
    "-g G -R": Command("R", group="G"),
    "-g G -m a b,c": Command("m", words=["a", "b,c"], group="G"),
    "-g G -i": Command("i", group="G"),
    "-g G -l": Command("l", group="G"),
    "-g G -d": Command("d", group="G"),
    "--history --last 3 /s": Command("-history", words=["/s"], last=3),
    "-g -L": Command("L"),
    "-g -L --json": Command("L", json=True),
    "-h": Command("h"),
    "--help": Command("h"),
    "-v": Command("v"),
    "--version": Command("v"),
}

REFUSALS = {
    "/s": "no action",
    "-n": "no action",
    "-g G": "no action",
    "--timeout 3": "no action",
    "-d": "-d takes SET...",
    "-u": "-u takes SET...",
    "-u s": "-u takes SET...",
    "-c /s": "-c needs s or m",
    "-c x /s": "-c needs s or m",
    "-cx /s": "-c needs s or m",
    "-e m s b": "-e needs ind or dep",
    "-e shd m s b": "-e needs ind or dep",
    "-e ind m s": "-e takes MASTER SHADOW BITMAP",
    "-e ind m s b o": "-e takes MASTER SHADOW BITMAP",
    "-I /s": "-I takes SHADOW BITMAP [TICKET]",
    "-J /s": "-J takes SET BITMAP",
    "-l /s": "-l takes no volume",
    "-i all /t": "-i takes names of sets or 'all', not both",
    "-u x /s": "x is no direction: s is to the shadow, m to the master; a set of this name is ./x",
    "-u -n m /s": "m has to stand right behind -u: -u m; a set of this name is ./m",
    "-d --dry-run /s": "--dry-run is for -u and -c",
    "-u /s --json": "--json is for -u together with --dry-run",
    "-i --all /s": "--all asks every service about all its sets",
    "-i --all --instance a": "--all asks every service about all its sets",
    "-u --all /s": "--all is for -i, -l, --health and --history",
    "-l --long": "--long is for -i",
    "--instance": "--instance needs a value",
    "--health /s": "--health takes no volume",
    "--export /s": "unknown option --export; did you mean -E?",
    "--helth": "unknown option --helth; did you mean --health?",
    "--jsn": "unknown option --jsn; did you mean --json?",
    "-D /s": "unknown option -D; did you mean -d?",
    "-z": "unknown option -z",
    "export /s": "no action: say what to do; did you mean -E?",
    "exprt /s": "no action: say what to do; did you mean -E?",
    "restore /s": "no action: say what to do; did you mean -u m?",
    "-g G -d /s": "-d takes no volume with -g",
    "-g G -u /s": "-u takes no volume with -g",
    "-g G -m": "-m takes SET... with -g",
    "-m /s": "-m needs -g GRP",
    "-g G -I /s /b": "-I is not for groups",
    "-g G -J /s /b": "-J is not for groups",
    "-d /s -a": "one action at a time, not -d and -a",
    "-d /s -d": "one action at a time, not -d and -d",
    "-u s /s -c s": "one action at a time, not -u and -c",
    "-g -d": "-g needs the name of a group, not -d",
    "-g": "-g needs a value",
    "-g G -g H -d": "one group at a time",
    "-L": "-L is for -g",
    "-g G -L": "-L is for -g",
    "-d --json /s": "--json is for -i, -l, -g -L, --health, --history, -u, -c and --give-up",
    "-d --timeout 3 /s": "--timeout is for -w",
    "-d --extents /f /s": "--extents is for --give-up",
    "--give-up --extents": "--extents needs a value",
    "--give-up /s /t": "--give-up takes SET",
    "-g G --give-up": "--give-up is not for groups",
    "-w --timeout soon /s": "'soon' is not a number of seconds",
    "-w --timeout -1 /s": "'-1' is not a number of seconds",
    "-w --timeout inf /s": "'inf' is not a number of seconds",
    "-w --timeout nan /s": "'nan' is not a number of seconds",
    "--history --last 0": "'0' is not a number of lines",
    "-l --last 3": "--last is for --history",
    "-o limit=0 /s": "limit= takes 1 to 86400 (seconds) or none, not '0'",
    "--socket": "--socket needs a value",
    "--sock /k": "unknown option --sock; did you mean --socket?",
    "--json=1": "unknown option --json=1",
}


@pytest.mark.parametrize("line", MEANINGS)
def test_words_mean_a_command(line):
    assert grammar.parse(line.split()) == MEANINGS[line]


@pytest.mark.parametrize("line", REFUSALS)
def test_wrong_words_are_a_usage_error(line):
    with pytest.raises(errors.UsageError) as caught:
        grammar.parse(line.split())
    assert str(caught.value).startswith(REFUSALS[line])


@pytest.mark.parametrize("letter", "POADQp")
def test_letters_of_later_releases_are_unknown(letter):
    with pytest.raises(errors.UsageError, match=f"unknown option -{letter}"):
        grammar.parse([f"-{letter}", "/s"])


def test_empty_group_takes_sets_out_and_nothing_else():
    assert grammar.parse(["-g", "", "-m", "/s"]) == Command("m", words=["/s"], group="")
    with pytest.raises(errors.UsageError, match="an empty group name"):
        grammar.parse(["-g", "", "-d"])


def test_help_describes_every_option():
    described = {word.strip(",") for word in verbs.HELP.split()}
    assert set(verbs.options()) <= described


def test_help_fits_a_terminal_of_80_columns():
    assert max(map(len, (verbs.SUMMARY + verbs.HELP).splitlines())) < 80


@pytest.mark.parametrize(
    ("line", "form"),
    [
        ("-o", "-o OPT,... SET..."),
        ("-w", "-w [--timeout S] SET..."),
        ("-u", "-u [s|m] SET..."),
        ("-c", "-c s|m SET..."),
        ("--history", "--history [--last N] [SET...]"),
    ],
)
def test_usage_shows_what_an_action_takes(line, form):
    assert grammar.usage([line]).startswith(f"usage: iiadm {form};")
