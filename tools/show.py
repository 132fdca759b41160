"""How sets are shown to people: the status of `iiadm -i` and the list of `iiadm -l`."""

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from iifuse.control.protocol import SetStatus
from iifuse.units import count, format_size

RULE: Final = "-" * 78
BLOCK_BYTES: Final = 512
"""A unit in which sizes are shown, as the original does, beside binary units."""
_COLUMNS: Final = ("kind", "master", "shadow", "bitmap", "group", "state")
_FEW_COLUMNS: Final = ("kind", "master", "shadow", "group", "state")
"""The columns of `iiadm -l` on a narrow terminal."""


def statuses(rows: Iterable[SetStatus]) -> str:
    """The text of `iiadm -i`."""
    return f"\n{RULE}\n".join("\n".join(_status(row)) for row in rows)


def _status(row: SetStatus) -> list[str]:
    lines = [f"{path}: ({role} volume)" for role, path in _volumes(row) if path]
    if row.group:
        lines.append(f"Group name: {row.group}")
    lines.append(", ".join(state_words(row)))
    if row.ticket:
        lines.append(f"Ticket: {row.ticket}")
    if row.offline_reason:
        lines.append(f"Reason: {row.offline_reason}")
    lines += policy(row)
    lines.append(f"Latest modified time: {_point_in_time(row)}")
    lines.append(f"Volume size: {row.size_bytes // BLOCK_BYTES:8} ({format_size(row.size_bytes)})")
    lines.append(f"Chunks total: {row.chunks} Chunk size: {format_size(row.chunk_bytes)}")
    if row.progress != "idle":
        lines.append(copied(row))
    lines.append(f"Percent of bitmap set: {int(row.percent)}")
    # By this line 0 differs from a little more than 0.
    marked = row.shadow_bits or row.copy_bits
    lines.append("\t(bitmap dirty)" if marked else "\t(bitmap clean)")
    return lines


def _point_in_time(row: SetStatus) -> str:
    """The point in time of a set. It is unknown if the bitmap volume is lost or missing."""
    if not row.pit:
        return "unknown (point in time unknown)"
    return f"{local_time(row.pit_time)} (point in time {row.pit})"


def on_terminal() -> bool:
    """Does a person see what is printed?"""
    return sys.stdout is not None and sys.stdout.isatty()


def percent(value: float) -> str:
    """A percentage. Only an exact 0 or 100 is shown as 0 or 100."""
    if 0 < value < 0.1:
        return "less than 0.1%"
    return f"{min(value, 99.9) if value < 100 else value:.3g}%"


def policy(row: SetStatus) -> list[str]:
    """Lines about everything that is unusual: the policy, imports, remote volumes, a full disk."""
    lines = []
    if row.break_write:
        lines.append("When the shadow fails: writes to the master fail")
    if row.limit_s:
        lines.append(f"A slow shadow is given up after: {row.limit_s} s")
    lines += [f"An import with {bitmap} is not joined" for bitmap in row.unjoined]
    if row.remote:
        lines.append(f"May wait for somebody far away: {', '.join(row.remote)}")
    if row.fills:
        lines.append(f"The shadow is sparse, its file system is {row.space_percent}% full")
    return lines


def _volumes(row: SetStatus) -> list[tuple[str, str | None]]:
    parts = ("master", row.master), ("shadow", row.shadow), ("bitmap", row.bitmap)
    return [*parts, ("overflow", row.overflow)]


def state_words(row: SetStatus) -> list[str]:
    """The state of a set in the words that scripts have always looked for, in their order."""
    kind = "Independent copy" if row.kind == "independent" else "Dependent copy"
    words = {
        "compacted shadow space": row.kind == "compact",
        "copy in progress": row.copying,
        "copy not active": not row.copying and row.progress != "idle",
        "copying master to shadow": row.progress == "to_shadow",
        "copying shadow to master": row.progress == "to_master",
        "master volume offline": "master" in row.offline,
        "shadow volume offline": "shadow" in row.offline,
        "bitmap volume offline": "bitmap" in row.offline,
        "overflow volume offline": "overflow" in row.offline,
        "shadow volume exported": row.custody == "exported",
        "shadow volume imported": row.custody == "imported",
        "out of space": row.out_of_space,
    }
    return [kind, *(word for word, holds in words.items() if holds)]


def local_time(stamp: str | None) -> str:
    """The local time of an ISO 8601 text. A text that cannot be read is returned as it is."""
    if stamp is None:
        return "unknown"
    try:
        return f"{datetime.fromisoformat(stamp).astimezone():%a %b %e %H:%M:%S %Y %Z}"
    except ValueError:
        return stamp


def short_time(stamp: str | None, *, zone: bool = False) -> str:
    """The local time in digits. `zone`: add the time zone."""
    form = f"%Y-%m-%d %H:%M:%S{' %Z' if zone else ''}"
    if stamp is None:
        return "unknown"
    try:
        return f"{datetime.fromisoformat(stamp).astimezone():{form}}"
    except (ValueError, OverflowError):
        return stamp


def amount(row: SetStatus) -> str:
    """How much a copy that has just begun has to copy, for people."""
    chunks = row.copied_chunks + row.copy_bits
    size = format_size(min(chunks * row.chunk_bytes, row.size_bytes))
    return f"{count(chunks, 'chunk')} ({size})"


def copied_percent(row: SetStatus) -> int:
    """How much of a set's copy is done, in percent."""
    total = row.copied_chunks + row.copy_bits
    return 100 * row.copied_chunks // total if total else 100


def copied(row: SetStatus) -> str:
    """How far a copy is, for people."""
    total = row.copied_chunks + row.copy_bits
    return f"Chunks copied: {row.copied_chunks} of {total} ({copied_percent(row)}%)"


def listing(rows: Iterable[SetStatus]) -> str:
    """The text of `iiadm -l`: a table if the terminal is wide enough, and plain lines otherwise.

    On a narrow terminal the table lacks the bitmaps, which `-i` shows.
    """
    rows = list(rows)
    if not on_terminal():
        return "\n".join(" ".join((*_names(row), _state(row))) for row in rows)
    table = _table(rows, _COLUMNS) or _table(rows, _FEW_COLUMNS)
    return table or "\n".join(_long_line(row) for row in rows)


def _long_line(row: SetStatus) -> str:
    group = f", group {row.group}" if row.group else ""
    return f"{' '.join(_names(row))} {_state(row)}{group}"


def _state(row: SetStatus) -> str:
    return ", ".join(state_words(row)[1:]) or "idle"


def _names(row: SetStatus) -> tuple[str, str, str, str]:
    kind = "ind" if row.kind == "independent" else "dep"
    return kind, row.master or "-", row.shadow, row.bitmap


def _cells(row: SetStatus) -> dict[str, str]:
    kind, master, shadow, bitmap = _names(row)
    group, state = row.group or "-", _state(row)
    cells = kind, master, shadow, bitmap, group, state
    return dict(zip(_COLUMNS, cells, strict=True))


def _table(rows: Iterable[SetStatus], columns: Sequence[str]) -> str | None:
    from .table import table  # noqa: PLC0415 - rich takes a third of the time of a short command

    cells = map(_cells, rows)
    return table(columns, ([row[heading] for heading in columns] for row in cells))
