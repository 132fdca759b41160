"""Volumes of a set that are not there, or in whose place something else stands.

Nothing of this is durable: such a volume may be back at any moment, and nothing is lost until a
write needs it. A set that can wait no longer is noted as offline, and not before: noted at once, a
start before its disks would cost every dependent set its point in time. The stamps of such a volume
stay in the header while it is not in use, and a set that nobody can write to is not touched at all.
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

    `stranger`: something else stands there. `served`: the set has had the right one open all the
    time, and still has.
    """

    why: str
    stranger: bool = False
    served: bool = False
    covered: str = field(default="", compare=False)
    """`-o in_place` has mounted what stands there over this path: nothing can be put there."""

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
    """May these be one file? What is not known of one of them tells nothing."""
    if 0 in (known.inode, found.inode):
        return True
    births = known.birth_ns, found.birth_ns
    return known.inode == found.inode and (0 in births or births[0] == births[1])


def check_whole(name: str, lack: Lack, verb: str) -> None:
    """Raise Refused while a volume is missing: a verb could neither read it nor note its change."""
    for role, missing in lack.items():
        raise errors.Refused(
            name, f"{verb} is not possible: {missing.words(role)}", way_out(name, missing)
        )


def check_noted(name: str, lack: Lack, verb: str) -> None:
    """Raise Refused while a bitmap is waited for: a change of the header would be forgotten.

    Until then the header is a stand-in, and the true one comes back as it was.
    """
    missing = lack.get(Role.BITMAP)
    if missing is not None and not missing.served:
        check_whole(name, {Role.BITMAP: missing}, verb)


def way_out(name: str, missing: Missing) -> str:
    """What to do for a set that lacks a volume, or how it goes on without."""
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
    """What a set has lost if it waits no longer for what is missing."""
    lost = state.offline
    for role in lack:
        lost |= role
    return lost | _lost_with_bits(state) if Role.BITMAP in lack else lost


def hides_shadow(state: SetState, lack: Lack) -> bool:
    """Is some of the shadow's content out of reach? A whole shadow needs no other volume."""
    gone = {role for role, missing in lack.items() if not missing.served}
    whole = _has_a_whole_shadow(state)
    if Role.SHADOW in gone or (Role.MASTER in gone and not whole):
        return True
    return Role.BITMAP in gone and not (whole and state.progress is Progress.IDLE)


def without_bits(state: SetState, chunks: int) -> tuple[Role, Bits]:
    """(what is offline, bits) of a set whose bits will never be known: what is safe to show.

    Idle and independent: all chunks differ. An independent set that restored: the restore is begun
    anew, the master shows its point in time, and takes writes again after -R. A dependent one that
    restored: nobody knows which chunks of the master are right, so none is shown. Else nobody
    knows what the shadow holds.
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
