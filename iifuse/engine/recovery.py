"""Start and stop: every set comes back with its state, its group and its running copy.

A set that cannot come back whole comes back with volumes offline and the reason; it never stops
the others, and its master is served.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from iifuse import errors
from iifuse.core.header import Closure
from iifuse.core.state import Role
from iifuse.engine.enable import finish_disable
from iifuse.engine.engine import Engine
from iifuse.engine.family import Family
from iifuse.engine.loading import has_header, load
from iifuse.engine.threads import blocking
from iifuse.engine.tickets import settle_ticket
from iifuse.engine.trust import doubt_siblings
from iifuse.engine.unjoined import learn_at_start
from iifuse.engine.volumeset import VolumeSet
from iifuse.store.stamp import stamp
from iifuse.store.statedb import SetRow
from iifuse.store.volume import Volume, open_volume

log = logging.getLogger(__name__)


async def start(engine: Engine) -> None:
    """Bring everything back that the state database names. Raises only on a defect.

    No file is shown before every set is back: a write that came earlier would be noted nowhere.
    """
    for path in await blocking(engine.db.volumes):
        await _open_master(engine, path)
    await bring_back(engine, await blocking(engine.db.sets))
    await _finish_transition(engine)
    await learn_at_start(engine)
    for family in engine.families:
        await show(engine, family)
    start_copies(engine, engine.sets.values())


def start_copies(engine: Engine, members: Iterable[VolumeSet]) -> None:
    """Let the copies go on that ran when the sets were last in use."""
    for member in members:
        if member.header.copying:
            engine.start_copy(member)


async def bring_back(engine: Engine, rows: Iterable[SetRow]) -> list[VolumeSet]:
    """Load sets and make their headers say that they are in use; nothing is shown yet.

    The database knows a new session before the first header has it, and forgets the one before
    after the last has: a start that is cut short finds every header known.
    """
    found = [await _start_set(engine, row) for row in rows]
    members = [member for member in found if member is not None]
    before = {s.name: s.header.session for s in members}
    try:
        await blocking(partial(engine.db.begin_session, engine.session, before))
    except errors.StorageError:
        log.exception("the state database cannot be written, sets keep the session they have")
    else:
        for member in members:
            member.header = replace(member.header, session=engine.session)
    for member in members:
        if member.header.restored_offline:
            await doubt_siblings(member, engine.family(member).sets)
    for member in members:
        await _open_for_use(engine, member)
        for what in member.recovered:
            await engine.note(member, f"start: {what}")
    await _quietly(engine.db.end_session_change)
    return members


async def _quietly(call: Callable[[], None]) -> None:
    """For what a later start makes up for."""
    try:
        await blocking(call)
    except (errors.StorageError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect


async def show(engine: Engine, family: Family) -> None:
    """Put a family's files on the mount, those that are not there yet."""
    if family.master is not None and family.master.path not in engine.views:
        await engine.show_master(family)
    for member in family.sets:
        if member.shadow is not None and member.name not in engine.views:
            await engine.show_shadow(member)


async def stop(engine: Engine) -> None:
    """Let copies rest, make everything durable, write exact bits, mark all clean, close."""
    for member in engine.sets.values():
        await engine.stop_copy(member)
    for family in engine.families:
        async with family.locks.gate():
            for volume in [family.master, *(s.shadow for s in family.sets if not s.stuck)]:
                await _sync_last(volume, family)
            for member in family.sets:
                await _save(engine, member, family.master)
                await engine.notes.remember(member)
            if family.master is not None and not family.sets:
                await _keep_times(engine, family.master)
        await blocking(partial(_close, family))


async def _sync_last(volume: Volume | None, family: Family) -> None:
    """A shadow that fails is offline when it comes back, whatever a later sync says."""
    if volume is None:
        return
    try:
        await blocking(volume.sync)
        await blocking(volume.sync_times)  # else a power failure makes them differ from the stamp
    except OSError as error:
        log.error("%s: the last sync failed: %s", volume.path, error)  # noqa: TRY400
        for member in family.sets:
            await member.lose(volume.path, str(error))


async def _save(engine: Engine, member: VolumeSet, master: Volume | None) -> None:
    shown = [engine.views.get(v.path) for v in (master, member.shadow) if v is not None]
    times: dict[str, Any] = {}
    for view in filter(None, shown):
        times |= view.as_field(view.last_times())
    try:
        await member.save_exact(
            clean=not member.state.offline,
            master_stamp=stamp(master),
            shadow_stamp=stamp(member.shadow),
            **times,
        )
    except OSError:
        log.exception("%s: the exact bits could not be saved", member.name)


async def _keep_times(engine: Engine, master: Volume) -> None:
    """As its sets' headers do, if it had any."""
    view = engine.views[master.path]
    await _quietly(partial(engine.db.keep_times, view.path, view.last_times(), view.stamp()))


def _close(family: Family) -> None:
    for member in family.sets:
        member.close()
    if family.master is not None:
        family.master.close()


# -- one set --------------------------------------------------------------------------------


async def _start_set(engine: Engine, row: SetRow) -> VolumeSet | None:
    if row.entering and not await blocking(partial(has_header, row)):
        log.warning("%s: was being enabled or imported when the service ended", row.shadow)
        await _quietly(partial(engine.db.remove_set, row.shadow))
        return None
    family = await _open_master(engine, row.master) if row.master else None
    member, trouble = await blocking(partial(load, engine, row, family))
    if member.header.closure is not Closure.OPEN:
        await _quietly(partial(_forget_closed, engine, row, member))
        return None
    if row.closing:
        await _quietly(partial(engine.db.closing, row.shadow, False))
    if family is None or family.geometry != member.geometry:
        family = _family_without_master(engine, row, member)
        if row.master and not any(role & Role.MASTER for role, _ in trouble):
            trouble.insert(0, (Role.MASTER, "the master cannot be used"))
    engine.register(family, member)
    for role, reason in trouble:
        if not role:
            log.warning("%s: %s", member.name, reason)
        await member.take_offline(role, reason)
        member.recovered.append(reason)
    return member


def _forget_closed(engine: Engine, row: SetRow, member: VolumeSet) -> None:
    """In a thread: a disable that was cut short, or an end that this database never knew of.

    After the latter, a join while this service was down among them, the shadow may long be
    somebody else's: nothing of it is wiped.
    """
    if row.closing:
        finish_disable(engine, member)
        log.info("%s: the disable that was cut short is done", member.name)
        return
    log.warning("%s: was disabled or joined since this service last had it", member.name)
    engine.db.remove_set(member.name)
    member.close()


def _family_without_master(engine: Engine, row: SetRow, member: VolumeSet) -> Family:
    """Of an imported shadow, or of a master that cannot be used; siblings share it."""
    for family in engine.families:
        if family.path == row.master is not None and family.master is None:
            return family
    family = Family(row.master, None, member.geometry, ordered=engine.ordered)
    engine.families.append(family)
    return family


async def _open_for_use(engine: Engine, member: VolumeSet) -> None:
    """The header says unclean before anything can be written."""
    try:
        await member.commit(
            clean=False,
            boot_id=engine.boot_id,
            process_durability=not engine.ordered,
            restored_offline=False,
        )
    except OSError as error:
        await member.take_offline(Role.BITMAP, str(error))
    await engine.notes.remember(member)
    try:
        await blocking(partial(settle_ticket, engine, member.header))
    except OSError as error:
        log.error("%s: its ticket could not be written: %s", member.name, error)  # noqa: TRY400


async def _open_master(engine: Engine, path: str) -> Family | None:
    for family in engine.families:
        if family.path == path and family.master is not None:
            return family
    try:
        volume = await blocking(partial(open_volume, path, exclusive=False))
    except errors.IifuseError as error:
        log.error("%s: this master cannot be served: %s", path, error)  # noqa: TRY400
        return None
    return engine.adopt(volume)


async def _finish_transition(engine: Engine) -> None:
    """Forget a group's record once all its members have followed; a missing one may come later."""
    transition = engine.transitions.transition
    if transition is None:
        return
    here = {s.key: s for s in engine.sets.values() if s.bitmap is not None}
    if all(m.uuid in here for m in transition.members):
        await blocking(engine.transitions.finish)
