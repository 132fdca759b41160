"""Questions before something is done that cannot be taken back."""

import sys
from collections.abc import Callable
from typing import TypeVar

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client

R = TypeVar("R")


def agree(question: str, risk: str) -> None:
    """Return after a yes. Raises Declined after a no, or where there is no terminal to ask on.

    `risk`: what the command does, for a refusal: 'would overwrite a master'.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise errors.Declined(
            "", f"this {risk}, and there is no terminal to ask on", "say -n to go ahead"
        )
    while not (answer := _answer(question)):
        pass
    if not "yes".startswith(answer):
        raise errors.Declined("", "nothing was done")


def _answer(question: str) -> str:
    """'no' for an empty line, some letters of yes or no, or '' to ask again."""
    print(f"{question} (yes/no) ", end="", file=sys.stderr, flush=True)
    word = sys.stdin.readline().strip().lower() or "no"
    return word if "yes".startswith(word) or "no".startswith(word) else ""


def before_restore(client: Client, target: protocol.Target, *, full: bool) -> None:
    """Ask before masters are overwritten. Raises Declined, or NotFound."""
    risk = "would overwrite a master"
    rows = client.status(target)
    if target.group is not None:
        how = "all of" if full else "what differs on"
        agree(
            f"Overwrite {how} the {len(rows)} masters of group {target.group} from their shadows?",
            risk,
        )
        return
    for row in rows:
        agree(f"Overwrite master {row.master} with its shadow {row.shadow}?", risk)


def before_reset(client: Client, target: protocol.Target) -> None:
    """Ask before `-R` takes a lent shadow from its importer, or fills a master that was replaced.

    Raises Declined, or NotFound.
    """
    for row in client.status(target):
        if row.custody == "exported":
            agree(
                f"{row.shadow} is exported, and its importer must never write to it again.\n"
                "Take it back, all its chunks different?",
                "would take an exported shadow from its importer",
            )
        elif "master" in row.offline and row.kind == "independent":
            agree(
                f"{row.master} was missing when the service started.\n"
                f"Overwrite all that is there now with {row.shadow}?",
                "would overwrite a master",
            )


def unless_closed(act: Callable[[bool], R], *, sure: bool) -> tuple[R, bool]:
    """Join or check a join; ask when the bitmap was not closed on the other host.

    `act` is given whether an unclosed bitmap is accepted. The second result says whether it had to
    be. Raises Declined, and what `act` raises.
    """
    try:
        return act(False), False
    except errors.NotClosed as error:
        if not sure:
            agree(
                f"{error}.\nMerge this bitmap all the same?",
                f"would merge an unclosed bitmap ({error.subject})",
            )
    return act(True), True
