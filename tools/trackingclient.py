"""A client that remembers whether it has told the service to change something."""

from typing import ClassVar, Final, TypeVar

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.client import Client

T = TypeVar("T")

_LOOKS: Final = (
    protocol.Hello, protocol.Status, protocol.History, protocol.Health, protocol.Groups,
    protocol.Volumes, protocol.DryRun, protocol.Compare, protocol.NotRestored,
    protocol.CheckImport, protocol.CheckJoin,
)  # fmt: skip
"""What changes nothing. Not Wait: who no longer waits for a copy is told that it goes on."""


class TrackingClient(Client):
    """`begun`: may the service be doing, or have done, something for this program?"""

    begun: ClassVar[bool] = False

    def call(self, request: protocol.AnyRequest, answer: type[T]) -> T:
        """As of Client."""
        before = TrackingClient.begun
        TrackingClient.begun = before or not isinstance(request, _LOOKS)
        try:
            return super().call(request, answer)
        except (errors.Question, errors.NotClosed):  # nothing was done
            TrackingClient.begun = before
            raise
