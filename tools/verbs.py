"""The tables of iiadm: its actions, the words that each takes, its options and its help.

The parser (`grammar`), the help and the shells' completion are made from these tables.
"""

from dataclasses import dataclass
from typing import Final

SUMMARY: Final = """\
usage: iiadm -e ind|dep MASTER SHADOW BITMAP [-o OPT,...]
       iiadm -u [s|m] SET... [--dry-run] | -c s|m SET... [--dry-run]
       iiadm -d SET... | -a SET... | -w [--timeout S] SET...
       iiadm -i [SET...|all] | -l | --health | --history [--last N] [SET...]
       iiadm -E SET... | -I SHADOW BITMAP [TICKET] | -J SET BITMAP
       iiadm -R SET... | --give-up [--extents FILE] SET
       iiadm -o OPT,... SET... | --attach BITMAP...
       iiadm -g GRP -e|-u|-c|-d|-a|-w|-i|-l|-E|-R|-o ...
       iiadm -g GRP -m SET... | -g -L
       iiadm -h | -v
"""

HELP: Final = """\

Administers point-in-time copies. A set is named by its shadow; its bitmap, its
file on the mount and a master that has no other set will do as well. With no
words: -l.

  -e ind|dep M S B  make a set of master, shadow and bitmap, independent or
                    dependent
  -u [s|m] SET...   update the shadow (s; s without a letter too) or the master
                    (m): a new point in time, common to all; only chunks that
                    differ are copied
  -c s|m SET...     the same, copying every chunk
  --dry-run         with -u and -c: only say what would be copied, and why
  -d SET...         disable: take the set apart
  -a SET...         abort the running copy
  -w SET...         wait for the running copy
  -i [SET...|all]   status; on a terminal in short, with --long in full
  -l                list the sets
  --health          what needs attention, and what to do about it
  --history [SET...]
                    what has happened, to these sets or to all, to volumes and
                    the service
  -E SET...         export the shadow to another host
  -I S B [TICKET]   import a shadow, tracking its changes in bitmap B
  -J SET B          join: take the shadow back, merge the other host's bitmap
  -R SET...         reset: bring back what is offline, or a shadow whose
                    importer is lost
  --give-up SET     end an aborted restore that cannot be finished; prints what
                    was not restored
  -o OPT,... SET... what a failing shadow means; also together with -e:
                      break=shadow   it goes offline, the write goes on (so it
                                     is at first)
                      break=write    the write to the master fails, the shadow
                                     stays good
                      limit=SECONDS  give a slow shadow up after so long; with
                                     limit=none never
                      reserve        with -e: allocate all of the shadow's
                                     space now
  --attach BITMAP...
                    bring back the sets of these bitmap volumes, unknown to the
                    service
  -g GRP            act on all sets of a group; with -e: make the set in it
  -g GRP -m SET...  put sets into a group; an empty GRP takes them out
  -g -L             list the groups
  -n                do not ask, go ahead
  --extents FILE    with --give-up: write what was not restored to a new file
  --last N          with --history: only the newest N lines
  --timeout S       with -w: wait at most S seconds
  --json            print JSON: with -i, -l, -g -L, --health, --history,
                    --dry-run, --give-up
  --socket PATH     control socket of the service (else IIFUSE_SOCKET)
  --instance NAME   the service iifuse@NAME (else the only one that runs)
  --all             with -i, -l, --health, --history: ask every service
  -h, --help        this text
  -v, --version     version

exit codes: 0 done; 1 wrong words, a no, a copy that runs or stopped, --health
with something to say; 2 failed
"""

MANY: Final = 1 << 30

Count = tuple[int, int]
"""(the fewest, the most) words that an action takes."""

SETS: Final = (1, MANY)
NONE: Final = (0, 0)


@dataclass(frozen=True)
class Shape:
    """The words of an action, without a group (`alone`) and with one; None: not possible.

    `what`: its words in a usage line. `word`: a word that users may type instead of its letter.
    """

    alone: Count | None
    grouped: Count | None
    what: str
    word: str


ACTIONS: Final = {
    "e": Shape((3, 3), (3, 3), "MASTER SHADOW BITMAP", "enable"),
    "d": Shape(SETS, NONE, "SET...", "disable"),
    "u": Shape(SETS, NONE, "SET...", "update"),
    "c": Shape(SETS, NONE, "SET...", "copy"),
    "a": Shape(SETS, NONE, "SET...", "abort"),
    "w": Shape(SETS, NONE, "SET...", "wait"),
    "i": Shape((0, MANY), NONE, "[SET...|all]", "status"),
    "l": Shape(NONE, NONE, "", "list"),
    "E": Shape(SETS, NONE, "SET...", "export"),
    "I": Shape((2, 3), None, "SHADOW BITMAP [TICKET]", "import"),
    "J": Shape((2, 2), None, "SET BITMAP", "join"),
    "R": Shape(SETS, NONE, "SET...", "reset"),
    "o": Shape(SETS, NONE, "SET...", "options"),
    "-attach": Shape(SETS, SETS, "BITMAP...", "attach"),
    "-give-up": Shape((1, 1), None, "SET", "give-up"),
    "-health": Shape(NONE, None, "", "health"),
    "-history": Shape((0, MANY), NONE, "[SET...]", "history"),
    "m": Shape(None, SETS, "SET...", "move"),
    "L": Shape(NONE, None, "", "groups"),
    "h": Shape(NONE, None, "", "help"),
    "v": Shape(NONE, None, "", "version"),
}
"""Letter -> shape. A long option stands here without its first dash."""

LONG_ACTIONS: Final = {
    "--attach": "-attach", "--give-up": "-give-up", "--health": "-health",
    "--history": "-history",
    "--help": "h", "--version": "v",
}  # fmt: skip
"""Long option -> action."""

CHOICES: Final = {"e": ("ind", "dep"), "c": ("s", "m"), "u": ("s", "m")}
"""Letter -> the words of which one has to follow. After -u it may be left out."""

EVERY: Final = "all"
"""The word for every set in `-i all`."""


@dataclass(frozen=True)
class Modifier:
    """An option that is used with an action. `name`: its field in Command.

    `value`: what follows the option, in a usage line; empty: nothing. `actions`: the actions that
    it can be used with; empty: all.
    """

    name: str
    value: str
    actions: tuple[str, ...] = ()


MODIFIERS: Final = {
    "--socket": Modifier("socket", "PATH"),
    "--instance": Modifier("instance", "NAME"),
    "--timeout": Modifier("timeout", "S", ("w",)),
    "--last": Modifier("last", "N", ("-history",)),
    "--extents": Modifier("extents", "FILE", ("-give-up",)),
    "--json": Modifier("json", "", (
        "i", "l", "L", "-health", "-history", "u", "c", "-give-up",
    )),
    "--long": Modifier("long", "", ("i",)),
    "--dry-run": Modifier("dry_run", "", ("u", "c")),
    "--all": Modifier("everywhere", "", ("i", "l", "-health", "-history")),
}
"""Long option -> what it is."""


def options() -> list[str]:
    """All options, for the test that compares them with the man page."""
    letters = (*(letter for letter in ACTIONS if not letter.startswith("-")), "g", "n")
    return sorted([*(f"-{letter}" for letter in letters), *LONG_ACTIONS, *MODIFIERS])
