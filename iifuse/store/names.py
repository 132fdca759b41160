"""Makes and removes names of files and directories so that a power loss does not change them."""

import os
from contextlib import suppress

from iifuse import errors
from iifuse.store.files import sync_directory
from iifuse.store.volume import UNSUPPORTED


def remove_file(path: str) -> None:
    """Remove a file, so that a power loss does not bring it back."""
    os.unlink(path)
    sync_directory(path)


def keep_name(path: str) -> None:
    """Make the name of a file durable that another program has made. Raises BadVolume."""
    try:
        sync_directory(os.path.realpath(path))
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            why = f"its directory cannot be synced ({error.strerror})"
            raise errors.BadVolume(path, why, "see to its file system") from error


def make_directory(path: str) -> None:
    """Make a private directory and the missing directories above it, durably.

    If it is there already, its name is made durable again: the process that made it may have been
    killed before that.
    """
    parent = os.path.dirname(path) or "."
    if not os.path.isdir(path):
        if not os.path.isdir(parent):
            make_directory(parent)
        with suppress(FileExistsError):
            os.mkdir(path, mode=0o700)
    sync_directory(path)
