"""`iibitmap dump`: the content of a bitmap volume, for people and for scripts."""

from dataclasses import fields
from datetime import UTC, datetime
from enum import IntEnum
from uuid import UUID

from iifuse.core.header import FileId, Header, Pit, Stamp
from iifuse.core.sector import Region
from iifuse.core.state import Role
from iifuse.core.times import Times

from . import common
from .iibitmap_read import BitmapReading

Json = dict[str, object]


def dump(found: BitmapReading, *, bits: bool) -> Json:
    """The header, errors of its slots and, if `bits` is set, the extents of both bitmaps."""
    result: Json = {
        "bitmap": found.volume.path,
        "bitmap_bytes": found.volume.size_bytes,
        "needed_bytes": found.need_bytes,
        "chunks": found.chunks,
        "slots": [why or "fine" for why in found.slots],
        "header": header(found.header),
    }
    if bits:
        for region in Region:
            name = region.name.lower()
            result[f"{name}_bits"] = _extents(found, list(found.runs(region)))
            result[f"{name}_damaged"] = _extents(found, found.damaged(region))
    return result


def _extents(found: BitmapReading, runs: list[tuple[int, int]]) -> list[Json]:
    extents = (found.header.geometry.extent(run) for run in runs)
    return [{"offset": offset, "length": length} for offset, length in extents]


def header(found: Header) -> Json:
    """The fields of a header, under their names in iifuse-bitmap(5)."""
    return {one.name: _plain(getattr(found, one.name)) for one in fields(found)}


def _plain(value: object) -> object:
    if isinstance(value, Pit | Stamp | Times | FileId):
        plain = {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
        if isinstance(value, Pit):
            plain["time"] = _time(value.time_ns) if value.number else None  # nobody knows it
        return plain
    if isinstance(value, Role):
        return roles(value)
    if isinstance(value, IntEnum):
        return value.name.lower()
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, UUID) else value


def roles(value: Role) -> list[str]:
    """The names of some roles."""
    return [role.name.lower() for role in Role if role & value and role.name]


def _time(time_ns: int) -> str | None:
    """A time as ISO 8601 with a zone; None: it is out of range."""
    try:
        return datetime.fromtimestamp(time_ns / 1e9, UTC).isoformat(timespec="microseconds")
    except (OverflowError, OSError, ValueError):
        return None


def text(result: Json) -> str:
    """A line for each value. A value inside another one has that one's name before its own."""
    return "\n".join(_lines("", result))


def _lines(name: str, value: object) -> list[str]:
    if isinstance(value, dict):
        if set(value) == {"offset", "length"}:
            return [f"{name}: {value['offset']} {value['length']}"]
        return [
            line for key, part in value.items() for line in _lines(f"{name}.{key}".strip("."), part)
        ]
    if isinstance(value, list):
        return [line for part in value for line in _lines(name, part)] or [f"{name}: none"]
    return [f"{name}: {common.printable(_word(value))}"]


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)
