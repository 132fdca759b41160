"""The words for what a command would overwrite, if that may be the only copy of something.

A verb that finds such a loss calls `check`. That refuses the request with a question, which a tool
then asks on its terminal. The commands of an ordinary night find no loss, so they never ask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from iifuse import errors
from iifuse.core.geometry import CHUNK_BYTES
from iifuse.core.header import Header
from iifuse.units import command, count, format_size, format_time

_AGREE: Final = "a yes or -n goes ahead"


@dataclass(frozen=True)
class Loss:
    """Something that may be lost.

    `path`: the volume that would be overwritten. `what`: the rest of a sentence that begins with
    the path.
    """

    path: str
    what: str


def check(losses: Sequence[Loss], *, sure: bool) -> None:
    """Raise Question when something may be lost. `sure`: the user has agreed to it already."""
    if sure or not losses:
        return
    if len(losses) == 1:
        raise errors.Question(losses[0].path, losses[0].what, _AGREE)
    raise errors.Question("", "\n".join(f"{one.path}: {one.what}" for one in losses), _AGREE)


def point_in_time(header: Header) -> str:
    """The point in time that a shadow holds, for people."""
    if not header.pit.number:
        return "an unknown point in time"
    return f"point in time {header.pit.number} of {format_time(header.pit.time_ns)}"


def amount(header: Header, chunks: int) -> str:
    """A number of chunks of a set and their size, for people."""
    size = format_size(min(chunks * CHUNK_BYTES, header.size_bytes))
    return f"{count(chunks, 'chunk')} ({size})"


def of_restore(header: Header, chunks: int) -> Loss:
    """A restore would begin or go on, and would overwrite `chunks` chunks of the master."""
    source = f"{header.shadow}, which holds {point_in_time(header)}"
    if header.state.is_aborted_restore:
        left = f"the {amount(header, chunks)} of it that are still to come from {source}"
        what = f"this would go on to overwrite a master: {left}; what is there now is lost"
        return Loss(header.master, what)
    what = f"this would overwrite a master: {amount(header, chunks)} of it, from {source}"
    return Loss(header.master, f"{what}; what was written to it since then is lost")


def of_siblings(header: Header) -> Loss:
    """A restore would go on without preserving chunks for the master's other sets."""
    return Loss(
        header.master,
        "if other sets of this master are dependent, they lose their points in time",
    )


def of_stranger(header: Header, path: str, source: str, target: str) -> Loss:
    """A copy would go on although one of its volumes is another file now."""
    part = "master" if path == header.master else f"shadow that holds {point_in_time(header)}"
    return Loss(
        target,
        f"this would overwrite chunks of it with those of {source}, though {path} is another file "
        f"than the {part} of this set; only a copy of that one will do",
    )


def of_filled_master(header: Header, holds: str) -> Loss:
    """A lost master would be filled from its shadow.

    `holds`: what was recognised at the master's path; empty: nothing.
    """
    there = f"the {holds}" if holds else "all"
    return Loss(
        header.master,
        f"this would overwrite a master: {there} that is there now, with "
        f"{amount(header, header.geometry.chunks)} from {header.shadow}, which holds "
        f"{point_in_time(header)}",
    )


def of_give_up(header: Header, left: int, *, known: bool) -> Loss:
    """An aborted restore would never be finished.

    `left`: chunks that it has not restored. `known`: is it known which ones?
    """
    done = header.geometry.chunks - left
    parts = (
        f"{amount(header, left)} of it stay as they were before, and the other {done} are of "
        f"{point_in_time(header)} or were written since"
        if known
        else "nobody knows which of its chunks were restored, so all are listed"
    )
    finish = command("iiadm -u m", header.shadow)
    why = "" if header.offline else f"; nothing is offline: {finish} would finish it"
    return Loss(header.master, f"this would end the restore of a master half-way: {parts}{why}")


def of_given_up(header: Header) -> Loss:
    """An update or a new shadow would overwrite the rest of a restore that was given up."""
    return Loss(
        header.shadow,
        f"this would overwrite the rest of {point_in_time(header)}, whose restore was given up: "
        "the master does not have all of it",
    )


def of_lost_pit(header: Header) -> Loss:
    """A dependent set whose bitmap volume has failed would begin a new point in time."""
    return Loss(
        header.shadow,
        f"this would overwrite what it has preserved of {point_in_time(header)}, and a new one "
        "begins: its bitmap volume has failed",
    )


def of_awaited(header: Header, role: str) -> Loss:
    """A dependent set would stop waiting for a volume that may come back."""
    what = point_in_time(header) if header.pit.number else "its point in time"
    return Loss(
        header.shadow,
        f"this would give up {what}, which it shows again by itself when its "
        f"{role} is back, and a new one begins",
    )


def of_wipe(header: Header, why: str) -> Loss:
    """A disable would wipe the beginning of an incomplete shadow."""
    return Loss(
        header.shadow,
        f"this would wipe the beginning of it, and {why}; it may be all that is left of "
        f"{point_in_time(header)}",
    )


def of_nameless(path: str, why: str) -> Loss:
    """A verb would close a volume that its path does not lead to any more.

    That may be the last way to its content.
    """
    return Loss(
        path,
        f"this would close the file that the mount shows, which was replaced while in use: {why}; "
        "it may have no name any more, and all that was written to it is lost then: copy it from "
        "the mount before",
    )


def of_export(header: Header) -> Loss:
    """A verb would take back an exported shadow."""
    return Loss(
        header.shadow,
        f"this would take an exported shadow, {point_in_time(header)}, from its importer, which "
        "must never write to it again; what it has written is not known, so all "
        f"{amount(header, header.geometry.chunks)} count as different then",
    )
