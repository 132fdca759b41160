"""Lend a shadow to another host and take it back (`iiadm -E`, `-I`, `-J`)."""

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from uuid import UUID, uuid4

from iifuse import errors
from iifuse.core import loss, sector, ticket
from iifuse.core.bitmap import Bitmap
from iifuse.core.bits import Bits
from iifuse.core.geometry import Geometry
from iifuse.core.header import BitmapRole, Closure, Header, Pit, pack
from iifuse.core.sector import Region
from iifuse.core.state import Custody, Kind, Progress, Verb
from iifuse.core.ticket import Lent
from iifuse.core.times import Times, after
from iifuse.core.times import lent as times_of_lent
from iifuse.engine import overwriting, roles, unjoined
from iifuse.engine.enable import last_shown
from iifuse.engine.engine import Engine
from iifuse.engine.family import Family
from iifuse.engine.opening import check_place, check_size, open_or_create
from iifuse.engine.roles import Part
from iifuse.engine.storage import storage, sync
from iifuse.engine.threads import blocking
from iifuse.engine.tickets import (
    lent_of,
    note_import,
    publish_ticket,
    ticket_path,
    write_ticket,
)
from iifuse.engine.view import View
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.statedb import SetRow
from iifuse.store.volume import Volume, open_volume

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Borrowing:
    """What `-I` asks for; the paths are absolute. `ticket`: None means beside the shadow."""

    shadow: str
    bitmap: str
    ticket: str | None = None
    sure: bool = False


# -- export ---------------------------------------------------------------------------------


async def export(engine: Engine, member: VolumeSet) -> Lent:
    """Let go of the shadow so that another host can take it in; the master goes on being tracked.

    Raises the state table's refusals, Busy, and StorageError (the set is local then).
    """
    member.check(Verb.EXPORT)
    await member.try_shadow()
    view = engine.views[member.name]
    async with (
        engine.closed([view], "unmount it or stop the program first"),
        engine.notes.announced({member: (Progress.IDLE, Custody.EXPORTED)}),
    ):
        path = await _hand_over(engine, member, view)
    await engine.note(member, "-E")
    try:
        await blocking(partial(publish_ticket, path))
    except OSError as error:
        raise errors.StorageError(
            path,
            f"the set is exported, but its ticket cannot be put here ({error.strerror})",
            f"use {path}.draft, or make room and start the service anew",
        ) from error
    return lent_of(member.header)


async def _hand_over(engine: Engine, member: VolumeSet, view: View) -> str:
    """The path of the ticket, which is on disk under another name before the header changes."""
    shadow = member.shadow
    assert shadow is not None
    number = member.header.export_number + 1
    times = view.as_field(view.times.exact())
    path = await blocking(partial(ticket_path, engine, member.header))
    lent = lent_of(replace(member.header, export_number=number, **times))
    await storage(partial(write_ticket, f"{path}.draft", lent))
    async with engine.family(member).locks.gate():
        await sync(shadow, [member])
        try:
            await member.save_exact(
                custody=Custody.EXPORTED, export_number=number, joined=(), **times
            )
        except OSError as error:
            raise errors.StorageError(
                member.header.bitmap, str(error), "the set is still local"
            ) from error
    await engine.hide(view)
    member.shadow = None
    await blocking(partial(_let_go, shadow))
    return path


def _let_go(shadow: Volume) -> None:
    try:
        shadow.drop_cache()
    except OSError as error:  # it was synced before; only the importer's cache matters now
        log.warning("%s: %s", shadow.path, error)
    finally:
        shadow.close()


# -- import ---------------------------------------------------------------------------------


async def take_in(engine: Engine, request: Borrowing) -> VolumeSet:
    """Serve a shadow that another host lends and note in a bitmap what is written to it.

    Raises BadTicket, BadVolume, InUse, Busy, Refused, StorageError; then nothing has changed.
    """
    undo, shadow, bitmap, header = await blocking(partial(_open_lent, engine, request))
    with undo:
        bits = await blocking(partial(Bits.blank, header.geometry.chunks))
        member = VolumeSet(header, bits, shadow, BitmapFile(bitmap))
        earlier = await blocking(partial(_earlier_import, member))
        async with engine.notes.entered(SetRow.of(header, entering=True)):
            await storage(partial(_write_import, member))
        undo.pop_all()
    await blocking(partial(note_import, member.header, earlier))
    family = Family(None, None, header.geometry, ordered=engine.ordered)
    engine.families.append(family)
    engine.register(family, member)
    await engine.show_shadow(member)
    await engine.note(member, "-I")
    return member


async def check_import(engine: Engine, request: Borrowing) -> None:
    """Everything that `take_in` checks; a bitmap that is made for it is removed again."""
    undo, *_ = await blocking(partial(_open_lent, engine, request))
    undo.close()


def _open_lent(engine: Engine, request: Borrowing) -> tuple[ExitStack, Volume, Volume, Header]:
    if request.shadow in engine.sets:
        raise errors.InUse(
            request.shadow, "is a set of this service already", "join an exported set with -J"
        )
    lent = _read_lent(request)
    header = _import_header(engine, request, lent)
    if any(s.key == lent.uuid for s in engine.sets.values()):
        raise errors.Refused(request.shadow, "this service exported it", "join it with -J")
    roles.check(engine, [(Part.SHADOW, request.shadow), (Part.BITMAP, request.bitmap)])
    check_place(request.bitmap)
    need = sector.bitmap_bytes(Geometry(lent.size_bytes).chunks)
    with ExitStack() as undo:
        shadow = open_volume(request.shadow)
        undo.callback(shadow.close)
        check_size(shadow, lent.size_bytes, "the shadow of this ticket")
        bitmap = open_or_create(request.bitmap, need, undo, sparse=False)
        check_size(bitmap, need, "a bitmap")
        bitmap.drop_cache()
        shadow.drop_cache()
        _check_reuse(BitmapFile(bitmap), lent)
        loss.check(overwriting.by_bitmap(engine, bitmap, lent.uuid), sure=request.sure)
        known = last_shown(BitmapFile(bitmap), header)
        times = times_of_lent(lent.times, known, time.time_ns())
        return undo.pop_all(), shadow, bitmap, replace(header, shadow_times=times)


def _read_lent(request: Borrowing) -> Lent:
    path = request.ticket or f"{request.shadow}.iiticket"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            blob = file.read(ticket.TICKET_BYTES_MAX + 1)
    except OSError as error:
        raise errors.BadTicket(
            path,
            f"no ticket can be read here ({error.strerror})",
            "-E writes it beside the shadow, for a device into the exporting host's "
            "STATE/tickets; name it as the third word of -I",
        ) from error
    return ticket.find(path, ticket.decode(path, blob), request.shadow)


def _check_reuse(bitmap: BitmapFile, lent: Lent) -> None:
    """What the bitmap volume holds may be overwritten, unless changes would be forgotten."""
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


def _import_header(engine: Engine, request: Borrowing, lent: Lent) -> Header:
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
        export_number=lent.export_number, import_id=uuid4(), boot_id=engine.boot_id,
        process_durability=not engine.ordered, session=engine.session,
    )  # fmt: skip
    pack(header)  # paths that do not fit are refused before anything is written
    return header


def _earlier_import(member: VolumeSet) -> UUID | None:
    """That of this export which the bitmap volume holds: it has brought nothing (_check_reuse)."""
    assert member.bitmap is not None
    try:
        old = member.bitmap.read_header()
    except (errors.BadBitmap, OSError):
        return None
    return old.import_id if old.uuid == member.key else None


def _write_import(member: VolumeSet) -> None:
    """From the header on the import is there; until then a start forgets it."""
    assert member.bitmap is not None
    member.bitmap.erase_headers()
    for region in Region:
        member.bitmap.write_region(member.header, region, Bitmap(member.bits.chunks))
    member.header = member.bitmap.write_header(member.header)


# -- join -----------------------------------------------------------------------------------


async def join(
    engine: Engine, member: VolumeSet, path: str, *, accept_unclosed: bool
) -> list[str]:
    """Merge a secondary bitmap; the next update copies the union. No data moves, no new PIT.

    Answers with remarks: other imports of this export, whose changes are noted elsewhere.

    Any failed check or error changes nothing but harmless extra bits, and the set stays as it is.
    Raises Refused, BadSecondary, NotClosed, BadVolume, Busy, StorageError.
    """
    undo, secondary, changes = await blocking(
        partial(_open_secondary, engine, member, path, accept_unclosed)
    )
    with undo:
        exported = member.header.custody is Custody.EXPORTED
        shadow = await blocking(partial(reopen_lent, engine, member)) if exported else None
        try:
            async with engine.notes.announced({member: None}):
                await unjoined.learn(engine, member)  # before it is local: it has to be durable
                await _merge(engine, member, secondary, changes)
        except BaseException:
            if shadow is not None:
                shadow.close()
            raise
        if shadow is not None:
            member.shadow = shadow
            await engine.show_shadow(member)
        await blocking(partial(_stamp_joined, secondary))
    await engine.note(member, "-J")
    await unjoined.learn(engine, member)
    return [
        f"{member.name}: an import with the bitmap {other} is not joined yet: until it is, updates "
        "copy everything"
        for other in member.unjoined
    ]


async def check_join(
    engine: Engine, member: VolumeSet, path: str, *, accept_unclosed: bool
) -> None:
    """Everything that `join` checks of the two bitmaps; nothing is changed."""
    undo, _, _ = await blocking(partial(_open_secondary, engine, member, path, accept_unclosed))
    undo.close()


def _open_secondary(
    engine: Engine, member: VolumeSet, path: str, accept_unclosed: bool
) -> tuple[ExitStack, BitmapFile, Bitmap]:
    header = member.header
    if header.custody is Custody.IMPORTED or not header.export_number:
        raise errors.Refused(member.name, "is not exported", "only an exported set can be joined")
    roles.check(engine, [(Part.BITMAP, path)])
    with ExitStack() as undo:
        volume = open_volume(path, exclusive=False)
        undo.callback(volume.close)
        volume.drop_cache()
        secondary = BitmapFile(volume)
        try:
            other = secondary.read_header()
            check_secondary(path, header, other, accept_unclosed=accept_unclosed)
            changes, damaged = secondary.read_bits(other, Region.SHADOW)
        except (errors.BadBitmap, OSError) as error:
            raise errors.BadSecondary(path, f"cannot be read as a bitmap ({error})") from error
        if damaged:
            raise errors.BadSecondary(path, "its bits are damaged (checksum)")
        return undo.pop_all(), secondary, changes


def check_secondary(path: str, main: Header, other: Header, *, accept_unclosed: bool) -> None:
    """Raise BadSecondary or NotClosed unless `other` is an import of this set's last export."""
    if other.role is not BitmapRole.IMPORTED:
        raise errors.BadSecondary(path, "is not the bitmap of an imported shadow")
    pairs = (
        ("set", str(other.uuid), str(main.uuid)),
        ("PIT", other.pit.number, main.pit.number),
        ("PIT id", str(other.pit.id), str(main.pit.id)),
        ("export", other.export_number, main.export_number),
        ("size", other.size_bytes, main.size_bytes),
    )
    for what, theirs, ours in pairs:
        if theirs != ours:
            raise errors.BadSecondary(
                path, f"is of another {what}: {theirs}, and {main.shadow} is at {ours}",
                "find the bitmap of this export, or make all chunks differ",
            )  # fmt: skip
    if other.import_id in main.joined:
        raise errors.AlreadyJoined(path, "this import was joined already")
    if other.closure is Closure.OPEN and not accept_unclosed:
        raise errors.NotClosed(
            path,
            "was not closed on the host that imported the shadow",
            "disable it there (-d); if that host is lost, -n accepts the bitmap as it is",
        )


def reopen_lent(engine: Engine, member: VolumeSet) -> Volume:
    """Open a shadow that comes back; nothing that was cached before counts. Blocks."""
    roles.check(engine, [(Part.SHADOW, member.name)], own=member)
    volume = open_volume(member.name)
    try:
        check_size(volume, member.header.size_bytes, "the shadow")
        volume.drop_cache()
    except BaseException:
        volume.close()
        raise
    return volume


async def _merge(engine: Engine, member: VolumeSet, secondary: BitmapFile, changes: Bitmap) -> None:
    """OR, sync, header (design, section 4); under the gate, since every bit is written anew."""
    other = await blocking(secondary.read_header)
    joined = (*member.header.joined, other.import_id)
    theirs = Times() if changes.is_zero() else other.shadow_times
    view = engine.views.get(member.name)  # of a set whose first import was joined before
    if view is not None and theirs != Times():
        await engine.changed(view, theirs.next_ns)
    async with engine.family(member).locks.gate():
        member.bits.shadow.merge(changes)
        times = member.header.shadow_times
        if view is None and theirs != Times():
            times = after([times, theirs], time.time_ns())
        try:
            await member.save_exact(custody=Custody.LOCAL, joined=joined, shadow_times=times)
        except OSError as error:
            raise errors.StorageError(
                member.header.bitmap, str(error), "nothing was joined"
            ) from error
        await member.renew_bits()


def _stamp_joined(secondary: BitmapFile) -> None:
    """So that the bitmap is not joined again elsewhere; where it cannot be written, so be it."""
    try:
        header = secondary.read_header()
        secondary.write_header(replace(header, closure=Closure.JOINED))
    except (OSError, errors.BadBitmap):
        return
