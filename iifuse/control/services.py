"""Finds the services that run, and the one that a tool has to talk to."""

import glob
import os
import socket
from dataclasses import dataclass
from typing import Final

from iifuse import errors
from iifuse.control.protocol import DEFAULT_SOCKET, SOCKET_VARIABLE

RUN_DIRECTORY: Final = os.path.dirname(DEFAULT_SOCKET)
_NAME: Final = os.path.basename(DEFAULT_SOCKET)


@dataclass(frozen=True)
class Place:
    """The control socket of a service. `instance`: NAME of iifuse@NAME; None: it has no name."""

    socket: str
    instance: str | None = None

    def __str__(self) -> str:
        return self.socket if self.instance is None else self.instance


def of_instance(name: str) -> str:
    """The control socket of iifuse@NAME. Raises UsageError."""
    if not name or "/" in name or name in (".", ".."):
        raise errors.UsageError(name, "is not the name of an instance", "it is X of iifuse@X")
    return os.path.join(RUN_DIRECTORY, name, _NAME)


def find(path: str | None, instance: str | None) -> str:
    """The control socket that the user means.

    It is the one that was typed, or IIFUSE_SOCKET, or the default one. If nobody answers there, it
    is that of the only service that runs. Raises ServiceError if several run.
    """
    if path is not None:
        return path
    if instance is not None:
        return of_instance(instance)
    named = os.environ.get(SOCKET_VARIABLE)
    if named or _answers(DEFAULT_SOCKET):
        return named or DEFAULT_SOCKET
    others = running()
    if len(others) > 1:
        names = ", ".join(map(str, others))
        raise errors.ServiceError(
            "", f"several services run: {names}", f"name one: --instance {others[0]}"
        )
    return others[0].socket if others else DEFAULT_SOCKET


def running() -> list[Place]:
    """The services that answer below /run/iifuse, the default one first."""
    sockets = sorted(glob.glob(os.path.join(glob.escape(RUN_DIRECTORY), "*.sock")))
    places = [Place(path) for path in dict.fromkeys((DEFAULT_SOCKET, *sockets))]
    for path in sorted(glob.glob(os.path.join(glob.escape(RUN_DIRECTORY), "*", _NAME))):
        places.append(Place(path, os.path.basename(os.path.dirname(path))))  # noqa: PERF401
    return [place for place in places if _answers(place.socket)]


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True
