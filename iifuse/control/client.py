"""How a tool talks to the service. It blocks, and makes a connection for each request."""

import socket
from typing import TypeVar

import msgspec

from iifuse import errors
from iifuse.control import lines, protocol

T = TypeVar("T")


class Client:
    """The service behind a control socket. `path`: that of the socket.

    Every call raises the error that the service has raised, or ServiceError if the service cannot
    be reached.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def call(self, request: protocol.AnyRequest, answer: type[T]) -> T:
        """Send a request and wait for its answer, which must have the type `answer`."""
        with self._connect() as connection:
            self._send(connection, lines.encode_request(request))
            line = self._receive(connection)
        try:
            return msgspec.json.decode(lines.decode_reply(line), type=answer)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise errors.ProtocolError(self.path, f"unexpected answer ({error})") from error

    def notes(self, request: protocol.AnyRequest) -> tuple[str, ...]:
        """Send a request whose answer is Noted. Returns the remarks, which are for stderr."""
        return self.call(request, protocol.Noted).notes

    def status(self, target: protocol.Target | None = None) -> list[protocol.SetStatus]:
        """The status of the sets of a target. Without a target: of all sets of the service."""
        request = protocol.Status(target or protocol.Target())
        return self.call(request, list[protocol.SetStatus])

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self.path)
        except OSError as error:
            connection.close()
            raise self._unreachable(error) from error
        return connection

    def _unreachable(self, error: OSError) -> errors.ServiceError:
        if isinstance(error, PermissionError):
            return errors.ServiceError(self.path, "only root may ask this service", "be root")
        return errors.ServiceError(
            self.path,
            f"no service answers ({errors.words(error)})",
            "start iifuse, or name its socket with --socket or IIFUSE_SOCKET",
        )

    def _send(self, connection: socket.socket, line: bytes) -> None:
        try:
            connection.sendall(line)
        except BrokenPipeError:
            return  # the service has refused the request early, and its answer says why
        except OSError as error:
            raise self._broken(error) from error

    def _broken(self, error: OSError) -> errors.ServiceError:
        return errors.ServiceError(self.path, f"the connection broke ({errors.words(error)})")

    def _receive(self, connection: socket.socket) -> bytes:
        data = bytearray()
        while not data.endswith(b"\n"):
            try:
                part = connection.recv(1 << 16)
            except OSError as error:
                raise self._broken(error) from error
            if not part:
                raise errors.ServiceError(self.path, "the service ended before it answered")
            data += part
            if len(data) > lines.REPLY_BYTES_MAX:
                raise errors.ProtocolError(self.path, "the answer is too long")
        return bytes(data)
