"""Defects to plant into the product, one at a time: each broke, or would break, a promise."""

import builtins
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from crash_orders import WRONG_ORDERS, Plant, leave_out, phases, steps

from iifuse.core import header as header_format
from iifuse.core import touch as touches
from iifuse.core.bits import Bits
from iifuse.core.change import Act
from iifuse.core.header import pack
from iifuse.core.state import Change, Progress
from iifuse.core.touch import Sync
from iifuse.data.chunklock import ChunkLocks
from iifuse.data.copier import Copier
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.setrow import SetRow
from iifuse.store.transitions import TransitionFile
from iifuse.store.volume import Volume
from iifuse.verbs import loading


@dataclass(frozen=True)
class Bug:
    """`scenarios`: where to look for it."""

    plant: Plant
    scenarios: tuple[str, ...]
    kill: float = 0.05
    """Share of stops at which the service is killed before the power fails."""
    seed: int = 1
    per_stop: int = 20
    """Images a stop."""


BUGS: dict[str, Bug] = {}


def bug(*scenarios: str, **options: Any):
    def add(function):
        BUGS[function.__name__] = Bug(contextmanager(function), scenarios, **options)
        return function

    return add


def _wrong(order: str, *scenarios: str, **options: Any) -> None:
    BUGS[order] = Bug(WRONG_ORDERS[order], scenarios, **options)


_wrong("mark_before_preserve", "first_touches-dep-1")
_wrong("no_sync_after_preserve", "first_touches-dep-1")
_wrong("no_sync_after_mark", "first_touches-ind-1")
_wrong("nothing_preserved", "first_touches-dep-1")
_wrong(
    "no_sync_after_restoring_a_chunk", "restore-ind", "abort_resume-to-master", "copy-to-master"
)
_wrong("source_not_synced_at_the_pit", "update-ind", "copy-to-shadow", "enable-ind-1", seed=2)
_wrong("shadow_bits_zeroed_before_copy_bits_are_durable", "update-ind", "two_updates")
_wrong("pending_record_left_out", "update-ind", "update-dep")
_wrong("group_record_left_out", "group-update", per_stop=4)
_wrong("group_record_forgotten_before_the_last_commit", "group-update", per_stop=4)
_wrong("recovery_ignores_the_group_record", "group-update", per_stop=4)


# -- first touches --------------------------------------------------------------------------


@bug("first_touches-ind-1", "first_touches-dep-1")
def write_before_mark():
    async def write(self, offset, data):
        run = self.family.geometry.span(offset, len(data))
        done = self.target().write(offset, data)
        if not self.note_if_ready(*run):
            await self.family.touch(self.touch(*run))
        return done

    with patch.object(View, "write", write):
        yield


@bug("neighbours")
def ready_before_the_bitmap_is_synced():
    real = Bits.mark

    def mark(self, runs, ahead):
        changed = real(self, runs, ahead)
        self.settle(runs, ahead)
        return changed

    with patch.object(Bits, "mark", mark):
        yield


# -- copies ---------------------------------------------------------------------------------


@bug("first_copy-1", "update-ind", "copy-to-shadow")
def copy_bit_cleared_before_the_target_is_synced():
    async def settle(self, runs):
        settle, clear = touches.end_of_stretch(self.member.member, runs)
        await self.family.clear(clear)
        await self.family.execute([settle])

    with patch.object(Copier, "_end_stretch", settle):
        yield


@bug("restore-ind", "restore-dep", "copy-to-master")
def siblings_of_a_restore_forgotten():
    real = Copier._copy

    async def copy(self, runs):
        with patch.object(self.family, "touch", _nothing):
            return await real(self, runs)

    with patch.object(Copier, "_copy", copy):
        yield


async def _nothing(*arguments: Any) -> None:
    pass


@bug("two_updates", "abort_resume-to-shadow")
def copier_not_stopped_at_the_pit():
    with patch.object(Instance, "stop_copy", _nothing):
        yield


# -- points in time -------------------------------------------------------------------------


@bug("group-update", "group-many", per_stop=4)
def group_record_replayed_twice():
    real = loading.unfinished

    def unfinished(transition, header):
        older = replace(header, pit=replace(header.pit, number=header.pit.number - 1))
        return real(transition, older)

    def forgetful(found):
        return [phase for phase in found if phase is not Act.FORGET_RECORD]

    planted = phases("point_in_time", forgetful)
    with planted, patch.object(loading, "unfinished", unfinished):
        yield


@bug("update-ind", "update-dep", "group-update")
def header_committed_before_the_bits_are_synced():
    def write_header(self, header):
        with patch.object(self.volume, "sync", lambda: None):
            return _write_header(self, header)

    unsynced = steps("whole_change", leave_out(Sync))
    with unsynced, patch.object(BitmapFile, "write_header", write_header):
        yield


def _write_header(self: BitmapFile, header):
    """The header, then a sync that comes too late for what it speaks of."""
    self._sequence = max(self._sequence, header.sequence) + 1
    header = replace(header, sequence=self._sequence)
    slot = 1 - self._slot
    self.volume.write(header_format.SLOT_OFFSETS[slot], pack(header))
    Volume.sync(self.volume)
    self._slot = slot
    return header


@bug("update-dep", "update-ind", "copy-to-shadow", seed=4)
def gate_does_not_drain():
    @asynccontextmanager
    async def open_gate(self):
        yield

    with patch.object(ChunkLocks, "gate", open_gate):
        yield


# -- recovery -------------------------------------------------------------------------------


@bug("update-ind", "update-dep")
def recovery_ignores_pending():
    def roll(bitmap, pending, shadow, copy):
        return replace(pending, pending=Change.NONE), shadow, copy

    with patch.object(loading, "roll_forward", roll):
        yield


@bug("first_touches-ind-1", "first_copy-1", kill=1.0, seed=5)
def recovery_does_not_sync():
    """What a killed service wrote counts as durable: a program's sync does nothing."""
    real = Volume.__init__

    def init(self, *arguments):
        real(self, *arguments)
        self._dirty = False

    with patch.object(Volume, "__init__", init), patch.object(Volume, "sync_times", _no_sync):
        yield


def _no_sync(self: Volume) -> None:
    pass


@bug("group-many", kill=0.0, seed=2)
def group_record_trusted_without_its_checksum():
    real = TransitionFile._load

    def load(self):
        with patch("iifuse.store.transitions.zlib.crc32", _Anything):
            return real(self)

    with patch.object(TransitionFile, "_load", load):
        yield


class _Anything(int):
    """A checksum that is equal to every other."""

    def __new__(cls, *arguments: Any) -> "_Anything":
        return super().__new__(cls, 0)

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


@bug("update-ind", "update-dep")
def older_header_believed():
    def oldest(*arguments, **options):
        return (min if options else builtins.max)(*arguments, **options)

    with patch.object(header_format, "max", oldest, create=True):
        yield


# -- verbs ----------------------------------------------------------------------------------


@bug("join")
def join_header_before_the_merged_bits():
    real = VolumeSet.save_exact

    async def save(self, **changes):
        if changes.get("joined"):
            await self.commit(**changes)
            changes = {}
        await real(self, **changes)

    with patch.object(VolumeSet, "save_exact", save):
        yield


@bug("join", "exchange")
def join_forgets_the_secondary_bits():
    with patch("iifuse.core.bitmap.Bitmap.merge", lambda self, other: None):
        yield


@bug("enable-ind-1", "first_copy-1", "enable-dep-1")
def set_in_the_database_as_if_it_had_a_header():
    def of(header, *more, entering=False):
        del entering
        return replace(real(header, *more), entering=False)

    real = SetRow.of
    with patch.object(SetRow, "of", of):
        yield


@bug("offline_reset-dep", "offline_reset-ind")
def offline_noted_in_memory_only():
    async def take_offline(self, role, reason):
        roles = self.state.offline | self._offline_with(role)
        self.amend(replace(self.header, offline=roles, offline_reason=reason, copying=False))

    with patch.object(VolumeSet, "take_offline", take_offline):
        yield


@bug("last_chunk-process", kill=0.05, seed=10, per_stop=60)
def copy_finished_before_its_target_is_durable():
    """Only durability=process leaves it to the end of the copy."""

    async def finish(self):
        await self.member.commit(progress=Progress.IDLE, copying=False)

    with patch.object(Copier, "_finish", finish):
        yield
