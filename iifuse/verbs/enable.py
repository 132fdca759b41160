"""Enable, tune and disable sets (`iiadm -e`, `-o`, `-d`).

A disable is noted in the state database (`closing`) before the bitmap is closed. A closed bitmap
alone is no reason to wipe a shadow: the database may be an old copy, and the file another one's.
"""

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
from iifuse.data.family import Family
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host import roles
from iifuse.host.instance import Instance
from iifuse.host.space import remarks
from iifuse.host.storage import storage, storage_error
from iifuse.host.tickets import remove_own_ticket
from iifuse.loop.lookout import PATIENT_S
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import file_of
from iifuse.store.setrow import SetRow
from iifuse.store.wiping import told, wipe
from iifuse.units import command
from iifuse.verbs.opening import NewSet, Opened, open_set, reserve

log = logging.getLogger(__name__)


async def enable(
    instance: Instance, request: NewSet, tell: Callable[[str], object] = lambda _: None
) -> VolumeSet:
    """Make a set; from the return on its shadow shows the master of this instant.

    `tell` gets remarks for the user.
    Raises BadVolume, InUse, Busy, NoAnswer, StorageError; then nothing has changed.
    """
    await instance.look_at_closed()
    await instance.check_answering(request.master, request.shadow, request.bitmap)
    look = partial(_known_as, instance, request.master)
    known = await instance.lookout.ask(request.master, look)
    async with instance.verb_locks.also({known} - {request.master}):  # that is claimed already
        return await _enable(instance, request, known, tell)


def _known_as(instance: Instance, path: str) -> str:
    """In a thread: the name under which the master is open, if it is."""
    with suppress(errors.IifuseError):  # which is told when it is opened
        family = instance.master_family(path, roles.identity_of(instance, path))
        if family is not None and family.master is not None:
            return family.master.path
    return path


async def _enable(
    instance: Instance, request: NewSet, known: str, tell: Callable[[str], object]
) -> VolumeSet:
    opened = await instance.lookout.ask(
        request.shadow, partial(open_set, instance, request), lambda late: late.undo.close(),
        PATIENT_S,
    )  # fmt: skip
    try:
        if request.reserve or not opened.is_sparse:
            await instance.loop.blocking(partial(reserve, opened.shadow))  # which may take long
        if opened.master.path not in (known, request.master):  # it came late, just now
            raise errors.Busy(request.master, "is being brought back", "try again")
        member, held_ms = await _make(instance, request, opened)
    except BaseException:
        if opened.family is None and opened.master.path in instance.views:
            await instance.remove_master(instance.views[opened.master.path].family)
        await instance.loop.blocking(opened.undo.close)
        raise
    opened.undo.pop_all()
    await instance.show_shadow(member)
    for remark in await remarks(instance, member):
        tell(remark)
    if member.header.copying:
        instance.start_copy(member)
    why = "everything is copied: the set is new" if request.kind is Kind.INDEPENDENT else None
    kind = request.kind.name.lower()
    await instance.note(member, f"enable, {kind}", held_ms=held_ms, why=why)
    return member


async def _make(instance: Instance, request: NewSet, opened: Opened) -> tuple[VolumeSet, float]:
    """(the set, milliseconds for which writes were held)"""
    header = _new_header(instance, request, opened)
    bitmap = BitmapFile(opened.bitmap)
    bits = await instance.loop.blocking(partial(_first_bits, header))
    header = replace(
        header, shadow_times=await instance.loop.blocking(partial(last_shown, bitmap, header))
    )
    member = VolumeSet(
        instance.loop, instance.header_log(header, bitmap), bits, opened.shadow, request.group
    )
    async with instance.notes.entered(_row(header, request, opened)):
        await storage(instance.loop, partial(_write_bits, bitmap, header, bits))
        family = opened.family or await instance.add_master(opened.master)
        return member, await _begin(instance, family, member)


def _new_header(instance: Instance, request: NewSet, opened: Opened) -> Header:
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
        session=instance.session,
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


async def _begin(instance: Instance, family: Family, member: VolumeSet) -> float:
    """The point in time, under the gate; milliseconds for which writes were held."""
    assert family.master is not None
    view = instance.views[family.master.path]
    await storage(instance.loop, partial(instance.hooks.sync_mounted, [view]))
    await storage(instance.loop, family.master.sync)
    async with view.times_lock, family.locks.gate():
        began = time.monotonic()
        pit = Pit(1, uuid4(), time.time_ns())
        await storage(instance.loop, family.master.sync)
        header = replace(
            member.header,
            pit=pit,
            master_times=view.times.record(),
            shadow_times=after([member.header.shadow_times], pit.time_ns),
        )
        await storage(instance.loop, partial(_commit, instance, member, header))
        instance.register(family, member)
        member.in_use = True
    return (time.monotonic() - began) * 1000


def _commit(instance: Instance, member: VolumeSet, header: Header) -> None:
    """From the header on the set is there; until then a start forgets it (`SetRow.entering`)."""
    assert member.bitmap is not None
    header = replace(header, boot_id=instance.boot_id, process_durability=not instance.ordered)
    member.adopt(member.log.repair(header))
    try:
        instance.db.forget_times(header.master)
    except errors.StorageError:
        with suppress(OSError):  # or it would look like the bitmap volume of a set in use
            member.bitmap.erase_headers()
        raise


async def tune(instance: Instance, member: VolumeSet, policy: Policy) -> None:
    """Change what a failing or slow shadow means, from now on. Raises Refused, StorageError."""
    member.check_whole("-o")
    try:
        await member.commit(policy=policy)
    except OSError as error:
        raise storage_error(error, f"{member.name} and the sets after it are as before") from error
    how = "write" if policy.break_write else "shadow"
    await instance.note(member, "policy", why=f"break={how}, limit={policy.limit_s or 'none'}")


# -- disable --------------------------------------------------------------------------------


async def disable(instance: Instance, member: VolumeSet) -> list[str]:
    """Take a set apart; remarks for the user.

    An independent set leaves two plain volumes. The shadow of a dependent set, or of an aborted
    copy, is incomplete: it is wiped, so that nobody mounts it by mistake. Raises the state table's
    refusals and Busy.
    """
    member.check(Verb.DISABLE)
    await member.try_shadow()
    view = instance.views.get(member.name)
    async with instance.closed([view], "close it first"):
        await instance.loop.blocking(partial(instance.db.closing, member.name, True))
        if view is not None:
            await instance.hide(view)
    family = instance.family(member)
    await instance.stop_copy(member)
    await _keep_master_times(instance, family)
    async with family.locks.gate():
        await _close_bitmap(member, view)
        family.sets.remove(member)
        del instance.sets[member.name]
    try:
        notes = await instance.loop.blocking(partial(finish_disable, instance, member))
    except (errors.StorageError, OSError) as error:
        why = errors.words(error)
        notes = [f"{member.name}: is disabled, which the next start does again: {why}"]
    instance.history.tell(member.header, Verb.DISABLE.in_history)
    await instance.history.note()
    return notes + _still_lent(member) + await after_last_set(instance, family)


def _still_lent(member: VolumeSet) -> list[str]:
    """What becomes of a shadow that somebody else has in hands, and nobody can join."""
    if member.header.custody is not Custody.EXPORTED or member.ticket is None:
        return []
    way = f"when its importer is done, remove {member.ticket}, which keeps it from all other use"
    return [f"{member.name}: is still lent, and cannot be joined any more; {way}"]


async def _keep_master_times(instance: Instance, family: Family) -> None:
    """What its master has shown since a restore may so far stand in this set's header only."""
    view = instance.master_view(family)
    if view is None:
        return
    await instance.timekeeper.keep(view)
    if len(family.sets) == 1:
        await instance.timekeeper.hand_over(view)


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


def finish_disable(instance: Instance, member: VolumeSet) -> list[str]:
    """Wipe, forget, close; remarks for the user.

    In a thread, and again by recovery if it was cut short. Raises StorageError.
    """
    notes, shadow = [], member.shadow
    try:
        if shadow is not None and is_incomplete(member.header):
            notes.append(f"{member.name}: {told(wipe(shadow, instance.hooks.programs))}")
            instance.db.give_up(member.name, 0)
        _forget_given_up_earlier(instance, member.header)
        instance.notes.forget(member.name)
        remove_own_ticket(instance, member.header)
        return notes
    finally:  # what fails here is done by the next start, which finds the bitmap closed
        member.close()


def _forget_given_up_earlier(instance: Instance, header: Header) -> None:
    """The shadow is whole but for a restore of this point in time that was given up."""
    pit = header.pit.number
    if pit and instance.db.given_up(header.shadow) not in (0, pit):
        instance.db.give_up(header.shadow, 0)


async def after_last_set(instance: Instance, family: Family) -> list[str]:
    """A master without sets leaves the mount unless somebody has it open or svadm keeps it."""
    if family.sets:
        return []
    if family.master is None:
        instance.families.remove(family)
        return []
    path = family.master.path
    view = instance.views[path]
    if path in await instance.loop.blocking(instance.db.volumes):
        await instance.timekeeper.keep(view)
        return []
    if view.opens:
        try:
            await instance.loop.blocking(partial(instance.db.add_volumes, [path]))
        except errors.StorageError as error:
            return [f"{path}: is open and stays on the mount until the service ends: {error}"]
        await instance.timekeeper.keep(view)
        off = command("svadm -d", path)
        return [f"{path}: is open and stays on the mount; {off} takes it off"]
    await instance.remove_master(family)
    return []
