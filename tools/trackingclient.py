"""A client that remembers whether it has sent a request that changes something."""

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
"""Requests that change nothing. Wait is not among them: if a user stops waiting for a copy, the
tool has to say that the copy goes on."""


class TrackingClient(Client):
    """A client for a whole program. `begun`: may a request of it have changed something?"""

    begun: ClassVar[bool] = False

    def call(self, request: protocol.AnyRequest, answer: type[T]) -> T:
        """Send a request (Client.call), and note whether it may change something."""
        before = TrackingClient.begun
        TrackingClient.begun = before or not isinstance(request, _LOOKS)
        try:
            return super().call(request, answer)
        except (errors.Question, errors.NotClosed):  # nothing was done
            TrackingClient.begun = before
            raise
