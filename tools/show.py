"""What a set looks like to people: the status of `iiadm -i` and the list of `iiadm -l`."""

import io
import os
import sys
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from iifuse.control.protocol import SetStatus
from iifuse.units import format_size

RULE: Final = "-" * 78
BLOCK_BYTES: Final = 512
"""Volume sizes are shown in these, as they always were, and in binary units."""
SPACE_SHOWN_PERCENT: Final = 80
"""From here on it is worth a line."""


def statuses(rows: Iterable[SetStatus]) -> str:
    """The text of `iiadm -i`."""
    return f"\n{RULE}\n".join("\n".join(_status(row)) for row in rows)


def _status(row: SetStatus) -> list[str]:
    lines = [f"{path}: ({role} volume)" for role, path in _volumes(row) if path]
    if row.group:
        lines.append(f"Group name: {row.group}")
    lines.append(", ".join(state_words(row)))
    if row.offline_reason:
        lines.append(f"Reason: {row.offline_reason}")
    lines += _policy(row)
    lines.append(f"Latest modified time: {_time(row.pit_time)} (point in time {row.pit})")
    lines.append(f"Volume size: {row.size_bytes // BLOCK_BYTES:8} ({format_size(row.size_bytes)})")
    lines.append(f"Chunks total: {row.chunks} Chunk size: {format_size(row.chunk_bytes)}")
    if row.progress != "idle":
        lines.append(_copied(row))
    lines.append(f"Percent of bitmap set: {int(row.percent)}")
    # Tells 0 from a little more than 0.
    marked = row.shadow_bits or row.copy_bits
    lines.append("\t(bitmap dirty)" if marked else "\t(bitmap clean)")
    return lines


def _policy(row: SetStatus) -> list[str]:
    """What differs from what every set has at first, and a file system that fills."""
    lines = []
    if row.break_write:
        lines.append("When the shadow fails: writes to the master fail")
    if row.limit_s:
        lines.append(f"A slow shadow is given up after: {row.limit_s} s")
    lines += [f"An import with {bitmap} is not joined" for bitmap in row.unjoined]
    if row.space_percent is not None and row.space_percent >= SPACE_SHOWN_PERCENT:
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


def _time(stamp: str) -> str:
    """The local time of an ISO 8601 stamp; what cannot be read is shown as it is."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone():%a %b %e %H:%M:%S %Y %Z}"
    except ValueError:
        return stamp or "unknown"


def copied_percent(row: SetStatus) -> int:
    """How much of its copy a set has behind it."""
    total = row.copied_chunks + row.copy_bits
    return 100 * row.copied_chunks // total if total else 100


def _copied(row: SetStatus) -> str:
    total = row.copied_chunks + row.copy_bits
    return f"Chunks copied: {row.copied_chunks} of {total} ({copied_percent(row)}%)"


def listing(rows: Iterable[SetStatus]) -> str:
    """The text of `iiadm -l`: a table on a terminal, else one line for each set."""
    if sys.stdout.isatty():
        return _table(rows)
    return "\n".join(" ".join(_names(row)) for row in rows)


def _names(row: SetStatus) -> tuple[str, str, str, str]:
    kind = "ind" if row.kind == "independent" else "dep"
    return kind, row.master or "-", row.shadow, row.bitmap


def _table(rows: Iterable[SetStatus]) -> str:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("kind", "master", "shadow", "bitmap", "group", "state"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        state = ", ".join(state_words(row)[1:]) or "idle"
        # Text, not str: a name may hold what rich takes for markup.
        table.add_row(*(Text(cell) for cell in (*_names(row), row.group or "-", state)))
    screen = io.StringIO()
    width = os.get_terminal_size(sys.stdout.fileno()).columns or None
    Console(file=screen, force_terminal=True, width=width).print(table)
    return screen.getvalue().rstrip("\n")
