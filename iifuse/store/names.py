"""Names of files and directories that stay, or stay away, over a power loss."""

import os
from contextlib import suppress

from iifuse import errors
from iifuse.store.files import sync_directory
from iifuse.store.volume import UNSUPPORTED


def remove_file(path: str) -> None:
    """Remove a file for good: a power loss does not bring it back."""
    os.unlink(path)
    sync_directory(path)


def keep_name(path: str) -> None:
    """Make the name of a file durable that somebody else has made. Raises BadVolume."""
    try:
        sync_directory(os.path.realpath(path))
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            why = f"its directory cannot be synced ({error.strerror})"
            raise errors.BadVolume(path, why, "see to its file system") from error


def make_directory(path: str) -> None:
    """Make a private directory, those above it too where they are missing; durably, all of them.

    Of one that is there its name is made durable again: who made it may have been killed.
    """
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(path):
        if not os.path.isdir(parent):
            make_directory(parent)
        with suppress(FileExistsError):
            os.mkdir(path, mode=0o700)
    sync_directory(path)
