"""What a volume of the disk in memory is; nothing of the host's devices and mounts is looked at."""

from typing import Any
from unittest.mock import Mock, patch

from iifuse import errors
from iifuse.core.header import FileId
from iifuse.store.blocks import WHOLE, Extent
from iifuse.store.identity import Identity, device_id

REAL = tuple(
    f"iifuse.store.{name}"
    for name in (
        "blocks", "blockusers", "claims", "holders", "identity", "mounts", "namespaces",
    )
)
"""Modules that are left out while this holds."""


def patches(disk: Any) -> list[Any]:
    """To be in force while the product works on `disk()`, which is in memory."""

    def find(path: str) -> Identity | None:
        number = disk().names.get(path)
        if number in disk().devices:
            own = (Extent(f"file:1:{disk().devices[number]}", 0, WHOLE),)
            return Identity(True, (number, 0), own)
        own = (Extent(f"file:{number}", 0, WHOLE),)
        return None if number is None else Identity(False, (1, number), own)

    def identify(path: str) -> Identity:
        found = find(path)
        if found is None:
            raise errors.BadVolume(path, "is missing") from FileNotFoundError(path)
        return found

    def number_at(path: str) -> tuple[int, int]:
        return identify(path).number

    def file_at(path: str) -> FileId:
        found = identify(path)
        return device_id(found) if found.is_device else FileId(found.number[1])

    return [
        patch("iifuse.store.identity.identify", identify),
        patch("iifuse.store.identity.find", find),
        patch("iifuse.store.identity.number_at", number_at),
        patch("iifuse.store.presence.file_at", file_at),
        patch("iifuse.store.volume.Claim", Mock()),
        # No child sees this disk; no content here is one that libblkid knows.
        patch("iifuse.store.signature._blkid", lambda *_: {}),
        patch("iifuse.store.wiping.signatures", lambda *_: []),
    ]
