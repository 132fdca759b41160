"""Brings back sets by their bitmap volumes, after the database was lost (`iiadm --attach`).

The state of a set is in the header of its bitmap volume. After a clean stop the bits are believed,
as at any start. Otherwise they are not: only the lost state directory knew whether a group command
was under way, and whether the set was in use when its master was last written. The tests of power
losses have found such a case. An enable that was cut short leaves a bitmap that looks whole, while
writes to the master are not noted in it.
"""

from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Final
from uuid import UUID

from iifuse import errors
from iifuse.core.header import Closure, Header
from iifuse.core.state import Custody, how_to_bring_back
from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.host import roles
from iifuse.host.instance import Instance
from iifuse.host.roles import Part
from iifuse.loop.lookout import PATIENT_S
from iifuse.store.bitmapfile import BitmapFile
from iifuse.store.headerlog import HeaderLog
from iifuse.store.setrow import SetRow
from iifuse.verbs import pit, recovery

_REASON: Final = "it was not stopped cleanly, and the state directory that it belonged to is lost"
_LOOK: Final = "'iiadm -l' lists all"
_IN_USE: Final = "its master was in use here before the set was brought back"


async def attach(instance: Instance, paths: tuple[str, ...], group: str | None) -> list[str]:
    """Bring back the sets of these bitmap volumes. Returns remarks for the user.

    All are checked before the first set comes back. Raises BadBitmap, BadVolume, InUse, Refused.
    """
    found = await _read_all(instance, paths)
    rows = [_row(*one, group, _family_in_use(instance, one[1])) for one in found]
    masters = {header.master or header.shadow for _, header in found}
    async with instance.verb_locks.also(masters):
        in_use = filter(None, (_family_in_use(instance, header) for _, header in found))
        async with AsyncExitStack() as gates:  # no write may come before the sets note it
            for family in pit.in_order(in_use):
                await gates.enter_async_context(family.locks.gate())
            await instance.loop.blocking(partial(_remember, instance, rows))
            members = await recovery.bring_back(instance, rows)
        for member in members:
            await recovery.show(instance, instance.family(member))
            await instance.note(member, "attach")
            await _show_later_times(instance, member)
        recovery.start_copies(instance, members)
    return [
        f"{s.name}: offline, {s.header.offline_reason}; {how_to_bring_back(s.name, s.state)}"
        for s in members if s.state.offline
    ]  # fmt: skip


async def _show_later_times(instance: Instance, member: VolumeSet) -> None:
    """Let the master show later times than it may have shown when the set was in use."""
    view, known = instance.master_view(instance.family(member)), member.header.master_times
    if view is not None and known != view.times.record():
        await instance.changed(view, known.next_ns)


def _remember(instance: Instance, rows: list[SetRow]) -> None:
    """Put sets into the state database, all of them or none. Raises StorageError."""
    with ExitStack() as undo:
        for row in rows:
            instance.notes.enter(row)
            undo.callback(_forget, instance, row.shadow)
        undo.pop_all()


def _forget(instance: Instance, name: str) -> None:
    with suppress(errors.StorageError):  # then it is removed before the next set is entered
        instance.notes.forget(name)


def _check_each_once(headers: list[Header]) -> None:
    shadows, uuids = {h.shadow for h in headers}, {h.uuid for h in headers}
    if len(shadows) < len(headers) or len(uuids) < len(headers):
        raise errors.UsageError("", "two of these bitmap volumes are of one set")


_Read = tuple[BitmapFile, Header]


async def _read_all(instance: Instance, paths: tuple[str, ...]) -> list[_Read]:
    """What the headers say, which know where they stand now. The volumes are closed again."""
    undo = ExitStack()
    await instance.look_at_closed()
    await instance.check_answering(*paths)
    try:
        found = [await _read_in_time(instance, path, undo) for path in paths]
        _check_each_once([header for _, header in found])
        for one in found:
            await instance.loop.blocking(partial(_adopt, *one))
    finally:
        await instance.lookout.ask(paths[0], undo.close, limit_s=PATIENT_S)
    return found


async def _read_in_time(instance: Instance, path: str, undo: ExitStack) -> _Read:
    read = partial(_read, instance, path)
    found = await instance.lookout.ask(path, read, lambda late: late[0].volume.close(), PATIENT_S)
    undo.callback(found[0].volume.close)
    return found


def _read(instance: Instance, path: str) -> _Read:
    """In a thread."""
    roles.check(instance, [(Part.BITMAP, path)])
    with ExitStack() as undo:
        volume = instance.open_volume(path)
        undo.callback(volume.close)
        bitmap = BitmapFile(volume)
        header = bitmap.read_header()
        _check(instance, path, header)
        undo.pop_all()
    return bitmap, header


def _check(instance: Instance, path: str, header: Header) -> None:
    if header.closure is not Closure.OPEN:
        raise errors.Refused(path, "its set was disabled", "there is nothing to bring back")
    if header.shadow in instance.sets or header.uuid in _keys(instance):
        raise errors.InUse(header.shadow, "is a set of this service already", _LOOK)
    master, shadow = (Part.MASTER, header.master), (Part.SHADOW, header.shadow)
    rest = [shadow, (Part.BITMAP, path)]
    parts = rest if header.custody is Custody.IMPORTED else [master, *rest]
    roles.check(instance, parts, ticket=(header.uuid, header.export_number))


def _keys(instance: Instance) -> set[UUID]:
    return {member.key for member in list(instance.sets.values())}


def _adopt(bitmap: BitmapFile, header: Header) -> None:
    """Let the header name the path at which the bitmap is now. Runs in a thread."""
    if header.bitmap != bitmap.volume.path:
        HeaderLog(header, bitmap).commit(bitmap=bitmap.volume.path)


def _family_in_use(instance: Instance, header: Header) -> Family | None:
    """The family of the set's master, if that is on the mount already and so may be written."""
    if header.custody is Custody.IMPORTED:
        return None
    return next((f for f in instance.families if f.path == header.master), None)


def _row(bitmap: BitmapFile, header: Header, group: str | None, in_use: Family | None) -> SetRow:
    doubt = None if header.clean else _REASON
    if doubt is None and in_use is not None and in_use.master and in_use.master.is_device:
        doubt = _IN_USE  # a file's times would tell whether it was written
    return replace(SetRow.of(header, group), bitmap=bitmap.volume.path, doubt=doubt)
