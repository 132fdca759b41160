"""Export a shadow to another host, and import one from another host (`iiadm -E`, `-I`).

docs/decisions/exchange.md has the rules and what was rejected.
"""

import logging
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

import msgspec

from iifuse import errors
from iifuse.core import loss, sector, ticket
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.geometry import Geometry
from iifuse.core.header import BitmapRole, Closure, Header, Pit, Stamp, pack
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Kind, Progress, Verb, how_to_end_custody
from iifuse.core.ticket import TicketEntry
from iifuse.core.times import times_of_import
from iifuse.data.family import Family
from iifuse.data.view import View
from iifuse.data.volumeset import VolumeSet
from iifuse.host import roles
from iifuse.host.instance import Instance
from iifuse.host.lentshadow import check_shadow
from iifuse.host.roles import Part
from iifuse.host.storage import storage, sync
from iifuse.host.tickets import (
    lent_again,
    name_import,
    publish_ticket,
    read_ticket,
    ticket_entry,
    ticket_path,
    with_beside,
    withdraw_import,
    write_ticket,
)
from iifuse.loop.lookout import PATIENT_S
from iifuse.store import fingerprint
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.presence import file_of
from iifuse.store.setrow import SetRow
from iifuse.store.volume import Volume
from iifuse.units import command
from iifuse.verbs import overwriting
from iifuse.verbs.enable import last_shown
from iifuse.verbs.opening import check_place, check_size, open_or_create

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Borrowing:
    """What `-I` asks for. Paths are absolute. `ticket`: None means the one beside the shadow."""

    shadow: str
    bitmap: str
    ticket: str | None = None
    sure: bool = False


# -- export ---------------------------------------------------------------------------------


async def export(instance: Instance, member: VolumeSet) -> TicketEntry:
    """Close the shadow, so that another host can import it. Writes to the master are still noted.

    Raises the refusals of the state table, Busy, and StorageError (then the set is still local).
    """
    member.check(Verb.EXPORT)
    await member.try_shadow()
    view = instance.views[member.name]
    async with (
        instance.closed([view], "close it first"),
        instance.notes.announced({member: (Progress.IDLE, Custody.EXPORTED)}),
    ):
        path = await _hand_over(instance, member, view)
    await instance.note(member, Verb.EXPORT.in_history)
    try:
        await instance.loop.blocking(partial(publish_ticket, path))
    except OSError as error:
        raise errors.StorageError(
            path,
            f"the set is exported, but its ticket cannot be put here ({error.strerror})",
            f"use {path}.draft, or make room and start the service again",
        ) from error
    return await instance.loop.blocking(partial(lent_again, instance, member.header))


async def _hand_over(instance: Instance, member: VolumeSet, view: View) -> str:
    """Write the draft of the ticket, then the header, and close the shadow.

    Returns the path of the ticket.
    """
    shadow = member.shadow
    assert shadow is not None
    number = member.header.export_number + 1
    times = view.as_fields(view.times.exact(), Stamp())
    path = await instance.loop.blocking(partial(ticket_path, instance, member.header))
    lent = ticket_entry(replace(member.header, export_number=number, **times))
    await storage(instance.loop, partial(_draft, path, shadow, lent))
    async with view.times_lock, instance.family(member).locks.gate():
        await sync(instance.loop, shadow, [member])
        try:
            await member.save_exact(
                custody=Custody.EXPORTED, export_number=number, joined=(), **times
            )
        except OSError as error:
            raise errors.StorageError(
                member.header.bitmap, errors.words(error), "the set is still local"
            ) from error
    await instance.hide(view)
    member.shadow, member.ticket = None, path
    await instance.loop.blocking(partial(_let_go, shadow))
    return path


def _draft(path: str, shadow: Volume, lent: TicketEntry) -> None:
    """Write the ticket under another name, with the fingerprint. The shadow is not written now."""
    prints = fingerprint.take(shadow, lent.size_bytes, f"{lent.uuid} {lent.export_number}")
    write_ticket(f"{path}.draft", msgspec.structs.replace(lent, fingerprint=prints))


def _let_go(shadow: Volume) -> None:
    try:
        shadow.drop_cache()
    except OSError as error:  # the shadow is durable, so only its pages in the cache are left
        log.warning("%s: %s", shadow.path, error)
    finally:
        shadow.close()


# -- import ---------------------------------------------------------------------------------


async def take_in(instance: Instance, request: Borrowing) -> list[str]:
    """Import a shadow: serve it, and note in a bitmap what is written to it.

    Returns remarks for the user. Raises BadTicket, BadVolume, InUse, Busy, Refused, Question,
    StorageError; then nothing has changed.
    """
    undo, shadow, bitmap, header, notes = await _open_in_time(instance, request)
    async with instance.loop.closing_in_thread(undo):
        bits = await instance.loop.blocking(partial(Bits.blank, header.geometry.chunks))
        header = replace(header, shadow_file=file_of(shadow))
        member = VolumeSet(
            instance.loop, instance.header_log(header, BitmapFile(bitmap)), bits, shadow
        )
        earlier = await instance.loop.blocking(partial(_earlier_import, member))
        async with instance.notes.entered(SetRow.of(header, None, file_of(bitmap), entering=True)):
            unnamed = await instance.loop.blocking(partial(name_import, header, earlier))
            try:
                await storage(instance.loop, partial(_write_import, member))
            except errors.StorageError:
                await instance.loop.blocking(partial(withdraw_import, header))
                raise
        undo.pop_all()
    family = Family(instance.loop, None, None, header.geometry, ordered=instance.ordered)
    instance.families.append(family)
    instance.register(family, member)
    member.in_use = True
    await instance.show_shadow(member)
    await instance.note(member, "import")
    return [*notes, unnamed] if unnamed else notes


async def check_import(instance: Instance, request: Borrowing) -> None:
    """Everything that `take_in` checks; a bitmap that is made for it is removed again."""
    undo, *_ = await _open_in_time(instance, request)
    await instance.loop.blocking(undo.close)


_Opened = tuple[ExitStack, Volume, Volume, Header, list[str]]
"""What closes and removes again what was made; the shadow, the bitmap, the import's header, and
remarks for the user."""


async def _open_in_time(instance: Instance, request: Borrowing) -> _Opened:
    await instance.look_at_closed()
    await instance.check_answering(request.shadow, request.bitmap)
    opening = partial(_open_lent, instance, request)
    return await instance.lookout.ask(
        request.shadow, opening, lambda late: late[0].close(), PATIENT_S
    )


def _open_lent(instance: Instance, request: Borrowing) -> _Opened:
    if request.shadow in instance.sets:
        raise _is_here(request, instance.sets[request.shadow])
    lent = _read_lent(request)
    header = _import_header(instance, request, lent)
    for member in list(instance.sets.values()):
        if member.key == lent.uuid:
            raise _is_here(request, member)
    roles.check(
        instance,
        [(Part.SHADOW, request.shadow), (Part.BITMAP, request.bitmap)],
        ticket=(lent.uuid, lent.export_number),
    )
    check_place(request.bitmap)
    need = sector.bitmap_bytes(Geometry(lent.size_bytes).chunks)
    with ExitStack() as undo:
        shadow = instance.open_volume(request.shadow)
        undo.callback(shadow.close)
        check_size(shadow, lent.size_bytes, "the shadow of this ticket")
        bitmap = open_or_create(instance, request.bitmap, need, undo, sparse=False)
        check_size(bitmap, need, "a bitmap")
        bitmap.drop_cache()
        shadow.drop_cache()
        _check_reuse(BitmapFile(bitmap), lent)
        loss.check(overwriting.by_bitmap(instance, bitmap, lent.uuid), sure=request.sure)
        notes = check_shadow(shadow, lent, others=bool(lent.imports), sure=request.sure)
        known = last_shown(BitmapFile(bitmap), header)
        times = times_of_import(lent.times, known, time.time_ns())
        return undo.pop_all(), shadow, bitmap, replace(header, shadow_times=times), notes


def _is_here(request: Borrowing, member: VolumeSet) -> errors.IifuseError:
    """The error for a shadow that belongs to `member`, a set of this service."""
    custody = member.header.custody
    if custody is Custody.LOCAL:
        look = command("iiadm -i", member.name)
        return errors.InUse(request.shadow, "is a set of this service already", f"see {look}")
    done = "imported it already" if custody is Custody.IMPORTED else "exported it"
    way = how_to_end_custody(member.name, member.state, member.ticket)
    return errors.Refused(request.shadow, f"this service has {done}", way)


def _read_lent(request: Borrowing) -> TicketEntry:
    path = request.ticket or f"{request.shadow}.iiticket"
    try:
        found = read_ticket(path)
    except OSError as error:
        raise errors.BadTicket(
            path,
            f"no ticket can be read here ({error.strerror})",
            "-E writes it beside the shadow, for a device into the exporting host's "
            "STATE/tickets; name it as the third word of -I",
        ) from error
    lent = with_beside(ticket.find(path, found, request.shadow), request.shadow)
    if lent.joined:
        raise errors.Refused(
            request.shadow,
            f"is not lent any more: its export {lent.export_number} was joined or taken back",
            "export it again",
        )
    return lent


def _check_reuse(bitmap: BitmapFile, lent: TicketEntry) -> None:
    """Raise an error if the bitmap volume is still needed: it may hold changes of an import."""
    path = bitmap.volume.path
    try:
        old = bitmap.read_header()
    except errors.BadBitmap:
        return
    if old.role is BitmapRole.MAIN and old.closure is Closure.OPEN:
        raise errors.InUse(path, "is the bitmap of a set in use", "name another bitmap volume")
    if old.role is not BitmapRole.IMPORTED or old.uuid != lent.uuid:
        return
    if old.export_number > lent.export_number:
        raise errors.BadTicket(
            lent.shadow, f"the ticket is of export {lent.export_number}, the bitmap of a later one "
            f"({old.export_number})", "use the newest ticket",
        )  # fmt: skip
    if old.export_number == lent.export_number and not overwriting.brought_nothing(bitmap, old):
        done = old.closure is Closure.JOINED
        raise errors.Refused(
            path,
            "holds an import of this export that was joined already"
            if done
            else "holds the changes of an earlier import of this export",
            "export the set again" if done else "join it first, or name another bitmap volume",
        )


def _import_header(instance: Instance, request: Borrowing, lent: TicketEntry) -> Header:
    try:
        time_ns = int(datetime.fromisoformat(lent.pit_time).timestamp() * 1e9)
    except (ValueError, OverflowError) as error:
        raise errors.BadTicket(request.shadow, f"impossible time ({error})") from error
    if not -(1 << 63) <= time_ns < 1 << 63:
        raise errors.BadTicket(request.shadow, f"impossible time ({lent.pit_time})")
    header = Header(
        uuid=lent.uuid, kind=Kind.INDEPENDENT, size_bytes=lent.size_bytes, master=lent.master,
        shadow=request.shadow, bitmap=request.bitmap, role=BitmapRole.IMPORTED,
        custody=Custody.IMPORTED, pit=Pit(lent.pit, lent.pit_id, time_ns),
        export_number=lent.export_number, import_id=uuid4(), boot_id=instance.boot_id,
        process_durability=not instance.ordered, session=instance.session,
    )  # fmt: skip
    pack(header)  # paths that do not fit are refused before anything is written
    return header


def _earlier_import(member: VolumeSet) -> UUID | None:
    """The id of an earlier import whose bitmap volume is used again; None: there is none.

    It has changed nothing (_check_reuse).
    """
    assert member.bitmap is not None
    try:
        old = member.bitmap.read_header()
    except (errors.BadBitmap, OSError):
        return None
    return old.import_id if old.uuid == member.key else None


def _write_import(member: VolumeSet) -> None:
    """Write bits and header. The import counts from the header on; before, a start forgets it."""
    assert member.bitmap is not None
    member.bitmap.erase_headers()
    for region in Region:
        member.bitmap.write_region(member.header, region, Bitmap(member.bits.chunks))
    member.adopt(member.log.repair(member.header))
