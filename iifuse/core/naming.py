"""Which set somebody means. Pure.

A set is named by its shadow. People have other names before them: the bitmap volume, the master,
and what the mount shows of either; each will do as long as only one set has it. A master with
several sets is refused: to take all of them would disable or restore more than was meant.

The service asks this, no tool does: so there is one rule for every tool and verb, and only the
service knows all sets and the mount point.
"""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, TypeVar

from iifuse import errors
from iifuse.core.header import Header
from iifuse.core.state import Custody
from iifuse.units import command, nearest

_LISTED: Final = "'iiadm -l' lists all"
_ALIKE_MAX: Final = 3


class Named(Protocol):
    """What has to be known of a set so that it can be found."""

    @property
    def header(self) -> Header:
        """With the paths of its volumes."""

    @property
    def group(self) -> str | None:
        """The name of the group that it is in."""


S = TypeVar("S", bound=Named)


def below(mountpoint: str, path: str) -> str:
    """The path of the volume that a file of the mount stands for; any other path as it is."""
    top = mountpoint.rstrip("/")
    return path.removeprefix(top) if top and path.startswith(f"{top}/") else path


def find(sets: Mapping[str, S], name: str, mountpoint: str) -> S:
    """The set that `name` means; `sets` by shadow.

    Raises NotFound, which suggests the nearest name, and UsageError when several sets have it.
    """
    for path in dict.fromkeys((name, below(mountpoint, name))):
        found = _having(sets, path)
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(s.header.shadow for s in found))
            raise errors.UsageError(
                name, f"is the master of {len(found)} sets", f"name one by its shadow: {names}"
            )
    hint = _meant(sets, name)
    raise errors.NotFound(name, "no such set", f"{hint} {_LISTED}".strip())


def _meant(sets: Mapping[str, S], name: str) -> str:
    """A hint, or nothing. Tools send absolute paths: what was typed may be the last part alone."""
    last = posixpath.basename(name)
    if last and last in {s.group for s in sets.values()}:
        return f"{last} is a group: {command('-g', last)[1:-1]};"
    alike = sorted(shadow for shadow in sets if posixpath.basename(shadow) == last)
    if len(alike) > 1:
        return near(name, alike) or f"did you mean {' or '.join(alike[:_ALIKE_MAX])}?"
    return f"did you mean {alike[0]}?" if alike else near(name, sets)


def _having(sets: Mapping[str, S], path: str) -> list[S]:
    if path in sets:
        return [sets[path]]
    by_bitmap = [s for s in sets.values() if s.header.bitmap == path]
    return by_bitmap or [s for s in sets.values() if _master(s.header) == path]


def _master(header: Header) -> str:
    """Of an imported shadow it is on another host, and none of ours."""
    return "" if header.custody is Custody.IMPORTED else header.master


def find_all(sets: Mapping[str, S], names: Sequence[str], mountpoint: str) -> list[S]:
    """The sets of these names, in their order. Raises as `find`; none may be named twice."""
    found = [find(sets, name, mountpoint) for name in names]
    for at, member in enumerate(found):
        if member in found[:at]:
            raise errors.UsageError(member.header.shadow, "this set is named twice")
    return found


def near(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' of the nearest known name; empty when none is near."""
    found = nearest(name, known, 0.7)
    return f"did you mean {found}?" if found else ""
