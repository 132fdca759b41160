"""A message with descriptors over a stream socket, in either direction."""

import errno
import os
import socket
import struct
from array import array
from collections.abc import Sequence
from typing import Final

_HEAD: Final = struct.Struct("<IB")  # bytes of the message, number of descriptors
DESCRIPTORS_MAX: Final = 4


def send(line: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send a message of any length. Raises OSError."""
    socket.send_fds(line, [_HEAD.pack(len(message), len(fds))], list(fds))
    line.sendall(message)


def receive(line: socket.socket) -> tuple[bytes, list[int]]:
    """The next message; its descriptors are not inherited. Raises EOFError at the end, OSError."""
    head, fds = receive_some(line, _HEAD.size)
    try:
        length, sent = _HEAD.unpack(head if len(head) == _HEAD.size else _rest(line, head))
        if len(fds) != sent:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return _exactly(line, length), fds
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise


def receive_some(line: socket.socket, length: int) -> tuple[bytes, list[int]]:
    """What there is, and the descriptors with it; nothing at the end. Raises OSError.

    As socket.recv_fds, which lets the descriptors be inherited, whatever it is told.
    """
    fds = array("i")
    room = socket.CMSG_LEN(DESCRIPTORS_MAX * fds.itemsize)
    found, beside, _, _ = line.recvmsg(length, room, socket.MSG_CMSG_CLOEXEC)
    for _, _, data in beside:  # nothing else ever comes beside a message here
        fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return found, list(fds)


def _rest(line: socket.socket, head: bytes) -> bytes:
    return head + _exactly(line, _HEAD.size - len(head))


def _exactly(line: socket.socket, length: int) -> bytes:
    found = bytearray()
    while len(found) < length:
        part = line.recv(length - len(found))
        if not part:
            raise EOFError
        found += part
    return bytes(found)
