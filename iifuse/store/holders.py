"""Who has a file or a device open, and what ends that.

The answer comes from links and texts in /proc and /sys. The file itself is never looked at, because
it may be on our own mount, or on a disk that hangs.
"""

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from iifuse.store import blockusers
from iifuse.store.blockusers import Use, text
from iifuse.store.namespaces import Namespace, link, namespaces, processes
from iifuse.units import command

NAMED_MAX: Final = 5
"""How many holders a message names. It only counts further ones."""


@dataclass(frozen=True)
class Holder:
    """A program or device that has a file open.

    `who`: its name, for people. `ways`: the commands that end the use, in their order.
    """

    who: str
    ways: tuple[str, ...]

    def __str__(self) -> str:
        return self.who


def named(found: Sequence[Holder]) -> str:
    """The names of all holders, for people; empty: no holder is known."""
    return _some([holder.who for holder in found])


def ways_out(found: Sequence[Holder]) -> str:
    """The commands that end all these uses, for people; empty: no holder is known."""
    ways = list(dict.fromkeys(way for holder in found for way in holder.ways))
    more = ", and so on" if len(ways) > NAMED_MAX else ""
    return ", then ".join(ways[:NAMED_MAX]) + more


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - NAMED_MAX} more" if len(words) > NAMED_MAX else ""
    return ", ".join(words[:NAMED_MAX]) + more


def of_file(path: str) -> list[Holder]:
    """The holders of a file that has the same path in every mount namespace."""
    return _of_names({path}, namespaces())


def of_mounted(device: int, path: str) -> list[Holder]:
    """The holders of a file of a mounted file system.

    `device`: the number of the file system. `path`: the file's path inside it.
    """
    spaces = namespaces()
    return _of_names({name for space in spaces for name in space.names(device, path)}, spaces)


def of_device(number: int) -> list[Holder]:
    """The holders of a block device: one for each use of it."""
    name = os.path.basename(link(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"))
    return [Holder(use.what, (use.way,)) for use in _used([name])[name]] if name else []


def _of_names(names: set[str], spaces: Sequence[Namespace]) -> list[Holder]:
    loops = [loop for loop in _loops() if _backing(loop) in names]
    programs = [Holder(who, (f"stop {who}",)) for who in _programs(names)]
    used = _used(loops, spaces)
    return [*programs, *(_loop(loop, used[loop]) for loop in loops)]


def _loops() -> list[str]:
    return [path.split("/")[3] for path in glob.glob("/sys/block/loop*/loop")]


def _backing(loop: str) -> str:
    return text(f"/sys/block/{loop}/loop/backing_file")


def _loop(name: str, uses: Sequence[Use]) -> Holder:
    device = f"/dev/{name}"
    what = f" ({_some([use.what for use in uses])})" if uses else ""
    goes_by_itself = uses and text(f"/sys/block/{name}/loop/autoclear") == "1"
    own = () if goes_by_itself else (command("losetup -d", device),)
    return Holder(f"loop device {device}{what}", (*(use.way for use in uses), *own))


def _used(names: Iterable[str], spaces: Sequence[Namespace] | None = None) -> dict[str, list[Use]]:
    """The uses of some devices. Programs that keep a mount busy come before the mount."""
    names = list(names)
    if not names:
        return {}
    spaces = namespaces() if spaces is None else spaces
    below = [each for name in names for each in blockusers.tree(name)]
    nodes = {node for each in below for node in (blockusers.node(each), f"/dev/{each}")}
    opened = _openers(nodes)
    return {name: list(_busy(blockusers.uses(name, spaces, opened))) for name in names}


def _busy(uses: Iterable[Use]) -> Iterator[Use]:
    for use in uses:
        for who in _programs_below(use.point) if use.point else ():
            yield Use(f"in use by {who}", f"stop {who}")
        yield use


# -- programs -------------------------------------------------------------------------------


def _programs(paths: set[str]) -> list[str]:
    return [_program(pid) for pid in processes() if _has_open(pid, paths)]


def _openers(nodes: set[str]) -> dict[str, list[str]]:
    """For each device node the programs that have it open."""
    found: dict[str, list[str]] = {}
    for pid in processes():
        links = {link(name) for name in _descriptors(pid)}
        for node in nodes & links if pid != os.getpid() else ():
            found.setdefault(node, []).append(_program(pid))
    return found


def _programs_below(point: str) -> list[str]:
    """The programs that have a file open below a mount point, or have their directory there."""
    start = point.rstrip("/") + "/"
    return [
        _program(pid)
        for pid in processes()
        if any(f"{seen}/".startswith(start) for seen in _links(pid))
    ]


def _links(pid: int) -> Iterator[str]:
    for name in (*_descriptors(pid), *(f"/proc/{pid}/{n}" for n in ("cwd", "root"))):
        yield link(name)


def _program(pid: int) -> str:
    elsewhere = link(f"/proc/{pid}/ns/mnt") not in ("", link("/proc/self/ns/mnt"))
    where = ", in another mount namespace" if elsewhere else ""
    how = ", which has ended but for a thread that waits for a disk" if _has_ended(pid) else ""
    return f"{text(f'/proc/{pid}/comm') or '?'} (pid {pid}{where}{how})"


def _descriptors(pid: int) -> list[str]:
    """The links of a process. Once that has ended, those that a thread of it has left still has."""
    own = glob.glob(f"/proc/{pid}/fd/*")
    return own or (glob.glob(f"/proc/{pid}/task/*/fd/*") if _has_ended(pid) else [])


def _has_ended(pid: int) -> bool:
    """Is its first thread gone? The kernel keeps others that wait for a disk or a file server."""
    return text(f"/proc/{pid}/stat").rpartition(")")[2].startswith(" Z")


def _has_open(pid: int, paths: set[str]) -> bool:
    if pid == os.getpid():
        return False
    return any(link(name) in paths for name in _descriptors(pid)) or _has_mapped(pid, paths)


def _has_mapped(pid: int, paths: set[str]) -> bool:
    with suppress(OSError), open(f"/proc/{pid}/maps", errors="surrogateescape") as maps:
        return any(line.split(maxsplit=5)[-1].rstrip("\n") in paths for line in maps)
    return False
