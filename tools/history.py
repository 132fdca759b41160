"""The text of `iiadm --history`: a line for each event."""

from iifuse.control import protocol
from iifuse.control.client import Client
from iifuse.control.protocol import HistoryRow
from iifuse.units import count, format_size

from . import show
from .common import printable


def rows(client: Client, target: protocol.Target) -> list[HistoryRow]:
    """All events of a target, the oldest first. The service sends them in several answers."""
    found: list[HistoryRow] = []
    while part := client.call(
        protocol.History(target, found[-1].number if found else 0), list[HistoryRow]
    ):
        found += part
    return found


def line(row: HistoryRow) -> str:
    """The line for an event, with its local time."""
    subject = f"{row.subject}: " if row.subject else ""
    return printable(f"{show.short_time(row.time, zone=True)} {subject}{'; '.join(_parts(row))}")


def _parts(row: HistoryRow) -> list[str]:
    number = f" (point in time {row.pit})" if row.pit else ""
    parts = [f"{row.event}{number}"]
    if row.held_ms is not None:
        parts.append(f"writes were held for {row.held_ms:.3g} ms")
    if row.chunks is not None:
        parts.append(_amount(row))
    elif row.seconds is not None:
        parts.append(f"{row.seconds:.3g} s")
    return [*parts, row.why] if row.why else parts


def _amount(row: HistoryRow) -> str:
    chunks = count(row.chunks or 0, "chunk")
    size = f" ({format_size(row.bytes)})" if row.bytes else ""
    return f"{chunks}{size}" + (f" in {row.seconds:.3g} s" if row.seconds is not None else "")
