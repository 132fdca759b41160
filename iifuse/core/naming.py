"""Which set a user means by a name.

A set is named by its shadow. The user may also name it by its bitmap volume, by its master, or by a
file of the mount, as long as only one set has that name. A master with several sets is refused: to
take all of them could disable or restore more than the user meant.

Only the service asks this, and no tool. So the rule is the same for every tool, and only the
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
    """A set, as far as it has to be known to be found."""

    @property
    def header(self) -> Header:
        """Its header, which has the paths of its volumes."""

    @property
    def group(self) -> str | None:
        """The name of its group; None if it is in none."""


S = TypeVar("S", bound=Named)


def volume_path(mountpoint: str, path: str) -> str:
    """The path of the volume behind a file of the mount. Any other path is returned as it is."""
    top = mountpoint.rstrip("/")
    return path.removeprefix(top) if top and path.startswith(f"{top}/") else path


def find(sets: Mapping[str, S], name: str, mountpoint: str) -> S:
    """The set that `name` means. `sets` are the sets by the paths of their shadows.

    Raises NotFound, which suggests a similar name, and UsageError when several sets have the name.
    """
    for path in dict.fromkeys((name, volume_path(mountpoint, name))):
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
    """A hint for a name that no set has; empty: there is none.

    Tools make names absolute, so perhaps the user has typed only the last part of the path.
    """
    last = posixpath.basename(name)
    if last and last in {s.group for s in sets.values()}:
        return f"{last} is a group: {command('-g', last)[1:-1]};"
    alike = sorted(shadow for shadow in sets if posixpath.basename(shadow) == last)
    if len(alike) > 1:
        return suggestion(name, alike) or f"did you mean {' or '.join(alike[:_ALIKE_MAX])}?"
    return f"did you mean {alike[0]}?" if alike else suggestion(name, sets)


def _having(sets: Mapping[str, S], path: str) -> list[S]:
    if path in sets:
        return [sets[path]]
    by_bitmap = [s for s in sets.values() if s.header.bitmap == path]
    return by_bitmap or [s for s in sets.values() if _master(s.header) == path]


def _master(header: Header) -> str:
    """The path of a set's master. That of an imported shadow is on another host, so it is empty."""
    return "" if header.custody is Custody.IMPORTED else header.master


def find_all(sets: Mapping[str, S], names: Sequence[str], mountpoint: str) -> list[S]:
    """The sets of these names, in their order.

    Raises what `find` raises, and UsageError when a set is named twice.
    """
    found = [find(sets, name, mountpoint) for name in names]
    for at, member in enumerate(found):
        if member in found[:at]:
            raise errors.UsageError(member.header.shadow, "this set is named twice")
    return found


def suggestion(name: str, known: Iterable[str]) -> str:
    """'did you mean X?' with the most similar known name; empty when none is similar."""
    found = nearest(name, known, 0.7)
    return f"did you mean {found}?" if found else ""
