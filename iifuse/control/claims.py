"""What a request claims (host.verblocks): the masters of its sets, as far as known."""

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
    """Each answers with names of masters, and of what else only one may work on."""

    def __init__(self, instance: Instance, mountpoint: str) -> None:
        self._instance, self._mountpoint = instance, mountpoint

    def sets_of(self, target: Target) -> list[VolumeSet]:
        """Raises NotFound, Refused for a name that fits several."""
        if target.group is not None:
            return self._instance.members(target.group)
        return find_all(self._instance.sets, target.sets, self._mountpoint)

    def one(self, request: OfSet) -> set[str]:
        """Of a verb on one set."""
        return self._masters_of(Target((request.shadow,)))

    def several(self, request: OfSets) -> set[str]:
        """Of a verb on some."""
        return self._masters_of(request.target)

    def recorded(self, request: protocol.Update | protocol.Reset) -> set[str]:
        """A group command is recorded, an update of one set is not; a reset forgets records."""
        masters = self.several(request)
        alone = isinstance(request, protocol.Update) and len(request.target.sets) == 1
        return masters if alone else {*masters, RECORD}

    def named(self, request: protocol.Release) -> set[str]:
        """Volumes with no set."""
        return {NEW, *request.volumes}

    def new(self, request: AnyRequest) -> set[str]:
        """Of who brings volumes in, or changes which set is where."""
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
        """Of the sets that there are; whoever names another one is told by the verb itself."""
        found: set[str] = set()
        for one in [target] if target.group else [Target((name,)) for name in target.sets]:
            with suppress(errors.IifuseError):
                found |= {self._instance.claim_of(member) for member in self.sets_of(one)}
        return found
