"""The machine that a run is made on, and the programs that it needs."""

import ctypes
import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from .private import parent_directory

_PROGRAMS: Final = {
    "fio": "fio",
    "qemu-storage-daemon": "qemu-system-common",
    "nbdkit": "nbdkit",
    "nbdfuse": "libnbd-bin",
    "mkfs.xfs": "xfsprogs",
    "xfs_io": "xfsprogs",
    "mkfs.ext4": "e2fsprogs",
    "filefrag": "e2fsprogs",
    "rsync": "rsync",
    "losetup": "mount",
    "unshare": "util-linux",
    "postgres": "postgresql",
    "pgbench": "postgresql",
}
"""Program -> Debian's package of it."""


def _path() -> str:
    """The search path, with the places that Debian keeps off it."""
    servers = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
    return ":".join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", *servers])


def missing_programs() -> dict[str, str]:
    """Program -> package of what is not installed."""
    return {name: pkg for name, pkg in _PROGRAMS.items() if not shutil.which(name, path=_path())}


def missing_rights() -> str:
    """Why nothing can be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "mounting needs root"
    return "" if os.path.exists("/dev/fuse") else "there is no /dev/fuse"


def facts() -> dict[str, str]:
    """What RESULTS.md says of the machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "pyfuse3": version("pyfuse3"),
        "libfuse": _libfuse(),
        "fio": _version("fio", "--version"),
        "QEMU": _version("qemu-storage-daemon", "--version"),
        "nbdkit": _version("nbdkit", "--version"),
        "libnbd": _version("nbdfuse", "--version"),
        "PostgreSQL": _version("postgres", "--version"),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.1f} GiB",
        "disk": _file_system(parent_directory()),
    }


def _libfuse() -> str:
    library = ctypes.CDLL("libfuse3.so.3")
    library.fuse_pkgversion.restype = ctypes.c_char_p
    return str(library.fuse_pkgversion().decode())


def _version(*command: str) -> str:
    program = shutil.which(command[0], path=_path()) or command[0]
    said = subprocess.run(  # noqa: S603
        [program, *command[1:]], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found.group() if found else said.strip()


def _processor() -> str:
    text = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _file_system(directory: Path) -> str:
    words = ["findmnt", "--noheadings", "--output", "FSTYPE,OPTIONS", "--target", str(directory)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)  # noqa: S603
    kind, _, options = done.stdout.strip().partition(" ")
    return f"{kind} ({options.strip()})"
