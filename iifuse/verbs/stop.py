"""Stop: copies rest, everything is made durable, exact bits are written, all is closed."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from functools import partial
from math import inf
from typing import Any, TypeVar

import trio

from iifuse import errors
from iifuse.data.family import Family
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.store import outstanding
from iifuse.store.presence import file_of
from iifuse.store.stamp import stamp
from iifuse.store.volume import Volume
from iifuse.verbs import recovery

log = logging.getLogger(__name__)


async def stop(instance: Instance, limit_s: float = inf) -> bool:
    """Let copies rest, make everything durable, write exact bits, mark all clean, close.

    What has volumes that do not answer is left as by a crash after `limit_s` seconds: False.
    """
    ended = {family: trio.Event() for family in instance.families}
    for family, event in ended.items():
        trio.lowlevel.spawn_system_task(_stop_family, instance, family, event)
    with instance.loop.limits.move_on_after(limit_s):
        for event in ended.values():
            await event.wait()
    for family in (family for family, event in ended.items() if not event.is_set()):
        names = ", ".join(filter(None, [family.path, *(s.name for s in family.sets)]))
        log.error("%s: a volume does not answer; the next start looks at what was not saved", names)
    return all(event.is_set() for event in ended.values())


async def _stop_family(instance: Instance, family: Family, ended: trio.Event) -> None:
    try:
        for member in family.sets:
            await instance.stop_copy(member)
        async with family.locks.gate():
            for volume in [family.master, *(s.shadow for s in family.sets if not s.stuck)]:
                await _sync_last(volume, family)
            for member in family.sets:
                await _save(instance, member, family.master)
                await instance.notes.remember(member)
            if family.master is not None and not family.sets:
                await _keep_times(instance, family.master)
        await instance.loop.blocking(partial(_close, family))
    except Exception:
        log.exception("%s: defect at the end of the service", family.path)
    finally:
        ended.set()


async def _sync_last(volume: Volume | None, family: Family) -> None:
    """A shadow that fails is offline when it comes back, whatever a later sync says."""
    if volume is None:
        return
    try:
        await family.loop.blocking(volume.sync)
        await family.loop.blocking(
            volume.sync_times
        )  # else a power failure makes them differ from the stamp
    except OSError as error:
        log.error("%s: the last sync failed: %s", volume.path, error)  # noqa: TRY400
        for member in family.sets:
            await member.take_offline_by_path(volume.path, errors.words(error))


async def _save(instance: Instance, member: VolumeSet, master: Volume | None) -> None:
    """The stamp of a volume that was not here stays: by it we shall know it again."""
    if not member.in_use:
        return
    fields: dict[str, Any] = {}
    for volume, name in ((master, "master_stamp"), (member.shadow, "shadow_stamp")):
        if volume is not None:
            fields[name] = await instance.loop.blocking(partial(stamp, volume))
            view = instance.views.get(volume.path)
            fields |= view.as_field(view.last_times()) if view is not None else {}
    try:
        await member.save_exact(clean=not member.state.offline, **fields)
    except OSError:
        log.exception("%s: the exact bits could not be saved", member.name)


async def _keep_times(instance: Instance, master: Volume) -> None:
    """As its sets' headers do, if it had any."""
    view = instance.views[master.path]
    times, looks = view.last_times(), await instance.loop.blocking(view.stamp)
    await recovery.quietly(
        instance, partial(instance.db.keep_times, view.path, times, looks, file_of(master))
    )


def let_go(instance: Instance, limit_s: float) -> list[str]:
    """At the very end, while threads wait for volumes: close all the others within some seconds.

    The paths of those that a thread waits for. It keeps the process, and their locks with it, which
    nobody can help; whatever else the service had is free for the next one. The loop stands still
    meanwhile: no task may take for a failed volume what is closed here.
    """
    waited_for = outstanding.descriptors()
    volumes = list(_open_volumes(instance))
    free = {volume for volume in volumes if volume.fd >= 0 and volume.fd not in waited_for}
    late = within(limit_s, {volume: volume.let_go for volume in free})
    held = [volume.path for volume in volumes if volume not in free or volume in late]
    held += [volume.path for volume in volumes if volume.is_closing]
    return sorted({*held, *instance.lookout.silent})


def _open_volumes(instance: Instance) -> Iterator[Volume]:
    for family in instance.families:
        bitmaps = [s.bitmap.volume for s in family.sets if s.bitmap is not None]
        for volume in (family.master, *(s.shadow for s in family.sets), *bitmaps):
            if volume is not None and (volume.fd >= 0 or volume.is_closing):
                yield volume


Key = TypeVar("Key", bound=Hashable)


def within(limit_s: float, calls: Mapping[Key, Callable[[], object]]) -> set[Key]:
    """Make calls in threads of their own; those that have not come back in so many seconds."""
    threads = {
        key: threading.Thread(target=call, daemon=True) for key, call in calls.items()
    }  # fmt: skip
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + limit_s
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return {key for key, thread in threads.items() if thread.is_alive()}


def _close(family: Family) -> None:
    for member in family.sets:
        member.close()
    if family.master is not None:
        family.master.close()
