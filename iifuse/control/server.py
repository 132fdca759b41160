"""The unix socket that root and the service's user may speak to; nobody else."""

import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from iifuse import errors
from iifuse.control import protocol
from iifuse.control.protocol import MESSAGE_BYTES_MAX, AnyRequest
from iifuse.engine import limits

log = logging.getLogger(__name__)

Answer = Callable[[AnyRequest], Awaitable[object]]

_REQUEST_SECONDS: Final = 30.0
"""How long a client may take to send its request."""

_FAREWELL_SECONDS: Final = 1.0

_PEERS: Final = struct.Struct("3i")  # pid, uid, gid


class Server:
    """Listens at `path`; each connection carries requests, one after the other."""

    def __init__(self, path: str, answer: Answer) -> None:
        self.path, self._answer = path, answer
        self._listener: trio.socket.SocketType | None = None

    async def open(self) -> None:
        """Bind the socket, mode 0600. Raises ServiceError when a service answers there."""
        _clear_the_way(self.path)
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # nobody may connect, not even for a moment
        try:
            await listener.bind(self.path)
        except OSError as error:
            listener.close()
            raise errors.ServiceError(self.path, f"cannot listen ({error.strerror})") from error
        finally:
            os.umask(mask)
        listener.listen(64)
        self._listener = listener

    async def run(self) -> None:
        """Serve until cancelled."""
        assert self._listener is not None
        await trio.serve_listeners(self._serve, [trio.SocketListener(self._listener)])

    def close(self) -> None:
        """Remove the socket."""
        if self._listener is not None:
            self._listener.close()
            os.unlink(self.path)

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if _is_allowed(stream.socket):
                    await self._talk(stream)
                else:
                    error = errors.Refused(self.path, "only root may speak to this service")
                    await _send_away(stream, error)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the client has gone
            except Exception:
                log.exception("defect in a connection")  # one client's, not the service's end

    async def _talk(self, stream: trio.SocketStream) -> None:
        rest = bytearray()
        while True:
            try:
                line = await _receive_line(stream, rest)
            except errors.IifuseError as error:
                await _send_away(stream, error)
                return
            if line is None:
                return
            reply = await self._while_connected(stream, line)
            if reply is None:
                return
            await stream.send_all(reply)

    async def _while_connected(self, stream: trio.SocketStream, line: bytes) -> bytes | None:
        """The reply; None if the client hung up. A verb that has begun is finished all the same."""
        reply: bytes | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_hangup, stream.socket, nursery.cancel_scope)
            reply = await self._reply(line)
            nursery.cancel_scope.cancel()
        return reply

    async def _reply(self, line: bytes) -> bytes:
        try:
            return protocol.encode_result(await self._answer(protocol.decode_request(line)))
        except errors.IifuseError as error:
            return protocol.encode_failure(error)
        except OSError as error:
            log.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect
            where, why = str(error.filename or ""), error.strerror or str(error)
            return protocol.encode_failure(errors.StorageError(where, why, "see 'iiadm -i'"))
        except Exception as error:
            log.exception("defect in a control verb")
            failure = errors.InternalError("", f"{type(error).__name__}: {error}", "see the log")
            return protocol.encode_failure(failure)


async def _send_away(stream: trio.SocketStream, error: errors.IifuseError) -> None:
    """Say why, and take in what is still on its way: unread, it would undo the answer."""
    with limits.move_on_after(_FAREWELL_SECONDS):
        await stream.send_all(protocol.encode_failure(error))
        await stream.send_eof()
        while await stream.receive_some(1 << 16):
            pass


async def _cancel_on_hangup(connection: trio.socket.SocketType, scope: trio.CancelScope) -> None:
    """A client that is interrupted while it waits is not waited for."""
    try:
        if await connection.recv(1, socket.MSG_PEEK):
            return  # its next request
    except OSError:
        pass  # reset: it has gone as well
    scope.cancel()


async def _receive_line(stream: trio.SocketStream, rest: bytearray) -> bytes | None:
    with limits.move_on_after(_REQUEST_SECONDS):
        while b"\n" not in rest:
            if len(rest) > MESSAGE_BYTES_MAX:
                raise errors.ProtocolError("request", "is too long")
            part = await stream.receive_some(1 << 16)
            if not part:
                return None
            rest += part
        line, _, remainder = bytes(rest).partition(b"\n")
        rest[:] = remainder
        return line
    raise errors.ProtocolError("request", f"did not come within {_REQUEST_SECONDS:g} seconds")


def _is_allowed(connection: trio.socket.SocketType) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERS.size)
    _, uid, _ = _PEERS.unpack(raw)
    return uid in (0, os.geteuid())


def _clear_the_way(path: str) -> None:
    """Remove the socket of a service that is gone; refuse one that answers."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise errors.ServiceError(path, "is there and not a socket", "name another --socket")
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.ServiceError(path, f"cannot be used ({error.strerror})") from error
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except OSError:
            os.unlink(path)
            return
    raise errors.ServiceError(path, "another service listens here", "name another --socket")
