"""Wipes an incomplete shadow, so that nobody takes it for a file system or for anything else.

It holds parts of file systems. If a superblock is among them, somebody could mount it and would
read rubbish. So everything is wiped that libblkid would find, because programs that mount or
activate a volume go by that.
"""

import logging
from typing import Final

from iifuse import errors
from iifuse.store.programs import Programs
from iifuse.store.signature import Signature, signatures
from iifuse.store.volume import Volume

log = logging.getLogger(__name__)

HEAD_BYTES: Final = 64 * 1024
"""This much is wiped in any case. It contains most signatures and what belongs to them."""
_ROUNDS_MAX: Final = 16
"""How often signatures are looked for: some are seen only when others are gone."""
_BLOCK_BYTES: Final = 4096
"""A superblock is wiped as a whole, because it may contain a second signature."""


def wipe(volume: Volume, programs: Programs) -> list[Signature]:
    """Zero the first 64 KiB of a volume, and all signatures that libblkid finds after that.

    Returns the signatures behind the first 64 KiB. Blocks; raises OSError if a write or the sync
    fails. If nobody can look for signatures, only the first 64 KiB are wiped.
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
    """What was wiped, in words for people."""
    others = "".join(f", {each.kind} at byte {each.at:,}" for each in wiped)
    return f"wiped, as it was incomplete: the first 64 KiB{others}"
