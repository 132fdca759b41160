"""What is mounted in the mount namespaces of this host.

Only namespaces with a process in them are found. Everything is read from links and texts in /proc,
so nothing that is mounted is touched.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from iifuse.store.mounts import Mount, Mounts


@dataclass(frozen=True)
class Namespace:
    """A mount namespace. `pid`: a process in it. `own`: it is that of this process."""

    pid: int
    own: bool
    mounts: Mounts

    def names(self, device: int, path: str) -> Iterator[str]:
        """The paths of a file in this namespace.

        `device`: the number of its file system. `path`: its path inside the file system.
        """
        for mount in self.mounts.all_of_number(device):
            root = mount.root.rstrip("/")
            if path == root or path.startswith(f"{root}/"):
                yield mount.point.rstrip("/") + path[len(root) :]

    def of(self, device: str, nodes: Iterable[str]) -> list[Mount]:
        """The mounts of a block device, found by its number and by the names of its nodes."""
        named = [mount for node in nodes for mount in self.mounts.all_from(node)]
        return list(dict.fromkeys([*self.mounts.all_of_device(device), *named]))

    def enter(self) -> str:
        """The beginning of a command that runs in this namespace; empty for our own."""
        if self.own:
            return ""
        root = " -r" if link(f"/proc/{self.pid}/root") not in ("", "/") else ""
        return f"nsenter -t {self.pid} -m{root} "


def link(path: str) -> str:
    """Where a link leads; empty: it cannot be read."""
    with suppress(OSError):
        return os.readlink(path)
    return ""


def processes() -> list[int]:
    """The ids of the processes that run now."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def namespaces() -> list[Namespace]:
    """All mount namespaces, our own first."""
    own = _of(os.getpid(), own=True)
    found = {link("/proc/self/ns/mnt"): own, "": own}
    for pid in processes():
        name = link(f"/proc/{pid}/ns/mnt")
        if name not in found:
            with suppress(OSError):  # the process has ended
                found[name] = _of(pid, own=False)
    return list(dict.fromkeys(found.values()))


def _of(pid: int, *, own: bool) -> Namespace:
    with open(f"/proc/{pid}/mountinfo", errors="surrogateescape") as file:
        return Namespace(pid, own, Mounts(file.read()))


def follows(mount: Mount, space: Namespace, ours: Namespace, ones: Iterable[Mount]) -> bool:
    """Does `mount` of another namespace vanish when one of the mounts `ones` is unmounted in ours?

    It does if the mounts on which they lie are in one group: the kernel repeats an unmount there.
    """
    groups = {
        peer.partition(":")[2]
        for one in ones
        for peer in _groups(ours.mounts.parent(one))
        if peer.startswith("shared")
    }
    return any(peer.partition(":")[2] in groups for peer in _groups(space.mounts.parent(mount)))


def _groups(mount: Mount | None) -> tuple[str, ...]:
    return mount.peers if mount is not None else ()
