"""The control socket. Only root and the user of the service may use it."""

import errno
import logging
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import trio

from iifuse import errors
from iifuse.control import lines
from iifuse.control.lines import MESSAGE_BYTES_MAX
from iifuse.control.protocol import AnyRequest
from iifuse.loop.timelimits import TimeLimits

log = logging.getLogger(__name__)

Answer = Callable[[AnyRequest], Awaitable[object]]

_REQUEST_SECONDS: Final = 30.0
"""How long a client may take to send a request."""

_FAREWELL_SECONDS: Final = 1.0
"""How long a client that is sent away may take to read why."""
_LOOK_SECONDS: Final = 2.0
"""Seconds between two looks whether the socket is still there."""
_PAUSE_SECONDS: Final = 0.2
_FULL: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

_PEERS: Final = struct.Struct("3i")  # pid, uid, gid


class Server:
    """Listens at `path`. A connection carries one request after the other."""

    def __init__(self, path: str, answer: Answer, limits: TimeLimits) -> None:
        self.path, self._answer, self._limits = path, answer, limits
        self._listener: trio.socket.SocketType | None = None
        self._own: tuple[int, int] | None = None
        """Device and inode of our socket, because another one may take its place."""
        self._spare = _descriptor()
        """A spare descriptor. With it a client can be told that there are no descriptors left."""

    async def open(self) -> None:
        """Bind the socket with mode 0600. Raises ServiceError if another service answers there."""
        _clear_the_way(self.path)
        listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        mask = os.umask(0o177)  # nobody else may connect, not even for a moment
        try:
            await listener.bind(self.path)
        except OSError as error:
            listener.close()
            raise errors.ServiceError(self.path, f"cannot listen ({error.strerror})") from error
        finally:
            os.umask(mask)
        listener.listen(64)
        self._listener, self._own = listener, _at(self.path)

    async def run(self) -> None:
        """Serve until this is cancelled. If somebody removes the socket, it is made again."""
        async with trio.open_nursery() as nursery:
            while True:
                with trio.CancelScope() as listening:
                    nursery.start_soon(self._watch, listening)
                    await self._accept(nursery)
                log.warning("%s: was removed, and is made again", self.path)
                await self._listen_anew()

    async def _watch(self, listening: trio.CancelScope) -> None:
        while _at(self.path) == self._own:  # noqa: ASYNC110 - the file system gives no event
            await trio.sleep(_LOOK_SECONDS)
        listening.cancel()

    async def _listen_anew(self) -> None:
        assert self._listener is not None
        self._listener.close()
        told = ""
        while _at(self.path) != self._own:
            try:
                await self.open()
            except (errors.ServiceError, OSError) as error:
                if str(error) != told:
                    log.error("%s", error)  # noqa: TRY400 - this is no defect
                told = str(error)
                await trio.sleep(_LOOK_SECONDS)

    async def _accept(self, nursery: trio.Nursery) -> None:
        assert self._listener is not None
        while True:
            try:
                connection, _ = await self._listener.accept()
            except OSError as error:
                if error.errno not in _FULL:
                    log.error("%s: %s", self.path, error.strerror)  # noqa: TRY400 - no defect
                await self._turn_away(error)
            else:
                nursery.start_soon(self._serve, trio.SocketStream(connection))

    async def _turn_away(self, error: OSError) -> None:
        """Tell one client that there is no room, with the spare descriptor."""
        if self._spare is not None:
            os.close(self._spare)
        try:
            with self._limits.move_on_after(_PAUSE_SECONDS):
                assert self._listener is not None
                connection, _ = await self._listener.accept()
                async with trio.SocketStream(connection) as stream:
                    why = f"the service has no room for a request ({error.strerror})"
                    await self._send_away(
                        stream, errors.ServiceError(self.path, why, "see its limits")
                    )
        except (OSError, trio.BrokenResourceError):
            await trio.sleep(_PAUSE_SECONDS)
        finally:
            self._spare = _descriptor()

    def close(self) -> None:
        """Close the socket, and remove it if it is still ours."""
        if self._listener is not None:
            self._listener.close()
            with suppress(OSError):
                if _at(self.path) == self._own:
                    os.unlink(self.path)
        if self._spare is not None:
            os.close(self._spare)

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if _is_allowed(stream.socket):
                    await self._talk(stream)
                else:
                    error = errors.Refused(self.path, "only root may speak to this service")
                    await self._send_away(stream, error)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return  # the client has gone
            except Exception:
                log.exception("defect in a connection")  # it must not end the service

    async def _talk(self, stream: trio.SocketStream) -> None:
        rest = bytearray()
        while True:
            try:
                line = await self._receive_line(stream, rest)
            except errors.IifuseError as error:
                await self._send_away(stream, error)
                return
            if line is None:
                return
            reply = await self._while_connected(stream, line)
            if reply is None:
                return
            await stream.send_all(reply)

    async def _while_connected(self, stream: trio.SocketStream, line: bytes) -> bytes | None:
        """The reply; None: the client has hung up. A verb that has begun is finished anyway."""
        reply: bytes | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_on_hangup, stream.socket, nursery.cancel_scope)
            reply = await self._reply(line)
            nursery.cancel_scope.cancel()
        return reply

    async def _reply(self, line: bytes) -> bytes:
        try:
            return lines.encode_result(await self._answer(lines.decode_request(line)))
        except errors.IifuseError as error:
            return lines.encode_failure(error)
        except OSError as error:
            log.error("%s", error)  # noqa: TRY400 - a disk's error, not a defect
            where, why = str(error.filename or ""), error.strerror or str(error)
            return lines.encode_failure(errors.StorageError(where, why, "see 'iiadm -i'"))
        except Exception as error:
            log.exception("defect in a control verb")
            failure = errors.InternalError("", f"{type(error).__name__}: {error}", "see the log")
            return lines.encode_failure(failure)

    async def _send_away(self, stream: trio.SocketStream, error: errors.IifuseError) -> None:
        """Send an error, and read what the client still sends: unread data would lose the error."""
        with self._limits.move_on_after(_FAREWELL_SECONDS):
            await stream.send_all(lines.encode_failure(error))
            await stream.send_eof()
            while await stream.receive_some(1 << 16):
                pass

    async def _receive_line(self, stream: trio.SocketStream, rest: bytearray) -> bytes | None:
        with self._limits.move_on_after(_REQUEST_SECONDS):
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


async def _cancel_on_hangup(connection: trio.socket.SocketType, scope: trio.CancelScope) -> None:
    """Stop waiting for a verb if its client goes away."""
    try:
        if await connection.recv(1, socket.MSG_PEEK):
            return  # its next request
    except OSError:
        pass  # reset: it has gone as well
    scope.cancel()


def _descriptor() -> int | None:
    """A new descriptor; None: there are none left."""
    with suppress(OSError):
        return os.open(os.devnull, os.O_RDONLY)
    return None


def _at(path: str) -> tuple[int, int] | None:
    """Device and inode of what is at a path; None: nothing is there."""
    with suppress(OSError):
        found = os.lstat(path)
        return found.st_dev, found.st_ino
    return None


def _is_allowed(connection: trio.socket.SocketType) -> bool:
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERS.size)
    _, uid, _ = _PEERS.unpack(raw)
    return uid in (0, os.geteuid())


def _clear_the_way(path: str) -> None:
    """Remove the socket of a service that has ended. Raises ServiceError if one answers."""
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
