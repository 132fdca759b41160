"""Volumes of a set that are not there, or in whose place something else stands.

None of this is noted durably: such a volume may be back at any moment, and nothing is lost until a
write needs it. A set is noted as offline only when it can wait no longer. If it were noted at once,
a start that comes before its disks would cost every dependent set its point in time. The header
keeps the stamps of such a volume, and a set that nobody can write to is not changed at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from iifuse import errors
from iifuse.core.bits import Bits
from iifuse.core.header import FileId
from iifuse.core.state import Kind, Progress, Role, SetState
from iifuse.units import command

HELD_ONLY: Final = (
    "put the old file back; what is written now goes to it, and once the service has stopped it "
    "is gone: copy it from the mount before"
)
"""What to do about a volume that was replaced while in use."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Why a path does not lead to the volume that the set knows.

    `stranger`: the path leads to another file. `served`: the set still has the right volume open,
    and has had it open all the time.
    """

    why: str
    stranger: bool = False
    served: bool = False
    covered: str = field(default="", compare=False)
    """`-o in_place` has mounted the other file over this path, so nothing can be put there now."""

    def words(self, role: Role) -> str:
        """The sentence for people."""
        name = (role.name or "").lower()
        if self.served:
            return f"the {name} was replaced while in use: {self.why}"
        return f"the {name} was replaced: {self.why}" if self.stranger else (
            f"waiting for the {name}: {self.why}"
        )  # fmt: skip


Lack = Mapping[Role, Missing]
"""What is missing, by its part in the set."""


def same_file(known: FileId, found: FileId) -> bool:
    """May these be one file? A field that is unknown for one of them is not compared."""
    if 0 in (known.inode, found.inode):
        return True
    births = known.birth_ns, found.birth_ns
    return known.inode == found.inode and (0 in births or births[0] == births[1])


def check_whole(name: str, lack: Lack, verb: str) -> None:
    """Raise Refused while a volume is missing, as a verb can neither read nor change it."""
    for role, missing in lack.items():
        raise errors.Refused(
            name, f"{verb} is not possible: {missing.words(role)}", way_out(name, missing)
        )


def check_noted(name: str, lack: Lack, verb: str) -> None:
    """Raise Refused while the bitmap volume is missing, because a change of state would be lost.

    The header in memory only stands in for the true one, which comes back with the volume.
    """
    missing = lack.get(Role.BITMAP)
    if missing is not None and not missing.served:
        check_whole(name, {Role.BITMAP: missing}, verb)


def way_out(name: str, missing: Missing) -> str:
    """What to do about a volume that is missing, or how the set goes on without it."""
    give_up = command("iiadm -R", name)
    if missing.served:
        return HELD_ONLY
    if missing.covered:
        return (
            f"take what stands there off the mount with {command('svadm -d', missing.covered)}, "
            f"put the old one back, and the set goes on by itself; or give it up with {give_up}"
        )
    if missing.stranger:
        return f"put the old one back, and the set goes on by itself; or give it up with {give_up}"
    return f"the set goes on by itself when it is back; {give_up} gives it up"


def lost_of(state: SetState, lack: Lack) -> Role:
    """The volumes that a set has lost when it stops waiting for those that are missing."""
    lost = state.offline
    for role in lack:
        lost |= role
    return lost | _lost_with_bits(state) if Role.BITMAP in lack else lost


def hides_shadow(state: SetState, lack: Lack) -> bool:
    """Is a part of the shadow's content out of reach? A whole shadow needs no other volume."""
    gone = {role for role, missing in lack.items() if not missing.served}
    whole = _has_a_whole_shadow(state)
    if Role.SHADOW in gone or (Role.MASTER in gone and not whole):
        return True
    return Role.BITMAP in gone and not (whole and state.progress is Progress.IDLE)


def without_bits(state: SetState, chunks: int) -> tuple[Role, Bits]:
    """What is safe to show of a set whose bits are lost: (volumes that are offline, bits).

    - Idle and independent: all chunks count as different.
    - Independent, in a restore: the restore begins anew. The master shows the point in time, and
      takes writes again after -R.
    - Dependent, in a restore: nobody knows which chunks of the master are right, so none is shown.
    - In any other state nobody knows what the shadow holds.
    """
    bits = Bits.blank(chunks)
    if state.progress is Progress.TO_MASTER:
        bits.copy.fill()
    elif state.kind is Kind.INDEPENDENT and state.progress is Progress.IDLE:
        bits.shadow.fill()
    return _lost_with_bits(state), bits


def _lost_with_bits(state: SetState) -> Role:
    return Role.BITMAP if _has_a_whole_shadow(state) else Role.BITMAP | Role.SHADOW


def _has_a_whole_shadow(state: SetState) -> bool:
    return state.kind is Kind.INDEPENDENT and state.progress is not Progress.TO_SHADOW
