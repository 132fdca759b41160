"""Blocking calls on volumes for verbs. Their errors are explained and noted."""

from collections.abc import Callable, Iterable

from iifuse import errors
from iifuse.data.volumeset import VolumeSet
from iifuse.loop.loop import Loop
from iifuse.store.volume import Volume


async def sync(loop: Loop, volume: Volume, sets: Iterable[VolumeSet]) -> None:
    """Sync a volume of these sets. If that fails the volume goes offline. Raises StorageError."""
    try:
        await storage(loop, volume.sync)
    except errors.StorageError as error:
        for member in sets:
            await member.take_offline_by_path(volume.path, error.why)
        raise


async def storage(loop: Loop, call: Callable[[], object]) -> None:
    """Make a blocking call in a thread. Its OSError is raised as a StorageError."""
    try:
        await loop.blocking(call)
    except OSError as error:
        raise storage_error(error, "nothing was changed") from error


def storage_error(error: OSError, todo: str) -> errors.StorageError:
    """The StorageError for a failed call. `todo`: what the user has to know or do."""
    return errors.StorageError(str(error.filename or ""), error.strerror or str(error), todo)
