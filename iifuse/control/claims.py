"""What a request has to lock before its verb begins (host.verblocks)."""

from contextlib import suppress

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import AnyRequest, Target
from iifuse.core.naming import find_all
from iifuse.data.volumeset import VolumeSet
from iifuse.host.instance import Instance
from iifuse.host.verblocks import NEW, RECORD

OfSet = (
    protocol.MarkChanged | protocol.GiveUp | protocol.CheckJoin | protocol.Join
)  # fmt: skip
OfSets = (
    protocol.Disable | protocol.Update | protocol.Abort | protocol.Reset | protocol.Export
    | protocol.Tune
)  # fmt: skip


class Claims:
    """Finds the names that a request has to lock: masters of its sets, NEW and RECORD."""

    def __init__(self, instance: Instance, mountpoint: str) -> None:
        self._instance, self._mountpoint = instance, mountpoint

    def sets_of(self, target: Target) -> list[VolumeSet]:
        """The sets of a target. Raises NotFound, and UsageError for a name that fits several."""
        if target.group is not None:
            return self._instance.members(target.group)
        return find_all(self._instance.sets, target.sets, self._mountpoint)

    def one(self, request: OfSet) -> set[str]:
        """The names for a verb on one set."""
        return self._masters_of(Target((request.shadow,)))

    def several(self, request: OfSets) -> set[str]:
        """The names for a verb on several sets."""
        return self._masters_of(request.target)

    def recorded(self, request: protocol.Update | protocol.Reset) -> set[str]:
        """The names for a verb that may use the record of group commands.

        An update of several sets writes the record, and a reset may remove what is in it.
        """
        masters = self.several(request)
        alone = isinstance(request, protocol.Update) and len(request.target.sets) == 1
        return masters if alone else {*masters, RECORD}

    def named(self, request: protocol.Release) -> set[str]:
        """The names for a verb on volumes that belong to no set."""
        return {NEW, *request.volumes}

    def new(self, request: AnyRequest) -> set[str]:
        """The names for a verb that adds volumes or sets, or moves sets to a group."""
        match request:
            case protocol.Enable():
                return {NEW, request.master}
            case protocol.Import() | protocol.CheckImport():
                return {NEW, request.shadow}
            case protocol.Control():
                return {NEW, *request.volumes}
            case protocol.Move():
                return {NEW, *self._masters_of(Target(request.sets))}
            case _:
                return {NEW, RECORD}

    def _masters_of(self, target: Target) -> set[str]:
        """The masters of the sets that exist. The verb itself reports a name that is wrong."""
        found: set[str] = set()
        for one in [target] if target.group else [Target((name,)) for name in target.sets]:
            with suppress(errors.IifuseError):
                found |= {self._instance.claim_of(member) for member in self.sets_of(one)}
        return found
