"""`make bench`: how fast iifuse is beside programs that do a part of its work."""

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.console import Console

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "tests" / "support"
sys.path[:0] = [str(HERE), *(str(SUPPORT / part) for part in ("", "clients", "words"))]
os.environ["IIFUSE_WHOLE"] = ""  # each program is started as users start it, not forked

from bench_lib import private  # noqa: E402
from bench_lib.facts import facts, missing_programs, missing_rights  # noqa: E402
from bench_lib.place import FULL, QUICK  # noqa: E402
from bench_lib.progress import progress  # noqa: E402
from bench_lib.report import FAILED, Report, show, write  # noqa: E402
from bench_lib.rows import ROWS, Outcome, chosen, measure  # noqa: E402

PLAIN_WIDTH = 132
"""Columns of the table where there is no terminal."""
INTERRUPTED = 128 + signal.SIGINT


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="bench.py",
        description="Measure iifuse beside its peers. Only ratios within one run count.",
        epilog="Exit code 0: all reached; 1: a reach was missed; 2: a row could not be measured.",
    )
    made.add_argument("--quick", action="store_true", help="one round, small sizes: minutes")
    made.add_argument(
        "--row", type=int, action="append", choices=ROWS, default=[], metavar="N",
        help="measure this row of the table (repeatable); without it all",
    )  # fmt: skip
    made.add_argument(
        "--output", type=Path, metavar="DIR",
        help="write RESULTS.md and results.json there; without it only a full run of all rows "
        "writes them, beside this program",
    )  # fmt: skip
    return made


def main() -> int:
    """Measure; the exit code."""
    arguments = parser().parse_args()
    lacking = _lacking()
    if lacking:
        print(f"bench.py: {lacking}", file=sys.stderr)
        return FAILED
    if not private.is_inside():
        return private.outside()
    private.obey()
    return _measure(arguments)


def _lacking() -> str:
    programs = missing_programs()
    if programs:
        return (
            f"not installed: {', '.join(programs)}; as root, run: "
            f"apt-get install {' '.join(sorted(set(programs.values())))}"
        )
    return missing_rights()


def _measure(arguments: argparse.Namespace) -> int:
    outcomes: list[Outcome] = []
    scale = QUICK if arguments.quick else FULL
    interrupted = False
    try:
        with progress() as tell:
            for group in chosen(arguments.row):
                outcomes.append(measure(group, scale, arguments.row, tell))  # noqa: PERF401 - stays when interrupted
    except KeyboardInterrupt:
        interrupted = True
    report = Report(outcomes, facts(), arguments.quick)
    show(report, _console())
    if interrupted:
        print("bench.py: interrupted; nothing is written", file=sys.stderr)
        return INTERRUPTED
    whole = not arguments.quick and not arguments.row
    directory = arguments.output or (HERE if whole else None)
    if directory is not None:
        write(report, directory, HERE / "LIMITS.md")
    return report.exit_code()


def _console() -> Console:
    return Console(width=None if os.isatty(sys.stdout.fileno()) else PLAIN_WIDTH)


if __name__ == "__main__":
    sys.exit(main())
