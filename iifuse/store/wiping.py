"""An incomplete shadow is made one that nobody takes for a file system, or for anything else.

Parts of file systems stand on it. One whose superblock is among them would be mounted, and would
read rubbish. What libblkid would find there goes: it is what mounts, imports and activates by.
"""

import logging
from typing import Final

from iifuse import errors
from iifuse.store.programs import Programs
from iifuse.store.signature import Signature, signatures
from iifuse.store.volume import Volume

log = logging.getLogger(__name__)

HEAD_BYTES: Final = 64 * 1024
"""All of it goes, whatever stands there: most signatures, and what belongs to them."""
_ROUNDS_MAX: Final = 16
"""Each takes what all that were found before have hidden."""
_BLOCK_BYTES: Final = 4096
"""A superblock goes as a whole, since there may be a second name in it."""


def wipe(volume: Volume, programs: Programs) -> list[Signature]:
    """Zero the first 64 KiB, and whatever libblkid knows the volume by after that.

    Returns what stood behind the first 64 KiB. Blocks; raises OSError when a write or the sync of
    it fails. Where nobody can look, it is the first 64 KiB.
    """
    wiped: list[Signature] = []
    _zero(volume, 0, HEAD_BYTES)
    for _ in range(_ROUNDS_MAX):
        found = _found(volume, programs)
        if not found:
            break
        for signature in found:
            _zero(volume, signature.at - signature.at % _BLOCK_BYTES, _BLOCK_BYTES)
        wiped += found
    volume.sync()
    return wiped


def _zero(volume: Volume, offset: int, length: int) -> None:
    length = min(length, volume.size_bytes - offset)
    if length > 0:
        volume.write(offset, bytes(length))


def _found(volume: Volume, programs: Programs) -> list[Signature]:
    try:
        return signatures(volume, programs)
    except errors.BadVolume as error:
        log.warning("%s: only its first 64 KiB are wiped: %s", volume.path, error.why)
        return []


def told(wiped: list[Signature]) -> str:
    """What was wiped, for people."""
    others = "".join(f", {each.kind} at byte {each.at:,}" for each in wiped)
    return f"wiped, as it was incomplete: the first 64 KiB{others}"
