"""Enable, tune and disable sets (`iiadm -e`, `-o`, `-d`)."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from uuid import uuid4

from iifuse import errors
from iifuse.core.bits import Bits
from iifuse.core.header import Closure, Header, Pit, pack
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Kind, Policy, Progress, Verb
from iifuse.core.times import Times, after
from iifuse.engine.engine import Engine
from iifuse.engine.family import Family
from iifuse.engine.opening import NewSet, Opened, open_set
from iifuse.engine.space import remarks
from iifuse.engine.storage import storage, storage_error
from iifuse.engine.threads import blocking
from iifuse.engine.tickets import remove_own_ticket
from iifuse.engine.view import View
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import file_of
from iifuse.store.setrow import SetRow
from iifuse.store.wiping import told, wipe
from iifuse.units import command

log = logging.getLogger(__name__)


async def enable(
    engine: Engine, request: NewSet, tell: Callable[[str], object] = lambda _: None
) -> VolumeSet:
    """Make a set; from the return on its shadow shows the master of this instant.

    `tell` gets remarks for the user.
    Raises BadVolume, InUse, Busy, StorageError; then nothing has changed.
    """
    opened = await blocking(partial(open_set, engine, request))
    try:
        member, held_ms = await _make(engine, request, opened)
    except BaseException:
        if opened.family is None and opened.master.path in engine.views:
            await engine.remove_master(engine.views[opened.master.path].family)
        opened.undo.close()
        raise
    opened.undo.pop_all()
    await engine.show_shadow(member)
    for remark in await remarks(engine, member):
        tell(remark)
    if member.header.copying:
        engine.start_copy(member)
    why = "everything is copied: the set is new" if request.kind is Kind.INDEPENDENT else None
    kind = request.kind.name.lower()
    await engine.note(member, f"enable, {kind}", held_ms=held_ms, why=why)
    return member


async def _make(engine: Engine, request: NewSet, opened: Opened) -> tuple[VolumeSet, float]:
    """(the set, milliseconds for which writes were held)"""
    header = _new_header(engine, request, opened)
    bitmap = BitmapFile(opened.bitmap)
    bits = await blocking(partial(_first_bits, header))
    header = replace(header, shadow_times=await blocking(partial(last_shown, bitmap, header)))
    member = VolumeSet(header, bits, opened.shadow, bitmap, request.group)
    async with engine.notes.entered(_row(header, request, opened)):
        await storage(partial(_write_bits, bitmap, header, bits))
        family = opened.family or await engine.add_master(opened.master)
        return member, await _begin(engine, family, member)


def _new_header(engine: Engine, request: NewSet, opened: Opened) -> Header:
    independent = request.kind is Kind.INDEPENDENT
    header = Header(
        uuid=uuid4(),
        kind=request.kind,
        size_bytes=opened.master.size_bytes,
        master=opened.master.path,
        shadow=request.shadow,
        bitmap=request.bitmap,
        progress=Progress.TO_SHADOW if independent else Progress.IDLE,
        copying=independent,
        policy=request.policy,
        session=engine.session,
        master_file=file_of(opened.master),
        shadow_file=file_of(opened.shadow),
    )
    pack(header)  # paths that do not fit are refused before anything is written
    return header


def _row(header: Header, request: NewSet, opened: Opened) -> SetRow:
    return SetRow.of(header, request.group, file_of(opened.bitmap), entering=True)


def last_shown(bitmap: BitmapFile, header: Header) -> Times:
    """What a bitmap volume that is used again knows of the times that its shadow's file had."""
    try:
        old = bitmap.read_header()
    except (errors.BadBitmap, OSError):
        return Times()
    return old.shadow_times if old.shadow == header.shadow else Times()


def _first_bits(header: Header) -> Bits:
    """In a thread: the memory for them comes slowly."""
    bits = Bits.blank(header.geometry.chunks)
    if header.copying:
        bits.copy.fill()
    return bits


def _write_bits(bitmap: BitmapFile, header: Header, bits: Bits) -> None:
    bitmap.erase_headers()
    bitmap.write_region(header, Region.SHADOW, bits.shadow)
    bitmap.write_region(header, Region.COPY, bits.copy)


async def _begin(engine: Engine, family: Family, member: VolumeSet) -> float:
    """The point in time, under the gate; milliseconds for which writes were held."""
    assert family.master is not None
    view = engine.views[family.master.path]
    await storage(partial(engine.hooks.sync_mounted, [view]))
    await storage(family.master.sync)
    async with view.noting, family.locks.gate():
        began = time.monotonic()
        pit = Pit(1, uuid4(), time.time_ns())
        await storage(family.master.sync)
        header = replace(
            member.header,
            pit=pit,
            master_times=view.times.record(),
            shadow_times=after([member.header.shadow_times], pit.time_ns),
        )
        await storage(partial(_commit, engine, member, header))
        engine.register(family, member)
        member.in_use = True
    return (time.monotonic() - began) * 1000


def _commit(engine: Engine, member: VolumeSet, header: Header) -> None:
    """From the header on the set is there; until then a start forgets it (`SetRow.entering`)."""
    assert member.bitmap is not None
    header = replace(header, boot_id=engine.boot_id, process_durability=not engine.ordered)
    member.header = member.bitmap.write_header(header)
    try:
        engine.db.forget_times(header.master)
    except errors.StorageError:
        with suppress(OSError):  # or it would look like the bitmap volume of a set in use
            member.bitmap.erase_headers()
        raise


async def tune(engine: Engine, member: VolumeSet, policy: Policy) -> None:
    """Change what a failing or slow shadow means, from now on. Raises Refused, StorageError."""
    member.check_whole("-o")
    try:
        await member.commit(policy=policy)
    except OSError as error:
        raise storage_error(error, f"{member.name} and the sets after it are as before") from error
    how = "write" if policy.break_write else "shadow"
    await engine.note(member, "policy", why=f"break={how}, limit={policy.limit_s or 'none'}")


# -- disable --------------------------------------------------------------------------------


async def disable(engine: Engine, member: VolumeSet) -> list[str]:
    """Take a set apart; remarks for the user.

    An independent set leaves two plain volumes. The shadow of a dependent set, or of an aborted
    copy, is incomplete: it is wiped, so that nobody mounts it by mistake. Raises the state table's
    refusals and Busy.
    """
    member.check(Verb.DISABLE)
    await member.try_shadow()
    view = engine.views.get(member.name)
    async with engine.closed([view], "close it first"):
        await blocking(partial(engine.db.closing, member.name, True))
        if view is not None:
            await engine.hide(view)
    family = engine.family(member)
    await engine.stop_copy(member)
    await _keep_master_times(engine, family)
    async with family.locks.gate():
        await _close_bitmap(member, view)
        family.sets.remove(member)
        del engine.sets[member.name]
    try:
        notes = await blocking(partial(finish_disable, engine, member))
    except (errors.StorageError, OSError) as error:
        why = errors.words(error)
        notes = [f"{member.name}: is disabled, which the next start does again: {why}"]
    engine.history.tell(member.header, Verb.DISABLE.told)
    await engine.history.note()
    return notes + _still_lent(member) + await after_last_set(engine, family)


def _still_lent(member: VolumeSet) -> list[str]:
    """What becomes of a shadow that somebody else has in hands, and nobody can join."""
    if member.header.custody is not Custody.EXPORTED or member.ticket is None:
        return []
    way = f"when its importer is done, remove {member.ticket}, which keeps it from all other use"
    return [f"{member.name}: is still lent, and cannot be joined any more; {way}"]


async def _keep_master_times(engine: Engine, family: Family) -> None:
    """What its master has shown since a restore may so far stand in this set's header only."""
    view = engine.master_view(family)
    if view is None:
        return
    await engine.timekeeper.keep(view)
    if len(family.sets) == 1:
        await engine.timekeeper.hand_over(view)


def is_incomplete(header: Header) -> bool:
    """Would the raw shadow by itself be a mixture?"""
    if header.custody is not Custody.LOCAL:
        return False
    return header.kind is Kind.DEPENDENT or header.progress is not Progress.IDLE


async def _close_bitmap(member: VolumeSet, view: View | None) -> None:
    """The mark from which on a restart finishes the disable; exact bits for a later join.

    Also when the shadow fails: an open bitmap would let a restart bring the set back, and what is
    written to the master from now on is noted nowhere. Not so that of an import, which nobody can
    write to any more: closed, it would say that what it speaks of stands on the shadow.
    """
    try:
        if member.shadow is not None:
            await member.within_limit(member.shadow.sync)
    except OSError:
        log.exception("%s: its last sync failed", member.name)
        if member.header.custody is Custody.IMPORTED:
            return
    try:
        times = view.as_field(view.last_times()) if view else {}
        await member.save_exact(closure=Closure.CLOSED, clean=True, **times)
    except OSError:
        log.exception("%s: its bitmap is not closed", member.name)


def finish_disable(engine: Engine, member: VolumeSet) -> list[str]:
    """Wipe, forget, close; remarks for the user.

    In a thread, and again by recovery if it was cut short. Raises StorageError.
    """
    notes, shadow = [], member.shadow
    try:
        if shadow is not None and is_incomplete(member.header):
            notes.append(f"{member.name}: {told(wipe(shadow))}")
            engine.db.give_up(member.name, 0)
        _forget_given_up_earlier(engine, member.header)
        engine.notes.forget(member.name)
        remove_own_ticket(engine, member.header)
        return notes
    finally:  # what fails here is done by the next start, which finds the bitmap closed
        member.close()


def _forget_given_up_earlier(engine: Engine, header: Header) -> None:
    """The shadow is whole but for a restore of this point in time that was given up."""
    pit = header.pit.number
    if pit and engine.db.given_up(header.shadow) not in (0, pit):
        engine.db.give_up(header.shadow, 0)


async def after_last_set(engine: Engine, family: Family) -> list[str]:
    """A master without sets leaves the mount unless somebody has it open or svadm keeps it."""
    if family.sets:
        return []
    if family.master is None:
        engine.families.remove(family)
        return []
    path = family.master.path
    view = engine.views[path]
    if path in await blocking(engine.db.volumes):
        await engine.timekeeper.keep(view)
        return []
    if view.opens:
        try:
            await blocking(partial(engine.db.add_volumes, [path]))
        except errors.StorageError as error:
            return [f"{path}: is open and stays on the mount until the service ends: {error}"]
        await engine.timekeeper.keep(view)
        off = command("svadm -d", path)
        return [f"{path}: is open and stays on the mount; {off} takes it off"]
    await engine.remove_master(family)
    return []
