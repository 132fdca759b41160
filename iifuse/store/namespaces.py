"""What is mounted in which mount namespace, as far as some process is in it.

Read from links and texts in /proc: nothing that is mounted is touched.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from iifuse.store.mounts import Mount, Mounts


@dataclass(frozen=True)
class Namespace:
    """`pid`: a process in it. `own`: this process is in it."""

    pid: int
    own: bool
    mounts: Mounts

    def names(self, device: int, path: str) -> Iterator[str]:
        """What programs call a file of a file system; `path`: what that calls it itself."""
        for mount in self.mounts.all_of_number(device):
            root = mount.root.rstrip("/")
            if path == root or path.startswith(f"{root}/"):
                yield mount.point.rstrip("/") + path[len(root) :]

    def of(self, device: str, nodes: Iterable[str]) -> list[Mount]:
        """What is mounted of a block device: by its number, or under one of its names."""
        named = [mount for node in nodes for mount in self.mounts.all_from(node)]
        return list(dict.fromkeys([*self.mounts.all_of_device(device), *named]))

    def enter(self) -> str:
        """Words before a command that is to be run in it; empty in our own."""
        if self.own:
            return ""
        root = " -r" if link(f"/proc/{self.pid}/root") not in ("", "/") else ""
        return f"nsenter -t {self.pid} -m{root} "


def link(path: str) -> str:
    """Where a link leads; empty where it cannot be read."""
    with suppress(OSError):
        return os.readlink(path)
    return ""


def processes() -> list[int]:
    """Those that run now."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())


def namespaces() -> list[Namespace]:
    """Each once, our own first."""
    own = _of(os.getpid(), own=True)
    found = {link("/proc/self/ns/mnt"): own, "": own}
    for pid in processes():
        name = link(f"/proc/{pid}/ns/mnt")
        if name not in found:
            with suppress(OSError):  # it has ended
                found[name] = _of(pid, own=False)
    return list(dict.fromkeys(found.values()))


def _of(pid: int, *, own: bool) -> Namespace:
    with open(f"/proc/{pid}/mountinfo", errors="surrogateescape") as file:
        return Namespace(pid, own, Mounts(file.read()))


def follows(mount: Mount, space: Namespace, ours: Namespace, ones: Iterable[Mount]) -> bool:
    """Does a mount of a namespace go when one of these is unmounted in ours?

    The mounts that they lie on tell that: the kernel passes on what happens there.
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
