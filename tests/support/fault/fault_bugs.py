"""Wrong answers to a failing store, to plant one at a time; each broke, or would break, a promise.

Each is a context manager, and the scenario and the file whose failures find it.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from crash_host import MemoryDB

from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.transitions import Record, TransitionFile
from iifuse.store.volume import Volume
from iifuse.verbs import pit, stop

Bug = tuple[Callable[[], AbstractContextManager[Any]], str, str]


def a_failed_sync_is_forgotten() -> AbstractContextManager[Any]:
    def sync(self: Volume) -> None:
        self._dirty = False
        volume_os().fdatasync(self.fd)

    return patch.object(Volume, "sync", sync)


def volume_os() -> Any:
    """What the store takes for `os` at this moment."""
    from iifuse.store import volume  # noqa: PLC0415

    return volume.os


def a_short_write_counts_as_done() -> AbstractContextManager[Any]:
    def write(self: Volume, offset: int, data: bytes) -> int:
        self._dirty = True
        return int(volume_os().pwrite(self.fd, data, offset))

    return patch.object(Volume, "write", write)


def offline_is_only_in_memory() -> AbstractContextManager[Any]:
    async def take_offline(self: VolumeSet, role: Any, reason: str) -> None:
        roles = self.state.offline | self._offline_with(role)
        self.amend(replace(self.header, offline=roles, offline_reason=reason, copying=False))

    return patch.object(VolumeSet, "take_offline", take_offline)


def offline_is_seen_before_it_is_durable() -> AbstractContextManager[Any]:
    real = VolumeSet.note_again

    async def note_again(self: VolumeSet, **changes: Any) -> None:
        self.amend(replace(self.header, **changes))
        await real(self, **changes)

    return patch.object(VolumeSet, "note_again", note_again)


def a_failure_takes_nobody_offline() -> AbstractContextManager[Any]:
    async def fail(self: Family, *arguments: Any) -> None:
        pass

    return patch.object(Family, "_fail", fail)


def the_masters_writers_pay() -> AbstractContextManager[Any]:
    real = Family._fail

    async def fail(self: Family, step: Any, error: OSError, for_write: bool) -> Any:
        await real(self, step, error, for_write)
        raise error

    return patch.object(Family, "_fail", fail)


def a_failed_record_stands() -> AbstractContextManager[Any]:
    def begin(self: TransitionFile, transition: Any, earlier: Any = ()) -> None:
        self._write(Record(transition, earlier))

    async def disown(*arguments: Any) -> None:
        pass

    both = patch.object(TransitionFile, "begin", begin), patch.object(pit, "disown", disown)
    return _Both(*both)


def a_failed_record_is_disowned_set_by_set() -> AbstractContextManager[Any]:
    return patch.object(MemoryDB, "disown", lambda *arguments: None)


class _Both:
    def __init__(self, *parts: AbstractContextManager[Any]) -> None:
        self.parts = parts

    def __enter__(self) -> None:
        for part in self.parts:
            part.__enter__()

    def __exit__(self, *what: Any) -> None:
        for part in self.parts:
            part.__exit__(*what)


def bits_that_fail_are_ignored() -> AbstractContextManager[Any]:
    def write_sectors(self: BitmapFile, extents: Any) -> None:
        for at, blob in extents:
            try:
                self.volume.write(at, blob)
            except OSError:
                return

    return patch.object(BitmapFile, "write_sectors", write_sectors)


def a_failed_last_sync_is_only_logged() -> AbstractContextManager[Any]:
    async def sync_last(volume: Volume | None, family: Family) -> None:
        try:
            if volume is not None:
                volume.sync()
        except OSError:
            pass

    return patch.object(stop, "_sync_last", sync_last)


BUGS: dict[str, Bug] = {
    bug.__name__: (bug, scenario, file)
    for bug, scenario, file in (
        (a_failed_sync_is_forgotten, "first_touches-ind-4", "m"),
        (a_short_write_counts_as_done, "first_touches-dep-1", "s"),
        (offline_is_only_in_memory, "first_touches-dep-1", "m"),
        (offline_is_seen_before_it_is_durable, "first_touches-ind-4", "s.b"),
        (a_failure_takes_nobody_offline, "first_touches-dep-1", "m"),
        (the_masters_writers_pay, "first_touches-dep-1", "s"),
        (a_failed_record_stands, "group-update", "/transitions"),
        (a_failed_record_is_disowned_set_by_set, "group-update", "/transitions"),
        (bits_that_fail_are_ignored, "first_touches-ind-1", "s.b"),
        (a_failed_last_sync_is_only_logged, "process_stop-dep", "s"),
    )
}
