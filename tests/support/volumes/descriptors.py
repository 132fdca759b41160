"""What this process has open. To count all of it would count what other tests leave behind."""

import contextlib
import os
from pathlib import Path


def open_below(place: Path | str) -> list[str]:
    """The paths below this directory that are open here, once for each descriptor."""
    paths = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed since
            paths.append(os.readlink(f"/proc/self/fd/{name}"))
    return [path for path in paths if path.startswith(f"{place}/")]
