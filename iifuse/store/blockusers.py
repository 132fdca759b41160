"""What uses a block device: mounts in any mount namespace, swap, other devices, programs."""

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from iifuse.store.namespaces import Namespace, follows
from iifuse.units import command

SYS: Final = "/sys/class/block"
SWAPS: Final = "/proc/swaps"
_DEEP_MAX: Final = 8
"""How many layers of devices on devices are followed."""


@dataclass(frozen=True)
class Use:
    """One use of a device.

    `what`: the end of a sentence that begins with 'it is'. `way`: the command that ends the use, or
    what to stop. `point`: the mount point, if it is a mount in our own namespace; programs may keep
    that busy.
    """

    what: str
    way: str
    point: str = ""


Open = Mapping[str, Sequence[str]]
"""Path of a device node -> the programs that have it open, for people."""


def tree(name: str, deep: int = _DEEP_MAX) -> Iterator[str]:
    """A device, its partitions and the devices made of them. What lies on others comes first.

    All have the names that they have in /sys/class/block.
    """
    folder = f"{SYS}/{name}"
    above = [os.path.basename(path) for path in glob.glob(f"{folder}/holders/*")]
    parts = [os.path.basename(os.path.dirname(p)) for p in glob.glob(f"{folder}/*/partition")]
    for other in (*above, *parts) if deep else ():
        yield from tree(other, deep - 1)
    yield name


def node(name: str) -> str:
    """The path of the device's node. For a mapped device it is the name that people know."""
    mapped = text(f"{SYS}/{name}/dm/name")
    return f"/dev/mapper/{mapped}" if mapped else f"/dev/{name.replace('!', '/')}"


def text(path: str) -> str:
    """The text of a file of /sys or /proc; empty if there is none."""
    with suppress(OSError), open(path, errors="surrogateescape") as file:
        return file.read().rstrip("\n")
    return ""


def uses(name: str, spaces: Sequence[Namespace], opened: Open) -> list[Use]:
    """All uses of a device and of the devices on it, in the order in which they have to end.

    `spaces`: the mount namespaces; our own comes first.
    """
    found: list[Use] = []
    for each in dict.fromkeys(tree(name)):
        nodes = dict.fromkeys((node(each), f"/dev/{each}"))
        found += _mounted(each, list(nodes), spaces)
        found += [Use("used as swap", command("swapoff", n)) for n in nodes if n in _swaps()]
        found += [Use(f"open by {who}", f"stop {who}") for n in nodes for who in opened.get(n, ())]
        if each != name and not os.path.exists(f"{SYS}/{each}/partition"):
            found.append(_made_of_it(each))
    return found


def _made_of_it(name: str) -> Use:
    if name.startswith("md"):
        return Use(f"a part of {node(name)}", command("mdadm --stop", node(name)))
    mapped = text(f"{SYS}/{name}/dm/name")
    return Use(f"under {node(name)}", command("dmsetup remove", mapped or name))


def _swaps() -> list[str]:
    return [line.split()[0] for line in text(SWAPS).splitlines()[1:]]


def _mounted(name: str, nodes: Sequence[str], spaces: Sequence[Namespace]) -> Iterator[Use]:
    device = text(f"{SYS}/{name}/dev")
    own = spaces[0]
    ours = own.of(device, nodes)
    for space in spaces:
        for mount in reversed(space.of(device, nodes)):  # the topmost mount first
            if space.own:
                yield Use(f"mounted on {mount.point}", command("umount", mount.point), mount.point)
            elif not follows(mount, space, own, ours):
                where = f"mounted on {mount.point} in the mount namespace of process {space.pid}"
                yield Use(where, command(f"{space.enter()}umount", mount.point))
