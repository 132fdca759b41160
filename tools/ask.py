"""Asks the user before something is done that cannot be undone."""

import sys
from collections.abc import Callable
from typing import TypeVar

from iifuse import errors, terminal

R = TypeVar("R")


def agree(question: str, risk: str) -> None:
    """Ask, and return after a yes. Raises Declined after a no, or without a terminal to ask on.

    `risk`: what the command would do, for the message: 'this would overwrite a master'.
    """
    if sys.stdin is None or sys.stderr is None or not sys.stdin.isatty():
        raise errors.Declined(
            "", f"{risk}, and there is no terminal to ask on", "say -n to go ahead"
        )
    while not (answer := _answer(question)):
        pass
    if not "yes".startswith(answer):
        raise errors.Declined("", "nothing was done")


def _answer(question: str) -> str:
    """The beginning of 'yes' or 'no'; 'no' for an empty line; empty: ask again."""
    asked = terminal.fitted(f"{question} (yes/no)", sys.stderr)
    word = _line(asked).strip().lower() or "no"
    return word if "yes".startswith(word) or "no".startswith(word) else ""


def _line(asked: str) -> str:
    """The line that the user types. After Ctrl-C and Ctrl-D the output begins a new line too."""
    line = ""
    try:
        print(asked, end=" ", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
    finally:
        if not line.endswith("\n"):
            print(file=sys.stderr)
    return line


def when_asked(act: Callable[[bool], R], *, sure: bool) -> R:
    """Send a request. If the service answers with a question, ask it and send the request again.

    `act` sends the request; its argument says whether the user is sure. Raises Declined, and what
    `act` raises.
    """
    try:
        return act(sure)
    except errors.Question as error:
        risk = f"{error.subject}: {error.why}" if error.subject else error.why
    agree(f"{risk}.\nGo ahead?", risk)
    return act(True)


def unless_closed(act: Callable[[bool], R], *, sure: bool) -> tuple[R, bool]:
    """Join, or check a join, and ask if the bitmap was not closed on the other host.

    The argument of `act` says whether an unclosed bitmap is accepted. Returns the result of `act`,
    and whether the bitmap had to be accepted. Raises Declined, and what `act` raises.
    """
    try:
        return act(False), False
    except errors.NotClosed as error:
        if not sure:
            agree(
                f"{error}.\nMerge this bitmap all the same?",
                f"this would merge an unclosed bitmap ({error.subject})",
            )
    return act(True), True
