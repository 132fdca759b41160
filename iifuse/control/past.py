"""Answers `iiadm --history`."""

from functools import partial
from typing import Final

from iifuse import errors
from iifuse.control.protocol import HistoryRow, Target
from iifuse.core.naming import find, volume_path
from iifuse.host.instance import Instance

ROWS_MAX: Final = 1000
"""The most rows of one answer, which has to fit into a message. The client asks for more."""


async def history(
    instance: Instance, target: Target, mountpoint: str, after: int
) -> list[HistoryRow]:
    """The events of a target after number `after`, the oldest first.

    Raises NotFound, UsageError, StorageError.
    """
    subjects = await _subjects(instance, target, mountpoint)
    await instance.history.note()
    found = await instance.loop.blocking(partial(instance.db.events, subjects, after, ROWS_MAX))
    return [
        HistoryRow(
            number, e.time, e.subject or None, e.what, e.pit, e.pit_id, e.held_ms, e.chunks,
            e.bytes, e.seconds, e.why,
        )
        for number, e in found
    ]  # fmt: skip


async def _subjects(instance: Instance, target: Target, mountpoint: str) -> list[str] | None:
    if target == Target():
        return None
    if target.group is not None:
        return [member.name for member in instance.members(target.group)]
    return [await _subject(instance, name, mountpoint) for name in target.sets]


async def _subject(instance: Instance, name: str, mountpoint: str) -> str:
    """The shadow's path of a set that exists or existed, or the path of a volume."""
    try:
        return find(instance.sets, name, mountpoint).name
    except errors.NotFound:
        path = volume_path(mountpoint, name)
        if await instance.loop.blocking(partial(instance.db.events, [path], 0, 1)):
            return path
        raise
